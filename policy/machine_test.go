// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestBypass_B23_TheMachine: only an endpoint whose host is a name of the machine, without
// a wildcard, reaches the machine's addresses, at its port.
func TestBypass_B23_TheMachine(t *testing.T) {
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	const text = `version: 1
network_policies:
  machine:
    binaries: [/**]
    endpoints:
      - {host: host.openshell.internal, ports: [8080, 6443]}
      - {host: host.docker.internal, port: 8080, allowed_ips: [172.17.0.0/16]}
      - {host: "*.openshell.internal", ports: [80, 8080]}
      - {host: "**.containers.internal", port: 8080}
      - {port: 9090, allowed_ips: [10.0.0.0/8, 172.17.0.0/16]}
      - {host: other.example.com, port: 8080}
      - {host: 127.0.0.1, port: 8080}
      - {host: localhost, port: 8080}
`
	for name, tc := range map[string]struct {
		machine []netip.Addr
		host    string
		port    uint16
		addr    string
		reached bool
	}{
		"the name and its port":                 {loopback, "host.openshell.internal", 8080, "127.0.0.1", true},
		"the name and its port, IPv6":           {loopback, "host.openshell.internal", 8080, "::1", true},
		"the gateway":                           {[]netip.Addr{netip.MustParseAddr("172.17.0.1")}, "host.openshell.internal", 8080, "172.17.0.1", true},
		"the gateway within allowed_ips":        {[]netip.Addr{netip.MustParseAddr("172.17.0.1")}, "host.docker.internal", 8080, "172.17.0.1", true},
		"the loopback, not within allowed_ips":  {loopback, "host.docker.internal", 8080, "127.0.0.1", false},
		"another address of the loopback":       {loopback, "host.openshell.internal", 8080, "127.0.0.2", false},
		"link-local":                            {loopback, "host.openshell.internal", 8080, "169.254.169.254", false},
		"the loopback where it is the gateway":  {[]netip.Addr{netip.MustParseAddr("172.17.0.1")}, "host.openshell.internal", 8080, "127.0.0.1", false},
		"the loopback where it has no address":  {nil, "host.openshell.internal", 8080, "127.0.0.1", false},
		"a control-plane port":                  {loopback, "host.openshell.internal", 6443, "127.0.0.1", false},
		"a port of a pattern alone":             {loopback, "host.openshell.internal", 80, "127.0.0.1", false},
		"a port without a host alone":           {loopback, "host.openshell.internal", 9090, "127.0.0.1", false},
		"a port without a host, gateway":        {[]netip.Addr{netip.MustParseAddr("172.17.0.1")}, "host.openshell.internal", 9090, "172.17.0.1", false},
		"a name of a pattern alone":             {loopback, "host.containers.internal", 8080, "127.0.0.1", false},
		"a name of a pattern alone, gateway":    {[]netip.Addr{netip.MustParseAddr("172.17.0.1")}, "host.containers.internal", 8080, "172.17.0.1", false},
		"another name that has the address":     {loopback, "other.example.com", 8080, "127.0.0.1", false},
		"the address":                           {loopback, "127.0.0.1", 8080, "127.0.0.1", false},
		"localhost":                             {loopback, "localhost", 8080, "127.0.0.1", false},
		"a name below a name":                   {loopback, "a.host.openshell.internal", 8080, "127.0.0.1", false},
		"a name of the pattern, other than any": {loopback, "a.openshell.internal", 8080, "127.0.0.1", false},
	} {
		e := compiled(t, parsed(t, text), CompileOptions{Machine: tc.machine})
		d := e.Decide(&Request{Host: tc.host, Port: tc.port, Binary: "/bin/curl"})
		_, ok := d.Destination.Check(netip.MustParseAddr(tc.addr), tc.port)
		if reached := d.Verdict == Allow && ok; reached != tc.reached {
			t.Errorf("%s: %v, address %t", name, d.Verdict, ok)
		}
	}
	// Only full names are resolved.
	e := compiled(t, parsed(t, text), CompileOptions{Machine: loopback})
	for _, host := range MachineNames() {
		if got, want := e.MayResolve(host), host != "host.containers.internal"; got != want || !IsMachine(host) {
			t.Errorf("MayResolve(%s) = %t", host, got)
		}
	}
}

func TestUnreachable(t *testing.T) {
	for host, why := range map[string]string{
		"127.0.0.1": "is the sandbox itself", "127.9.9.9": "is the sandbox itself", "::1": "is the sandbox itself", "0.0.0.0": "is the sandbox itself", "::": "is the sandbox itself",
		"localhost": "is the sandbox itself", "a.localhost": "is the sandbox itself", "169.254.169.254": "is always blocked", "fe80::1": "is always blocked",
		"100.100.100.200": "is always blocked", "2002:a9fe:a9fe::1": "is always blocked",
		"10.0.0.1": "", "8.8.8.8": "", "a.example.com": "", "host.openshell.internal": "", "notlocalhost": "",
	} {
		if got := cmp.Or(Sandbox(host), Unreachable(host)); (got == "") != (why == "") || !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %q", host, got, why)
		}
		if own := strings.Contains(why, "itself"); own != (Sandbox(host) != "") || own && Unreachable(host) != "" {
			t.Errorf("Sandbox(%s) = %q", host, Sandbox(host))
		}
	}
}

func TestMachineNamesAreACopy(t *testing.T) {
	MachineNames()[0] = "evil.example.net"
	if IsMachine("evil.example.net") || !slices.Contains(MachineNames(), "host.openshell.internal") {
		t.Error("a caller changed the names")
	}
}
