// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// routeTable contains the only route of packets without a mark.
	routeTable = 15001
	// rulePriority is the priority of the first rule. It follows the kernel's table of
	// local addresses.
	rulePriority = 1000
	// mainPriority is the priority of the kernel's rule for its main table.
	mainPriority = 32766
	// maxPort is the largest port that the kernel accepts in a rule.
	maxPort = 65534
	// loIndex is lo's in every network namespace.
	loIndex = 1
)

// sysctls are the settings of the namespace that the routing rules need.
var sysctls = []struct{ name, value, why string }{
	{"ipv4/tcp_fwmark_accept", "1", "accepted connections answer"},
	{"ipv4/fwmark_reflect", "1", "the kernel's own answers leave"},
	{"ipv6/fwmark_reflect", "1", "the kernel's own answers leave"},
	{"ipv4/conf/all/src_valid_mark", "1", "what comes in is checked against its own route"},
}

// routes leaves packets without a mark only the route to lo. It also makes connections to
// an address without any route reach the redirection.
func routes() error {
	// One socket for everything: the package-level functions of netlink open one for each
	// request.
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByIndex(loIndex)
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for _, s := range sysctls {
		// /proc/sys/net shows the namespace of this thread, not of the process.
		err := os.WriteFile(filepath.Join("/proc/sys/net", s.name), []byte(s.value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl net/%s=%s, so that %s: %w", s.name, s.value, s.why, err)
		}
	}
	if err := route(h, netlink.FAMILY_V4, net.IPv4zero, 32, net.IPv4(127, 0, 0, 1)); err != nil {
		return err
	}
	// Without IPv6 there is nothing to route.
	if !hasIPv6() {
		return nil
	}
	return route(h, netlink.FAMILY_V6, net.IPv6zero, 128, nil)
}

// route sets the rules and the route of one family. The route also determines the source
// address of sockets: it is the namespace's own address, if it has one, so that a UDP
// server answers from the address to which the query was sent.
func route(h *netlink.Handle, family int, zero net.IP, bits int, source net.IP) error {
	addrs, err := h.AddrList(nil, family)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.LinkIndex != loIndex && a.Scope == int(netlink.SCOPE_UNIVERSE) {
			source = a.IP
			break
		}
	}
	r := &netlink.Route{
		Family: family, Table: routeTable, LinkIndex: loIndex, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: zero, Mask: net.CIDRMask(0, bits)}, Src: source,
	}
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("add the route to lo: %w", err)
	}
	for i, rule := range unmarkedRules(family) {
		rule.Family, rule.Priority = family, rulePriority+i
		if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule %d: %w", rule.Priority, err)
		}
	}
	return nil
}

// unmarkedRules returns the rules that send every packet without a mark to lo.
//
// They match TCP, ICMP and all protocols with ports instead of everything, because route
// lookups that belong to no packet must still see the main table: those of ARP, to which
// every address would otherwise be local, and those with which engines find the interface
// of a gateway. The only packets of sockets that they do not match are UDP packets to port
// 65535, which the kernel accepts in no rule; for these only the nftables rules apply.
func unmarkedRules(family int) []*netlink.Rule {
	marked, tcp, icmp, ports := netlink.NewRule(), netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
	mask := markMask
	marked.Mark, marked.Mask, marked.Goto = markBase, &mask, mainPriority
	tcp.IPProto, icmp.IPProto = unix.IPPROTO_TCP, unix.IPPROTO_ICMP
	if family == netlink.FAMILY_V6 {
		icmp.IPProto = unix.IPPROTO_ICMPV6
	}
	ports.Dport = netlink.NewRulePortRange(1, maxPort)
	for _, r := range []*netlink.Rule{tcp, icmp, ports} {
		r.Table = routeTable
	}
	return []*netlink.Rule{marked, tcp, icmp, ports}
}
