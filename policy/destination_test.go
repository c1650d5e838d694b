// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"testing"
)

func dest(t *testing.T, host string, allowed ...string) Destination {
	t.Helper()
	d, err := NewDestination(host, allowed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func check(t *testing.T, d Destination, port uint16, want Reason, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		got, ok := d.Check(netip.MustParseAddr(a), port)
		if got != want || ok != (want == ReasonOK) {
			t.Errorf("Check(%s, %d) = %v, %v; want %v", a, port, got, ok, want)
		}
	}
}

func TestBypass_B14_MetadataIsNeverReached(t *testing.T) {
	for _, d := range []Destination{
		dest(t, "metadata.google.internal"), dest(t, "*.example.com"), dest(t, "169.254.169.254"),
		dest(t, "a.example", "100.64.0.0/10", "168.63.0.0/16", "fd00::/8"),
	} {
		check(t, d, 80, ReasonAlwaysBlocked, "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
			"127.0.0.1", "127.9.9.9", "0.0.0.0", "::", "::1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "::169.254.169.254",
			"64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:1:2:3:4:5601:5601")
	}
}

func TestBypass_B15_SpecialRanges(t *testing.T) {
	inside := []string{
		"::ffff:10.0.0.1", "::10.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "0.1.2.3", "224.0.0.1",
		"240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "2002:808:808::1", "2001::1",
		"fc00::1", "fdff::1", "ff02::1", "fec0::1", "2001:db8::1",
	}
	outside := []string{"8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "172.32.0.1", "100.128.0.1"}
	check(t, dest(t, "*.example.com"), 443, ReasonInternal, inside...)
	check(t, dest(t, "*.example.com"), 443, ReasonOK, outside...)
	check(t, dest(t, "api.example.com"), 443, ReasonOK, append(inside, outside...)...)
	check(t, dest(t, "10.0.0.5"), 443, ReasonOK, "10.0.0.5", "::ffff:10.0.0.5")
	check(t, dest(t, "10.0.0.5"), 443, ReasonNotInAllowedIPs, "10.0.0.6", "8.8.8.8")
	check(t, dest(t, "", "10.0.0.0/8", "2001:db8::7"), 443, ReasonOK, "10.2.3.4", "::ffff:10.2.3.4", "2001:db8::7")
	check(t, dest(t, "", "10.0.0.0/8", "2001:db8::7"), 443, ReasonNotInAllowedIPs, "8.8.8.8", "2001:db8::8")
}

// TestBypass_B23_ControlPlanePorts: the ports are blocked for every kind of host, for the
// connection and for the address, unless the operator opens them.
func TestBypass_B23_ControlPlanePorts(t *testing.T) {
	const text = `version: 1
network_policies:
  all:
    binaries: [/**]
    endpoints:
      - {host: k8s.example.com, ports: [443, 2379, 2380, 6443, 10250, 10255]}
      - {host: "*.wild.example.com", ports: [443, 2379, 2380, 6443, 10250, 10255]}
      - {host: 10.0.0.1, ports: [443, 2379, 2380, 6443, 10250, 10255]}
      - {host: listed.example.com, ports: [443, 2379, 2380, 6443, 10250, 10255], allowed_ips: [10.0.0.0/8]}
      - {host: tcp.example.com, ports: [443, 2379, 2380, 6443, 10250, 10255], protocol: tcp}
      - {host: skip.example.com, ports: [443, 2379, 2380, 6443, 10250, 10255], tls: skip}
      - {host: rest.example.com, ports: [443, 2379, 2380, 6443, 10250, 10255], protocol: rest, enforcement: audit, access: full}
`
	addr := netip.MustParseAddr("10.0.0.1")
	hosts := []string{"k8s.example.com", "a.wild.example.com", "10.0.0.1", "listed.example.com", "tcp.example.com", "skip.example.com", "rest.example.com"}
	for _, open := range [][]uint16{nil, {6443, 10250}} {
		e := compiled(t, parsed(t, text), CompileOptions{ControlPlanePorts: open})
		for _, port := range []uint16{2379, 2380, 6443, 10250, 10255} {
			for _, host := range hosts {
				d := e.Decide(&Request{Host: host, Port: port, Binary: "/bin/curl", HTTP: &HTTP{Method: "GET", Path: "/"}})
				why, _ := d.Destination.Check(addr, port)
				if !slices.Contains(open, port) {
					if d.Verdict != Deny || d.Layer != L4 || d.Policy != "all" || d.Line == 0 || d.Reason != BlockedPort(port) || why == ReasonOK {
						t.Errorf("%s:%d with %v open: %+v, address %v", host, port, open, d, why)
					}
				} else if d.Verdict != Allow {
					t.Errorf("%s:%d with %v open: %+v", host, port, open, d)
				}
			}
		}
		for _, host := range hosts {
			d := e.Decide(&Request{Host: host, Port: 443, Binary: "/bin/curl"})
			if d.Verdict != Allow {
				t.Errorf("%s:443: %+v", host, d)
			}
			// Check judges the port itself, whatever port the decision was about.
			for _, port := range []uint16{2379, 2380, 6443, 10250, 10255} {
				want := ReasonControlPlanePort
				if slices.Contains(open, port) {
					want = ReasonOK
				}
				if got, _ := d.Destination.Check(addr, port); got != want && (got != ReasonInternal || want != ReasonOK) {
					t.Errorf("%s at %s, port %d with %v open: %v, want %v", host, addr, port, open, got, want)
				}
			}
		}
	}
	anyName := parsed(t, inEntry("binaries: ['/**'], endpoints: [{ports: [6443, 6444], allowed_ips: [10.0.0.0/8]}]"))
	if d := compiled(t, anyName, CompileOptions{}).Decide(&Request{Host: "any.example.com", Port: 6443, Binary: "/bin/curl"}); d.Verdict != Deny || d.Reason != BlockedPort(6443) {
		t.Errorf("a name by allowed_ips: %+v", d)
	}
	for _, p := range []uint16{2379, 2380, 6443, 10250, 10255} {
		for _, host := range []string{"*.example.com", "k8s.example.com", "8.8.8.8"} {
			check(t, dest(t, host), p, ReasonControlPlanePort, "8.8.8.8")
		}
		check(t, dest(t, "", "8.0.0.0/8"), p, ReasonControlPlanePort, "8.8.8.8")
	}
}

func TestCompileRefusesOtherPorts(t *testing.T) {
	for _, port := range []uint16{0, 443, 6444} {
		if _, err := Compile(&Policy{}, CompileOptions{ControlPlanePorts: []uint16{6443, port}}); err == nil {
			t.Errorf("port %d is taken for a control-plane port", port)
		}
	}
}

func TestZeroDestinationDenies(t *testing.T) {
	check(t, Destination{}, 443, ReasonNoRule, "8.8.8.8")
	if r, ok := dest(t, "a.example").Check(netip.Addr{}, 443); ok || r.String() != "always-blocked address" {
		t.Errorf("Check(invalid) = %v, %v", r, ok)
	}
}

// TestAllowedIPsMapped: an IPv4 prefix written as IPv6 equals the IPv4 prefix.
func TestAllowedIPsMapped(t *testing.T) {
	d := dest(t, "a.example", "::ffff:8.8.8.8/128", "::ffff:10.0.0.0/104", "::ffff:9.9.9.9")
	check(t, d, 443, ReasonOK, "8.8.8.8", "::ffff:8.8.8.8", "10.255.0.1", "9.9.9.9")
	check(t, d, 443, ReasonNotInAllowedIPs, "8.8.8.9", "11.0.0.1", "9.9.9.8", "2001:4860:4860::8888")
}

func TestAllowedIPsRefused(t *testing.T) {
	for _, s := range []string{"", "x", "10.0.0.0/33", "127.0.0.0/8", "0.0.0.0/0", "::/0", "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104", "::ffff:0.0.0.0/96", "::ffff:8.8.8.8/95", "::ffff:8.8.8.8/129", "::/90"} {
		d, err := NewDestination("a.example", []string{"10.0.0.0/8", s})
		if err == nil {
			t.Errorf("allowed_ips %q accepted", s)
		}
		check(t, d, 443, ReasonNoRule, "10.0.0.1")
	}
}
