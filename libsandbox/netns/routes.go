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
	// routeTable holds the one route of packets without a mark.
	routeTable = 15001
	// rulePriority is the first rule's, right after the kernel's table of local
	// addresses.
	rulePriority = 1000
	// mainPriority is the kernel's rule for its main table.
	mainPriority = 32766
	// maxPort is the last that the kernel takes in a rule.
	maxPort = 65534
	// loIndex is lo's in every network namespace.
	loIndex = 1
)

// sysctls of the namespace that the second lock needs.
var sysctls = []struct{ name, value, why string }{
	{"ipv4/tcp_fwmark_accept", "1", "accepted connections answer"},
	{"ipv4/fwmark_reflect", "1", "the kernel's own answers leave"},
	{"ipv6/fwmark_reflect", "1", "the kernel's own answers leave"},
	{"ipv4/conf/all/src_valid_mark", "1", "what comes in is checked against its own route"},
}

// routes leaves packets without a mark one route: to lo. It also is what makes a
// connection to an address without any route reach the redirection.
func routes() error {
	// One socket for all: the package's own functions open one for each question.
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
		// This thread's namespace, whatever the process's is.
		err := os.WriteFile(filepath.Join("/proc/sys/net", s.name), []byte(s.value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl net/%s=%s, without which %s not: %w", s.name, s.value, s.why, err)
		}
	}
	if err := route(h, netlink.FAMILY_V4, net.IPv4zero, 32, net.IPv4(127, 0, 0, 1)); err != nil {
		return err
	}
	// Where IPv6 is off there is nothing to route.
	if !hasIPv6() {
		return nil
	}
	return route(h, netlink.FAMILY_V6, net.IPv6zero, 128, nil)
}

// route sets the rule and route of one family. Sockets take their source from
// the route: the namespace's own address if it has one, so that a UDP server
// answers with the address it was asked at.
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
	for i, rule := range lock(family) {
		rule.Family, rule.Priority = family, rulePriority+i
		if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule %d: %w", rule.Priority, err)
		}
	}
	return nil
}

// lock are the routing rules that leave what has no mark the route to lo.
//
// They name what sockets of a sandbox can be (TCP, ICMP, and all that has ports)
// instead of everything: a question about no packet goes past them. Such are
// ARP's, to which otherwise every address would be local, and those by which
// engines find the interface of a gateway. Of sockets, only UDP's to port 65535
// does: it has the one lock of the nftables rules.
func lock(family int) []*netlink.Rule {
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
