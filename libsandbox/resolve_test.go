// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/attach"
	"openshell.dev/runtime/libsandbox/container"
)

// writeFile writes a file in a folder and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestResolve(t *testing.T) {
	annotated := map[string]string{attach.AnnotationProviders: "forge"}
	for _, tc := range []struct {
		name, config, policy string
		annotations          map[string]string
		providers            []string
		action               container.Action
		want                 string // the error, or else the policy's name
		none                 bool
	}{
		{name: "the operator's policy", config: "policy: strict\n", want: "strict.yaml"},
		{name: "built in", config: "", want: "built-in default"},
		{name: "the flag", config: "policy: none\n", policy: "strict", want: "strict.yaml"},
		{name: "no policy", config: "policy: none\n", want: "none", none: true},
		{name: "no policy, restored", config: "policy: none\n", action: container.RestoreInit, want: "none", none: true},
		{name: "no policy, with a provider", config: "policy: none\n", providers: []string{"forge"}, want: "a provider needs the proxy"},
		{name: "no policy, annotated", config: "policy: none\n", annotations: annotated, want: "a provider needs the proxy"},
		{name: "restored", config: "policy: strict\n", action: container.RestoreInit, want: "restore box under policy "},
		{name: "restored under a broken policy", config: "policy: broken\n", action: container.RestoreInit, want: "restore box under policy "},
		{name: "broken policy", config: "policy: broken\n", want: "broken.yaml: "},
		{name: "missing policy", config: "policy: gone\n", want: "operator's default policy: there is no policy "},
		{name: "wrong configuration", config: "polici: x\n", want: `unknown key "polici"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, dir, "policies/strict.yaml", "version: 1\n")
			writeFile(t, dir, "policies/broken.yaml", "version: one\n")
			o := &CreateOptions{ConfigFile: writeFile(t, dir, "config.yaml", "policies_dir: policies\n"+tc.config), Policy: tc.policy, Providers: tc.providers}
			o.Container.ID, o.Container.Spec, o.Process.Action = "box", &specs.Spec{Annotations: tc.annotations}, tc.action
			r, err := resolve(o)
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				return
			}
			if !strings.HasSuffix(r.source.Name, tc.want) || (r.policy == nil) != tc.none {
				t.Errorf("policy %s (%v), want %s", r.source.Name, r.policy, tc.want)
			}
		})
	}
}
