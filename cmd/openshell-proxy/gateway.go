// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"openshell.dev/runtime/internal/handoff"
)

// hostNames are what the machine that runs the sandbox is called in the operator's
// files, as in OpenShell and the engines.
var hostNames = []string{"host.openshell.internal", "host.docker.internal", "host.containers.internal"}

// hostAddress is the machine itself as the proxy's connections reach it: where they
// start on it that is its loopback, in the container's namespace the way out of that.
func hostAddress(egress handoff.Egress) (netip.Addr, error) {
	if egress != handoff.EgressNamespace {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	text, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	return defaultGateway(text)
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
