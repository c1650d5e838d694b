// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// route is a message of the kernel's about one IPv4 route.
func route(destination, table byte, gateway []byte) []byte {
	body := []byte{syscall.AF_INET, destination, 0, 0, table, 0, 0, 0, 0, 0, 0, 0}
	if gateway != nil {
		body = binary.NativeEndian.AppendUint16(body, uint16(4+len(gateway)))
		body = binary.NativeEndian.AppendUint16(body, syscall.RTA_GATEWAY)
		body = append(body, gateway...)
	}
	head := binary.NativeEndian.AppendUint32(nil, uint32(syscall.SizeofNlMsghdr+len(body)))
	head = binary.NativeEndian.AppendUint16(head, syscall.RTM_NEWROUTE)
	return append(append(head, make([]byte, 10)...), body...)
}

func TestDefaultGateway(t *testing.T) {
	text := slices.Concat(
		route(24, syscall.RT_TABLE_MAIN, []byte{10, 0, 0, 9}),     // not the default
		route(0, syscall.RT_TABLE_LOCAL, []byte{10, 0, 0, 8}),     // another table
		route(0, syscall.RT_TABLE_MAIN, nil),                      // no gateway
		route(0, syscall.RT_TABLE_MAIN, []byte{172, 17, 0, 1}),    // this one
		route(0, syscall.RT_TABLE_MAIN, []byte{192, 168, 0, 254}), // a second one
	)
	if a, err := defaultGateway(text); err != nil || a != netip.MustParseAddr("172.17.0.1") {
		t.Errorf("%s %v", a, err)
	}
	if a, err := defaultGateway(text[:len(route(24, 0, []byte{0, 0, 0, 0}))]); err == nil {
		t.Errorf("no default route, and still %s", a)
	}
	if _, err := defaultGateway([]byte{1, 2, 3}); err == nil {
		t.Error("nonsense is read")
	}
	if a, err := machineAddresses(proxyapi.EgressHost); err != nil || len(a) != 2 || !a[0].IsLoopback() || !a[1].IsLoopback() {
		t.Errorf("%s %v", a, err)
	}
}

// TestMachineNamesNeverAskDNS: a name of the machine has the engine's addresses, the
// machine's or none, so that no resolver is asked for it.
func TestMachineNamesNeverAskDNS(t *testing.T) {
	given, machine := []netip.Addr{netip.MustParseAddr("10.0.0.7")}, []netip.Addr{netip.MustParseAddr("172.17.0.1")}
	for _, hosts := range []map[string][]netip.Addr{nil, {"host.docker.internal": given, "a.test": given}} {
		for _, addrs := range [][]netip.Addr{nil, machine} {
			got := withMachine(hosts, addrs)
			for _, name := range policy.MachineNames() {
				want := addrs
				if hosts[name] != nil {
					want = given
				}
				if a, ok := got[name]; !ok || !slices.Equal(a, want) {
					t.Errorf("%s has %v, %t; want %v", name, a, ok, want)
				}
			}
			if len(hosts) > 2 || len(got["a.test"]) != len(hosts["a.test"]) {
				t.Errorf("hosts became %v, %v", hosts, got)
			}
		}
	}
}
