// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
)

// TestProviderForAnotherUser: an agent that is not root, by the engine's word or the
// policy's, uses a provider that an annotation attaches, and reads nothing of what root
// keeps for it.
func TestProviderForAnotherUser(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		policy string
		spec   map[string]any
	}{
		"the engine's":      {providerPolicy, map[string]any{"uid": 1000, "gid": 1000}},
		"the policy's":      {strings.Replace(providerPolicy, "\n", "\nprocess: {run_as_user: 1000, run_as_group: 1000}\n", 1), map[string]any{"uid": 0, "gid": 0}},
		"one without group": {providerPolicy, map[string]any{"uid": 65534, "gid": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &heard{}
			up := startUpstream(t)
			up.Handler = h
			annotate := func(list string) func(map[string]any) {
				return func(spec map[string]any) {
					spec["process"].(map[string]any)["user"] = tc.spec
					spec["annotations"] = map[string]any{"openshell.dev/providers": list}
				}
			}
			// Landlock hides nothing here.
			policy := strings.Replace(tc.policy, "read_only: [/bin, /etc, /proc]", "read_only: [/]", 1)
			b := boxOf(t, boxOptions{policy: policy, up: up, env: []string{"TEST_API_KEY=" + imageKey}, spec: annotate(" work ,work")})
			b.attach(t, testProfile, "")
			if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err == nil || !strings.Contains(out, "annotation_providers: true") {
				t.Fatalf("the operator did not allow the annotation, and run printed %s", out)
			}
			config, err := os.ReadFile(b.config)
			if err == nil {
				err = os.WriteFile(b.config, append(config, "annotation_providers: true\n"...), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			uid := max(1000, tc.spec["uid"].(int))
			self := b.exec("/bin/probe", "self")
			if !strings.HasPrefix(self, fmt.Sprintf("ok: uid=%d ", uid)) || !strings.Contains(self, " TEST_API_KEY=openshell:resolve:env:TEST_API_KEY") {
				t.Fatalf("the exec is %s", self)
			}
			b.arrives(h, realKey)
			if out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:sk-attacker"); !strings.Contains(out, "foreign_credential") || h.take() != "" {
				t.Errorf("a foreign key: %s", out)
			}
			search := []string{"/bin/probe", "search", hex.EncodeToString([]byte(realKey))}
			if out := b.exec(search...); out != "ok: found" {
				t.Errorf("the key, or a socket, is in sight: %s", out)
			}
			// The control: where the user may read it, it is found.
			b.imageFile("tmp/planted", realKey)
			if out := b.exec(search...); out != "ok: found /tmp/planted" {
				t.Errorf("the key in a file, and printed %q", out)
			}
			for _, path := range []string{filepath.Join(b.dir, "providers"), proxyapi.SecretsSocket(b.stateDir()), proxyapi.ControlSocket(b.stateDir())} {
				if _, err := os.Lstat(path); err != nil {
					t.Fatalf("control: %v", err)
				}
				if out := b.exec("/bin/probe", "stat", path); !strings.HasPrefix(out, "error: ") {
					t.Errorf("%s: %s", path, out)
				}
			}
			if out := b.exec("/bin/probe", "environments"); strings.Contains(out, realKey) {
				t.Errorf("the environments inside: %s", out)
			}
		})
	}
}
