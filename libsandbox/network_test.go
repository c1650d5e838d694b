// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

func TestParseHosts(t *testing.T) {
	text := "127.0.0.1 localhost api.test\n10.0.0.1\tApi.Test alias # not.this\n# 10.0.0.2 no\n10.0.0.3\nx y\n" +
		"10.0.0.4 " + strings.Repeat("a b ", 1<<15) + "\n::ffff:10.0.0.5 mapped api.test\n"
	want := map[string][]netip.Addr{
		"api.test": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.5")},
		"alias":    {netip.MustParseAddr("10.0.0.1")}, "mapped": {netip.MustParseAddr("10.0.0.5")},
	}
	got := parseHosts([]byte(text))
	delete(got, "a")
	delete(got, "b")
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// FuzzParseHosts: a name is in canonical spelling, and none leads to the loopback.
func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n10.0.0.1\tApi.Test alias # comment\nfe80::1%eth0 x\n"))
	f.Add([]byte("\x00 \xff\n::ffff:127.0.0.1 a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, addrs := range parseHosts(text) {
			if canonical, err := policy.NormalizeHost(name); err != nil || canonical != name {
				t.Errorf("%q: %v", name, err)
			}
			for _, a := range addrs {
				if a.IsLoopback() || a.Is4In6() || !a.IsValid() {
					t.Errorf("%q leads to %s", name, a)
				}
			}
		}
	})
}

// TestOwnNames (issue 11, point 6): names of the loopback and those beside the host name
// are the container's own.
func TestOwnNames(t *testing.T) {
	text := "127.0.0.1 localhost alias\n::1 localhost\n0.0.0.0 blocked.test\n172.17.0.2\tBox.test box\n10.0.0.9 other.test\n"
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	want := map[string][]netip.Addr{
		"localhost": addrs("127.0.0.1", "::1"), "alias": addrs("127.0.0.1"), "blocked.test": addrs("0.0.0.0"),
		"box.test": addrs("172.17.0.2"), "box": addrs("172.17.0.2"),
	}
	if d := cmp.Diff(want, ownNames([]byte(text), "box"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	delete(want, "box.test")
	want["box"] = addrs("127.0.0.1", "::1")
	if d := cmp.Diff(want, ownNames([]byte(strings.ReplaceAll(text, "172.17.0.2", "# ")), "box"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if own := ownNames([]byte("10.0.0.1 a b\n"), ""); len(own) > 0 {
		t.Errorf("without a host name: %v", own)
	}
}

// TestNoProxy: NO_PROXY names the container, the host name first, within a bound.
func TestNoProxy(t *testing.T) {
	dir := t.TempDir()
	text := "127.0.0.1 localhost alias\n172.17.0.2 box\n"
	for i := range 2 * maxNoProxy {
		text += fmt.Sprintf("0.0.0.0 %d.blocked.test\n", i)
	}
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Hostname: "box", Root: &specs.Root{Path: dir}, Mounts: []specs.Mount{{Destination: "/etc/hosts", Source: file}}}
	got, err := noProxy(spec)
	if err != nil || len(got) != maxNoProxy || got[0] != "box" || got[1] != "172.17.0.2" {
		t.Errorf("%v, %v", got, err)
	}
	spec.Mounts = nil
	if got, err := noProxy(spec); err != nil || !slices.Equal(got, []string{"box"}) {
		t.Errorf("without a hosts file: %v, %v", got, err)
	}
}

// FuzzParseResolvers: there are no more than were asked for, each with an address.
func FuzzParseResolvers(f *testing.F) {
	f.Add([]byte("# none\nnameserver 10.0.0.1\nnameserver\nnameserver fe80::1%eth0\noptions ndots:5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		out := parseResolvers(text)
		if len(out) > maxResolvers {
			t.Errorf("%d resolvers", len(out))
		}
		for _, a := range out {
			if !a.IsValid() || a.Port() != 53 {
				t.Errorf("resolver %s", a)
			}
		}
	})
}

// TestHostNetworkIsRefused: the network namespace of the runtime is refused before anything is
// made, by its field.
func TestHostNetworkIsRefused(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/proc/thread-self/ns/net"}}}}
	var refusal *plan.Refusal
	if _, err := newNetwork(nil, spec); !errors.As(err, &refusal) || refusal.Field != plan.FieldNetwork {
		t.Errorf("%v", err)
	}
}
