// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/policy"
)

// FuzzNew: for every config.json that New accepts, the plan takes the capabilities away that
// no sandbox has, and New does not change the caller's spec. Check accepts the same ones.
func FuzzNew(f *testing.F) {
	whole := spec(masks)
	whole.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	text, err := json.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"root":{},"process":{"cwd":"..","env":["=","A"],"capabilities":{"ambient":["CAP_NET_RAW","cap_sys_admin"]}},"linux":{"namespaces":[{"type":"network"},{"type":"pid"},{"type":"ipc"},{"type":"mount","path":"x"}]},"mounts":[{"destination":"proc","type":"proc"}]}`))
	f.Add([]byte(`{"root":null,"linux":{"resources":{"devices":[{"allow":true}]}}}`))
	pol := &policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true, ReadOnly: []string{"/usr"}}}
	f.Fuzz(func(t *testing.T, text []byte) {
		var given, same specs.Spec
		if json.Unmarshal(text, &given) != nil || json.Unmarshal(text, &same) != nil {
			return
		}
		o := Options{LandlockABI: 7, LandlockFloor: 1, CABundle: "/etc/ssl/cert.pem", TrustPaths: []string{"/etc/ssl/cert.pem"}, Placeholders: []string{"KEY=placeholder"}}
		p, err := New(&given, pol, o)
		if checked := Check(&given, pol, o); (checked == nil) != (err == nil) {
			t.Errorf("Check: %v, New: %v", checked, err)
		}
		if err != nil {
			return
		}
		p.Warnings(&given, pol, Options{})
		got := p.Spec(&given).Process
		if !got.NoNewPrivileges || !slices.Contains(got.Env, "KEY=placeholder") || p.Ruleset.ABI != 7 {
			t.Errorf("%s becomes %+v under %+v", text, got, p.Ruleset)
		}
		if c := got.Capabilities; c != nil {
			for _, removed := range Removed {
				if slices.Contains(slices.Concat(c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient), removed) {
					t.Errorf("%s keeps %s", text, removed)
				}
			}
		}
		if d := cmp.Diff(same, given); d != "" {
			t.Errorf("the spec was changed: %s", d)
		}
	})
}

// FuzzLeadsOut: a source that is accepted is not at or above an engine's folder, in upper or
// lower case. Below such a folder it is a part that engines mount.
func FuzzLeadsOut(f *testing.F) {
	for _, source := range []string{"/var/lib/docker/volumes/v/_data", "/RUN/k3s/../x", "//var/run/user/0", "/var/lib/kubelet/pods/u/etc-hosts", "/\u212a"} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		source = path.Clean("/" + source)
		if LeadsOut(source) != "" {
			return
		}
		for _, e := range EngineFolders {
			rest, below := strings.CutPrefix(source, e.Path+"/")
			given := slices.ContainsFunc(e.Gives, func(p string) bool { return gives(p, rest) })
			if source == e.Path || strings.HasPrefix(e.Path+"/", strings.ToLower(source)+"/") || below && !given {
				t.Errorf("%q is accepted, and %s is refused", source, e.Path)
			}
		}
	})
}
