// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	id := uint32(1000)
	for _, tc := range []struct {
		name, text string
		want       Policy
	}{
		{"absent filesystem_policy includes the working directory", "version: 1\n", Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true}}},
		{"present filesystem_policy does not", "version: 1\nfilesystem_policy: {read_only: [/usr]}\n", Policy{Version: 1, Filesystem: Filesystem{ReadOnly: []string{"/usr"}}}},
		{"all of it", "version: 1\nfilesystem_policy:\n  include_workdir: true\n  read_write: [/tmp]\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: 1000, run_as_group: \"\"}\nnetwork_policies: {}\n",
			Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true, ReadWrite: []string{"/tmp"}}, Landlock: Landlock{Hard: true}, Process: Process{User: &id}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse("p.yaml", []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "p.yaml:1:1: policy is empty"},
		{"no version", "landlock: {}\n", `missing field "version"`},
		{"other version", "version: 2\n", "p.yaml:1:10: version must be 1"},
		{"not a mapping", "[1]\n", "policy must be a mapping"},
		{"typo", "version: 1\nfilesytem_policy: {}\n", `p.yaml:2:1: unknown field "filesytem_policy" in policy (did you mean "filesystem_policy"?)`},
		{"duplicate", "version: 1\nlandlock: {}\nlandlock: {}\n", `duplicate field "landlock"`},
		{"relative", "version: 1\nfilesystem_policy: {read_only: [usr]}\n", "path must be absolute (start with '/'): usr"},
		{"climbing", "version: 1\nfilesystem_policy: {read_only: [/a/../b]}\n", "path contains '..' traversal component: /a/../b"},
		{"all of it writable", "version: 1\nfilesystem_policy: {read_write: [//]}\n", "read-write path is overly broad: //"},
		{"not a list", "version: 1\nfilesystem_policy: {read_only: /usr}\n", "must be a list of paths"},
		{"number in list", "version: 1\nfilesystem_policy: {read_only: [1]}\n", "must be a list of paths"},
		{"long path", "version: 1\nfilesystem_policy: {read_only: [/" + strings.Repeat("a", MaxPathLength) + "]}\n", "path exceeds maximum length (4097 > 4096)"},
		{"many paths", "version: 1\nfilesystem_policy: {read_only: [" + strings.Repeat("/a,", MaxPaths+1) + "]}\n", "too many filesystem paths (257 > 256)"},
		{"workdir not bool", "version: 1\nfilesystem_policy: {include_workdir: maybe}\n", "must be true or false"},
		{"compatibility", "version: 1\nlandlock: {compatibility: besteffort}\n", `unknown landlock.compatibility "besteffort" (best_effort or hard_requirement)`},
		{"root user", "version: 1\nprocess: {run_as_user: 0}\n", "run_as_user must be 'sandbox' or a numeric UID/GID"},
		{"negative user", "version: 1\nprocess: {run_as_user: -1}\n", "run_as_user must be"},
		{"user name", "version: 1\nprocess: {run_as_user: sandbox}\n", "only numeric IDs are enforced"},
		{"network rules", "version: 1\nnetwork_policies:\n  a: {}\n", "p.yaml:3:3: network_policies.a: network rules are not enforced"},
		{"middleware", "version: 1\nnetwork_middlewares: {m: {}}\n", "network_middlewares.m"},
		{"alias", "version: 1\nprocess: &a {}\nlandlock: *a\n", "aliases are not accepted"},
		{"null list", "version: 1\nfilesystem_policy: {read_only: null}\n", "must be a list of paths"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(tc.text))
			if err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 1\nfilesystem_policy: {read_only: [/usr], read_write: [/tmp]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("p", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v with error %v", p, err)
		}
		if p != nil && len(p.Filesystem.ReadOnly)+len(p.Filesystem.ReadWrite) > MaxPaths {
			t.Error("too many paths got through")
		}
	})
}
