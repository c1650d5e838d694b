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
		{"present filesystem_policy does not", "version: 1\nfilesystem_policy: {read_only: [/usr]}\n", Policy{Version: 1, Filesystem: Filesystem{ReadOnly: []string{"/usr"}, Line: 2}}},
		{"stanzas that are null are absent", "version: 1\nfilesystem_policy:\nlandlock: ~\nprocess: null\n", Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true}}},
		{
			"all of it", "version: 1\nfilesystem_policy:\n  include_workdir: true\n  read_write: [/tmp]\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: 1000, run_as_group: \"\"}\nnetwork_policies: {}\nnetwork_middlewares: {}\n",
			Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true, ReadWrite: []string{"/tmp"}, Line: 3}, Landlock: Landlock{Hard: true}, Process: Process{User: &id}},
		},
		{"the user sandbox", "version: 1\nprocess: {run_as_user: sandbox, run_as_group: 1000}\n", Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true}, Process: Process{SandboxUser: true, Group: &id}}},
		{"the group sandbox", "version: 1\nprocess: {run_as_user: 1000, run_as_group: sandbox}\nlandlock: {compatibility: \"\"}\n", Policy{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true}, Process: Process{User: &id, SandboxGroup: true}}},
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
		{"empty", "", "p.yaml:1:1: policy is empty (a policy needs at least version: 1)"},
		{"too large", strings.Repeat("#", MaxSize+1), "p.yaml:1:1: policy is larger than 4194304 bytes"},
		{"not YAML", "{", "p.yaml:1:1: yaml: line 1: did not find expected node content"},
		{"only a comment", "# version: 1\n", "p.yaml:1:1: policy is empty (a policy needs at least version: 1)"},
		{"null", "~\n", "p.yaml:1:1: policy must be a mapping"},
		{"two documents", "version: 1\n---\nnetwork_policies: {}\n", "p.yaml:2:1: a file holds one policy, and this begins another YAML document"},
		{"a second document that is not YAML", "version: 1\n---\n{\n", "p.yaml:1:1: yaml: line 3: did not find expected node content"},
		{"too deep", "version: 1\na: " + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), "p.yaml:2:35: policy nests deeper than 32"},
		{"no version", "landlock: {}\n", `p.yaml:1:1: missing field "version" (write version: 1)`},
		{"other version", "version: 2\n", `p.yaml:1:10: version must be 1, got "2"`},
		{"not a mapping", "[1]\n", "p.yaml:1:1: policy must be a mapping"},
		{"key that is a list", "version: 1\n[a]: b\n", "p.yaml:2:1: a key of policy is not a plain word"},
		{"typo", "version: 1\nfilesytem_policy: {}\n", `p.yaml:2:1: unknown field "filesytem_policy" in policy (did you mean "filesystem_policy"?)`},
		{"unknown", "version: 1\nadvisor: {}\n", `p.yaml:2:1: unknown field "advisor" in policy`},
		{"duplicate", "version: 1\nlandlock: {}\nlandlock: {}\n", `p.yaml:3:1: duplicate field "landlock" in policy`},
		{"relative", "version: 1\nfilesystem_policy: {read_only: [usr]}\n", "p.yaml:2:33: path must be absolute (start with '/'): usr"},
		{"NUL", "version: 1\nfilesystem_policy: {read_only: [\"/a\\0\"]}\n", `p.yaml:2:33: path contains a NUL byte: "/a\x00"`},
		{"climbing", "version: 1\nfilesystem_policy: {read_only: [/a/../b]}\n", "p.yaml:2:33: path contains '..' traversal component: /a/../b"},
		{"all of it writable", "version: 1\nfilesystem_policy: {read_write: [//]}\n", "p.yaml:2:34: read-write path is overly broad: //"},
		{"not a list", "version: 1\nfilesystem_policy: {read_only: /usr}\n", "p.yaml:2:32: filesystem_policy.read_only must be a list of paths"},
		{"number in list", "version: 1\nfilesystem_policy: {read_only: [1]}\n", "p.yaml:2:33: filesystem_policy.read_only must be a list of paths"},
		{"long path", "version: 1\nfilesystem_policy: {read_only: [/" + strings.Repeat("a", MaxPathLength) + "]}\n", "p.yaml:2:33: path exceeds maximum length (4097 > 4096): /" + strings.Repeat("a", 63) + "…"},
		{"many paths", "version: 1\nfilesystem_policy: {read_only: [" + strings.Repeat("/a,", MaxPaths+1) + "]}\n", "p.yaml:2:801: too many filesystem paths (257 > 256)"},
		{"workdir not bool", "version: 1\nfilesystem_policy: {include_workdir: maybe}\n", `p.yaml:2:38: filesystem_policy.include_workdir must be true or false, got "maybe"`},
		{"compatibility", "version: 1\nlandlock: {compatibility: besteffort}\n", `p.yaml:2:27: unknown landlock.compatibility "besteffort" (did you mean "best_effort"?)`},
		{"compatibility far off", "version: 1\nlandlock: {compatibility: x}\n", `p.yaml:2:27: unknown landlock.compatibility "x" (one of best_effort, hard_requirement)`},
		{"compatibility that is a list", "version: 1\nlandlock: {compatibility: []}\n", `p.yaml:2:27: landlock.compatibility must be a string`},
		{"root user", "version: 1\nprocess: {run_as_user: 0}\n", "p.yaml:2:24: run_as_user must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '0'"},
		{"negative user", "version: 1\nprocess: {run_as_user: -1}\n", "p.yaml:2:24: run_as_user must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '-1'"},
		{"user name", "version: 1\nprocess: {run_as_group: Sandbox}\n", "p.yaml:2:25: run_as_group must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got 'Sandbox'"},
		{"user that is null", "version: 1\nprocess: {run_as_user: }\n", "p.yaml:2:24: process.run_as_user must be a string"},
		{"network_policies that are a list", "version: 1\nnetwork_policies: []\n", "p.yaml:2:19: network_policies must be a mapping"},
		{"preset", "version: 1\npreset: {name: x}\n", "p.yaml:2:9: a file with preset is an addition to a policy, not a policy (openshell policy add POLICY FILE joins the two)"},
		{"alias", "version: 1\nprocess: &a {}\nlandlock: *a\n", "p.yaml:3:11: YAML aliases are not accepted in policies"},
		{"alias as key", "version: 1\nprocess: &a {}\n*a : {}\n", "p.yaml:3:6: YAML aliases are not accepted in policies"},
		{"merge key", "version: 1\n<<: {landlock: {}}\n", "p.yaml:2:5: YAML aliases are not accepted in policies"},
		{"null list", "version: 1\nfilesystem_policy: {read_only: null}\n", "p.yaml:2:32: filesystem_policy.read_only must be a list of paths"},
		{"several", "version: 1\na: 1\nb: 2\n", "p.yaml:2:1: unknown field \"a\" in policy\np.yaml:3:1: unknown field \"b\" in policy"},
	} {
		t.Run(tc.name, func(t *testing.T) { refuses(t, tc.text, tc.want) })
	}
}

func refuses(t *testing.T, text, want string) {
	t.Helper()
	p, err := Parse("p.yaml", []byte(text))
	if err == nil {
		t.Fatalf("accepted: %+v", p)
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

// A document must not make the error message endless.
func TestParseReportsSoMuch(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"fields", "version: 1\n" + numbered(10*MaxProblems, "x%d: 1\n"), "p.yaml:102:1"},
		{"paths", "version: 1\nfilesystem_policy:\n  read_only:\n" + numbered(2*MaxProblems, "  - x%d\n"), "p.yaml:104:5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("p.yaml", []byte(tc.text))
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if last := lines[len(lines)-1]; len(lines) != MaxProblems+1 || last != tc.want+": more than 100 problems, the others are not listed" {
				t.Errorf("%d lines, the last %q", len(lines), last)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 1\nfilesystem_policy: {read_only: [/usr], read_write: [/tmp]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte(wholeNetwork))
	f.Add([]byte(ambiguous("host: a.b.c, port: 1, tls: skip", "host: '*.b.c', ports: [1, 2], path: '/[a-z]/{b,c}/**/d?'")))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("p", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v with error %v", p, err)
		}
		if p == nil {
			return
		}
		if len(p.Filesystem.ReadOnly)+len(p.Filesystem.ReadWrite) > MaxPaths {
			t.Error("too many paths got through")
		}
		Lint(p, CompileOptions{})
		for _, n := range p.Network {
			for _, e := range n.Endpoints {
				if e.Host == "" && len(e.AllowedIPs) == 0 || len(e.Ports) == 0 {
					t.Errorf("endpoint of every host or no port got through: %+v", e)
				}
				if e.Protocol == ProtocolREST && e.Access == AccessNone && len(e.Rules) == 0 {
					t.Errorf("endpoint without rules got through: %+v", e)
				}
			}
		}
	})
}

// TestWritesProc checks that read_write gives write access to /proc if it lists /proc or a
// path below it, or if no path restricts files.
func TestWritesProc(t *testing.T) {
	for _, tc := range []struct {
		f    Filesystem
		want bool
	}{
		{Filesystem{}, true},
		{Filesystem{IncludeWorkdir: true}, false},
		{Filesystem{ReadOnly: []string{"/proc"}}, false},
		{Filesystem{ReadWrite: []string{"/tmp", "/proc/self"}}, true},
		{Filesystem{ReadWrite: []string{"/x/../proc/"}}, true},
		{Filesystem{ReadWrite: []string{"/process"}}, false},
	} {
		if got := (&Policy{Filesystem: tc.f}).WritesProc(); got != tc.want {
			t.Errorf("%+v: %t", tc.f, got)
		}
	}
}
