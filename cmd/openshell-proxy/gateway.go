// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// machineAddresses are the machine that runs the sandbox as the proxy's connections reach
// it: where they start on it that is its loopback, in the container's namespace the
// gateway of the container's network.
//
// Preconditions: the process is not locked down, after which it cannot list routes.
func machineAddresses(egress proxyapi.Egress) ([]netip.Addr, error) {
	if egress != proxyapi.EgressNamespace {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	text, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	gateway, err := defaultGateway(text)
	if err != nil {
		return nil, err
	}
	return []netip.Addr{gateway}, nil
}

// withMachine returns hosts with the names of the machine. A name that hosts has already
// keeps its addresses, which come from the engine. The others get those of the machine, or
// none.
func withMachine(hosts map[string][]netip.Addr, machine []netip.Addr) map[string][]netip.Addr {
	out := maps.Clone(hosts)
	if out == nil {
		out = map[string][]netip.Addr{}
	}
	for _, name := range policy.MachineNames() {
		if len(out[name]) == 0 {
			out[name] = machine
		}
	}
	return out
}

// defaultGateway is the one of the main table's default route.
func defaultGateway(text []byte) (netip.Addr, error) {
	messages, err := syscall.ParseNetlinkMessage(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read routes: %w", err)
	}
	for _, m := range messages {
		// A struct rtmsg begins with family, length of the destination, of the source,
		// TOS and table.
		if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg || m.Data[1] != 0 || m.Data[4] != syscall.RT_TABLE_MAIN {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("read a route: %w", err)
		}
		i := slices.IndexFunc(attributes, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == syscall.RTA_GATEWAY })
		if i < 0 {
			continue
		}
		if a, ok := netip.AddrFromSlice(attributes[i].Value); ok {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("the container's network has no way out, so the host has no address there")
}
