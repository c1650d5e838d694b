// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
