// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Engines add interfaces and set gateways after the capture: Docker does so at create, and
// for `docker network connect`. Before that they look up the route to the gateway.
func TestEngineSetsGatewayOfCapturedNamespace(t *testing.T) {
	for i, addr := range outsideAddrs {
		p := newPair(t)
		p.close(t)
		in(t, p.inside, func() {
			eth, err := netlink.LinkByName("eth0")
			must(t, err)
			gateway := net.ParseIP(addr)
			ways, err := netlink.RouteGet(gateway)
			must(t, err)
			if len(ways) != 1 || ways[0].LinkIndex != eth.Attrs().Index {
				t.Errorf("the way to %s: %v", addr, ways)
			}
			everywhere := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
			if netip.MustParseAddr(addr).Is4() {
				everywhere = &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
			}
			must(t, netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: gateway}))
			routes, err := netlink.RouteList(eth, []int{netlink.FAMILY_V4, netlink.FAMILY_V6}[i])
			must(t, err)
			for _, r := range routes {
				if r.Gw.Equal(gateway) {
					return
				}
			}
			t.Errorf("the gateway is not behind eth0: %v", routes)
		})
	}
}

// With a host's strict reverse path filter, which namespaces inherit, the kernel takes no
// packet for forged, and neighbours are found in both directions.
func TestStrictReversePath(t *testing.T) {
	p := newPair(t)
	in(t, p.inside, func() {
		for _, at := range []string{"all", "eth0"} {
			must(t, os.WriteFile("/proc/sys/net/ipv4/conf/"+at+"/rp_filter", []byte("1"), 0))
		}
	})
	accepted := serve(t, p.outside, "tcp4", outsideAddrs[0]+":8080")
	inward := serve(t, p.inside, "tcp4", insideAddrs[0]+":8080")
	p.close(t)
	in(t, p.inside, func() {
		d := net.Dialer{Timeout: timeout, Control: mark}
		c, err := d.Dial("tcp", outsideAddrs[0]+":8080")
		must(t, err)
		_ = c.Close()
	})
	must(t, dial(t, p.outside, "tcp", insideAddrs[0]+":8080"))
	if len(accepted) != 1 || len(inward) != 1 {
		t.Errorf("outside accepted %d, inside %d", len(accepted), len(inward))
	}
}

// TestBypass_B61_RulesGoneUDP: the routing rules stop UDP, too, on connected sockets and
// others. Without them the datagrams arrive.
func TestBypass_B61_RulesGoneUDP(t *testing.T) {
	for i, addr := range outsideAddrs {
		network := []string{"udp4", "udp6"}[i]
		p := newPair(t)
		var server net.PacketConn
		in(t, p.outside, func() {
			var err error
			server, err = net.ListenPacket(network, net.JoinHostPort(addr, "7000"))
			must(t, err)
		})
		defer server.Close()
		arrived := func() int {
			n, b := 0, make([]byte, 16)
			for must(t, server.SetReadDeadline(time.Now().Add(300*time.Millisecond))); ; n++ {
				if _, _, err := server.ReadFrom(b); err != nil {
					return n
				}
			}
		}
		send := func() {
			in(t, p.inside, func() {
				if c, err := net.Dial(network, server.LocalAddr().String()); err == nil {
					_, _ = c.Write([]byte("x"))
					_ = c.Close()
				}
				c, err := net.ListenPacket(network, ":0")
				must(t, err)
				_, _ = c.WriteTo([]byte("x"), server.LocalAddr())
				_ = c.Close()
			})
		}
		p.close(t)
		in(t, p.inside, func() {
			c, err := nftables.New()
			must(t, err)
			c.DelTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyINet})
			must(t, c.Flush())
		})
		send()
		if n := arrived(); n != 0 {
			t.Errorf("%s: %d datagrams arrived", network, n)
		}
		in(t, p.inside, func() {
			rules, err := netlink.RuleList([]int{netlink.FAMILY_V4, netlink.FAMILY_V6}[i])
			must(t, err)
			for _, r := range rules {
				if r.Priority >= rulePriority && r.Priority < mainPriority {
					must(t, netlink.RuleDel(&r))
				}
			}
		})
		send()
		if n := arrived(); n != 2 {
			t.Errorf("control, without both locks: %s: %d datagrams arrived", network, n)
		}
	}
}
