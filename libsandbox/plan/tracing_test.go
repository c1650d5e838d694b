// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/policy"
)

// TestBypass_B37_Tracing: under a policy that names programs, programs cannot trace each
// other, every proc is mounted read-only, also if config.json has it writable, and no rule
// below a proc gives a right to write. The operator's setting overrides this.
func TestBypass_B37_Tracing(t *testing.T) {
	s := spec(func(s *specs.Spec) {
		masks(s)
		s.Mounts[0].Options = []string{"ro", "rw", "rrw", "nosuid"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/proc/", Type: "bind", Source: "/proc/", Options: []string{"rbind"}})
	})
	all := policy.Filesystem{Line: 2}
	proc := policy.Filesystem{Line: 2, ReadWrite: []string{"/tmp", "/proc", "/proc/self/", "/mnt/proc/1"}}
	const readOnlyProc, actAs = "/proc is read-only", "every program can act as each"
	for name, tc := range map[string]struct {
		binary  string
		files   policy.Filesystem
		tracing Tracing
		// names says whether the sandbox takes policies that name programs.
		traces, names bool
		warning       string
	}{
		"a program":                      {"/usr/bin/git", proc, "", false, true, readOnlyProc},
		"a program, auto":                {"/usr/bin/git", proc, TracingAuto, false, true, readOnlyProc},
		"a pattern":                      {"/usr/**", policy.Filesystem{Line: 2, ReadWrite: []string{"/tmp", "/procs"}}, "", false, true, ""},
		"everything":                     {"/usr/bin/git", all, "", false, true, readOnlyProc},
		"every program":                  {"/**", proc, "", true, false, ""},
		"no policy's":                    {"", proc, TracingAuto, true, false, ""},
		"a program, and the operator's":  {"/usr/bin/git", all, TracingAllow, true, true, actAs},
		"every program, and allow":       {"/**", all, TracingAllow, true, true, ""},
		"every program, and deny":        {"/**", proc, TracingDeny, false, true, ""},
		"no policy's, and deny":          {"", proc, TracingDeny, false, true, ""},
		"a program, and the word is odd": {"/usr/bin/git", all, "sometimes", false, true, readOnlyProc},
	} {
		pol := &policy.Policy{Filesystem: tc.files}
		if tc.binary != "" {
			pol.Network = []policy.NetworkPolicy{{Key: "a"}, {Key: "b", Binaries: []policy.Binary{{Path: "/**"}, {Path: tc.binary}}}}
		}
		p, err := New(s, pol, Options{LandlockABI: 7, OnlyListedPaths: true, Tracing: tc.tracing, Allow: []string{"mounts", "linux.readonlyPaths"}})
		if err != nil {
			t.Fatal(err)
		}
		if p.Tracing != tc.traces || p.MayNamePrograms(tc.tracing) != tc.names {
			t.Errorf("%s: tracing %t, takes names %t", name, p.Tracing, p.MayNamePrograms(tc.tracing))
		}
		made := p.Spec(s)
		for _, i := range []int{0, 2} {
			m := made.Mounts[i]
			if readOnly(m) == tc.traces {
				t.Errorf("%s: %s has the options %q", name, m.Destination, m.Options)
			}
		}
		for _, r := range p.Ruleset.Rules {
			below := pathname.Below(path.Clean(r.Path), "/proc") || pathname.Below(path.Clean(r.Path), "/mnt/proc")
			if writes := r.Access&^landlock.ReadOnly != 0; writes == (below && !tc.traces) {
				t.Errorf("%s: rule %+v", name, r)
			}
		}
		warnings := p.Warnings(s, pol, Options{OnlyListedPaths: true, EnforceByDefault: true})
		for _, w := range []string{readOnlyProc, actAs} {
			if slices.ContainsFunc(warnings, func(got string) bool { return strings.Contains(got, w) }) != (w == tc.warning) {
				t.Errorf("%s: warnings %q", name, warnings)
			}
		}
		if !slices.Contains(s.Mounts[0].Options, "rrw") {
			t.Errorf("%s: the spec handed in was changed", name)
		}
	}
}

// TestBypass_B37_TracingWithoutLandlock: without Landlock a program could trace launch before
// launch is confined. Therefore no program may trace, and the operator's allow is an error.
func TestBypass_B37_TracingWithoutLandlock(t *testing.T) {
	for tracing, works := range map[Tracing]bool{"": true, TracingAuto: true, TracingDeny: true, TracingAllow: false} {
		p, err := New(spec(nil), &policy.Policy{}, Options{Tracing: tracing})
		if (err == nil) != works || err == nil && p.Tracing {
			t.Errorf("%s: %+v, %v", tracing, p, err)
		}
	}
}

// TestScopes: a Landlock scope restricts signals and abstract sockets only if the namespace
// can have other processes in it.
func TestScopes(t *testing.T) {
	namespaces := func(list ...specs.LinuxNamespace) *specs.Spec {
		return spec(func(s *specs.Spec) { s.Linux.Namespaces = list })
	}
	net, pid := specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.PIDNamespace}
	sharedNet, sharedPID := net, pid
	sharedNet.Path, sharedPID.Path = "/run/netns/pod", "/proc/7/ns/pid"
	both := landlock.ScopeSignals | landlock.ScopeAbstractSockets
	for name, tc := range map[string]struct {
		s    *specs.Spec
		abi  int
		want landlock.Scopes
	}{
		"its own":                     {namespaces(net, pid), 7, 0},
		"a network namespace by path": {namespaces(sharedNet, pid), 7, landlock.ScopeAbstractSockets},
		"a PID namespace by path":     {namespaces(net, sharedPID), 6, landlock.ScopeSignals},
		"both":                        {namespaces(sharedNet, sharedPID), 7, both},
		"the host's":                  {namespaces(), 7, both},
		"an older ABI":                {namespaces(sharedNet, sharedPID), 5, 0},
	} {
		p, err := New(tc.s, &policy.Policy{}, Options{LandlockABI: tc.abi, Allow: Fields})
		if err != nil {
			t.Fatal(err)
		}
		if p.Ruleset.Scoped != tc.want {
			t.Errorf("%s: scopes %b, want %b", name, p.Ruleset.Scoped, tc.want)
		}
	}
}
