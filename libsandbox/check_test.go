// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// bundle is a bundle in folders of a test, and the result of the step resolve.
type bundle struct {
	dir      string
	root     string // of the runtime
	spec     *specs.Spec
	resolved *resolved
}

// newBundle makes a bundle under a policy, with lines of the operator's configuration.
func newBundle(t *testing.T, policyText, config string) *bundle {
	t.Helper()
	b := &bundle{dir: t.TempDir()}
	b.root = filepath.Join(b.dir, "run")
	rootfs := filepath.Join(b.dir, "bundle/rootfs")
	writeFile(t, rootfs, "etc/hosts", "127.0.0.1 localhost\n10.0.0.7 box.test box\n")
	writeFile(t, rootfs, "etc/passwd", "sandbox:x:1000:1001::/:/bin/sh\n")
	if err := os.MkdirAll(b.root, 0o700); err != nil {
		t.Fatal(err)
	}
	b.spec = &specs.Spec{
		Hostname: "box", Root: &specs.Root{Path: rootfs}, Annotations: map[string]string{"a": "b"},
		Process: &specs.Process{Cwd: "/", Args: []string{"/bin/true"}, Env: []string{"PATH=/bin", "KEY=mine"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.NetworkNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.MountNamespace},
		}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
	}
	c, err := operator.LoadConfig(writeFile(t, b.dir, "config.yaml", "providers_dir: providers\nlog_dir: logs\ninference_file: inference.yaml\n"+config))
	if err != nil {
		t.Fatal(err)
	}
	pol, err := policy.Parse("p.yaml", []byte(policyText))
	if err != nil {
		t.Fatal(err)
	}
	b.resolved = &resolved{config: c, source: &operator.Source{Name: "p.yaml", Text: []byte(policyText)}, policy: pol, landlockABI: 7}
	return b
}

// mount adds a bind mount to config.json.
func (b *bundle) mount(source, destination string) {
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"rbind"}})
}

// openFiles counts the open files of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

const sandboxUser = "version: 1\nprocess: {run_as_user: sandbox, run_as_group: sandbox}\n"

// TestCheck: an accepted config.json gives open sources and the numbers of the policy's
// user; nothing is made.
func TestCheck(t *testing.T) {
	b := newBundle(t, sandboxUser, "")
	writeFile(t, b.spec.Root.Path, "etc/group", "sandbox:x:1001:\n")
	data := filepath.Dir(writeFile(t, b.dir, "data/file", ""))
	b.mount(data, "/data")
	before := openFiles(t)
	sources, err := check(b.resolved, b.spec, b.root)
	if err != nil {
		t.Fatal(err)
	}
	if len(sources.list) != 2 || sources.list[1].path != data || sources.list[1].file == nil {
		t.Errorf("%d sources, want the root file system and %s", len(sources.list), data)
	}
	if p := b.resolved.policy.Process; number(p.User) != "1000" || number(p.Group) != "1001" {
		t.Errorf("user %s, group %s", number(p.User), number(p.Group))
	}
	sources.close()
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	if made, err := os.ReadDir(b.root); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
}

// TestCheckRefuses: each refusal names its field, and leaves no file open.
func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, policy string
		change       func(*bundle)
		field, want  string
	}{
		{"a host's namespace", "version: 1\n", func(b *bundle) { b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] }, plan.FieldNetwork, ""},
		{"the runtime's root", "version: 1\n", func(b *bundle) { b.mount(b.root, "/run") }, fieldMounts, "the folder of the operator's --root"},
		{"the providers", "version: 1\n", func(b *bundle) { b.mount(filepath.Dir(b.root), "/up") }, fieldMounts, ""},
		{"no proc", "version: 1\n", func(b *bundle) { b.spec.Mounts = nil }, "", "no proc is mounted at /proc"},
		{"no user", sandboxUser, func(b *bundle) { _ = os.Remove(filepath.Join(b.spec.Root.Path, "etc/passwd")) }, "", "policy p.yaml: process.run_as_user: "},
		{"no root", "version: 1\n", func(b *bundle) { b.spec.Root = nil }, "", "root, linux and process are required"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, tc.policy, "")
			tc.change(b)
			before := openFiles(t)
			_, err := check(b.resolved, b.spec, b.root)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			var r *plan.Refusal
			if errors.As(err, &r) != (tc.field != "") || r != nil && r.Field != tc.field {
				t.Errorf("error %v, want a refusal of %q", err, tc.field)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d open files before, %d after", before, after)
			}
		})
	}
}
