// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"os"
	"testing"
)

// TestPublicAddresses checks that docs/public-addresses.yaml has all public addresses and
// no others.
func TestPublicAddresses(t *testing.T) {
	const file = "../docs/public-addresses.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := NewDestination("", p.Network[0].Endpoints[0].AllowedIPs)
	if err != nil {
		t.Fatal(err)
	}
	public, err := NewDestination("*.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	global := netip.MustParsePrefix("2000::/3")
	// At the bounds of a range the addresses before and after it may differ.
	for _, list := range [][]netip.Prefix{listed.allowed, internal, neverAllowed, metadata, {global}} {
		for _, p := range list {
			last := p.Addr().As16()
			for bit := p.Bits() + 128 - p.Addr().BitLen(); bit < 128; bit++ {
				last[bit/8] |= 0x80 >> (bit % 8)
			}
			end := netip.AddrFrom16(last).Unmap()
			for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), p.Addr().Next(), end.Prev(), end, end.Next()} {
				if !a.IsValid() {
					continue
				}
				_, want := public.Check(a, 443)
				want = want && (a.Is4() || global.Contains(a))
				if _, got := listed.Check(a, 443); got != want {
					t.Errorf("%s: allowed %t, want %t", a, got, want)
				}
			}
		}
	}
}
