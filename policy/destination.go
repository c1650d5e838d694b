// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Reason is why an address was refused; the zero value is a refusal too.
type Reason uint8

// The reasons of Destination.Check.
const (
	// ReasonNoRule is the zero Destination, which allows nothing.
	ReasonNoRule Reason = iota
	// ReasonOK is no refusal.
	ReasonOK
	// ReasonAlwaysBlocked is loopback, link-local, unspecified or metadata.
	ReasonAlwaysBlocked
	// ReasonInternal is an internal address behind a wildcard.
	ReasonInternal
	// ReasonNotInAllowedIPs is an address outside allowed_ips.
	ReasonNotInAllowedIPs
	// ReasonControlPlanePort is a port of a cluster's control plane that the operator
	// has not opened.
	ReasonControlPlanePort
)

var reasonTexts = [...]string{
	ReasonNoRule:           "no rule allows an address",
	ReasonOK:               "allowed",
	ReasonAlwaysBlocked:    "always-blocked address",
	ReasonInternal:         "internal address",
	ReasonNotInAllowedIPs:  "address is not in allowed_ips",
	ReasonControlPlanePort: "blocked control-plane port",
}

func (r Reason) String() string { return reasonTexts[r] }

type mode uint8

const (
	modeNone    mode = iota
	modePublic       // a wildcard: public addresses only
	modePrivate      // a name written out: internal addresses too
	modeLiteral      // an address written out: itself
)

// Destination is which addresses a name may have resolved to. The zero value
// allows none.
type Destination struct {
	mode    mode
	literal netip.Addr
	allowed []netip.Prefix
	// machine are the addresses of the machine that runs the sandbox, for a host that is a
	// name of it. They may be always-blocked ones.
	machine []netip.Addr
	// open are the control-plane ports that the operator has opened.
	open []uint16
}

// NewDestination makes the rules for an endpoint's host, as written in the
// policy, and its allowed_ips. A list that is wrong or reaches addresses that are
// always blocked is an error, and the Destination then allows nothing.
func NewDestination(host string, allowedIPs []string) (Destination, error) {
	d := Destination{mode: modePrivate}
	if a, err := netip.ParseAddr(host); err == nil {
		d.mode, d.literal = modeLiteral, a.Unmap()
	} else if host == "" || strings.ContainsAny(host, "*?[{\\") {
		d.mode = modePublic
	}
	for _, s := range allowedIPs {
		p, ok := allowedPrefix(s)
		if !ok {
			return Destination{}, fmt.Errorf("allowed_ips: %q is not an address or a prefix", s)
		}
		if slices.ContainsFunc(neverAllowed, p.Overlaps) {
			return Destination{}, fmt.Errorf("allowed_ips: %s overlaps loopback, link-local or unspecified addresses, which no rule can allow%s", s, publicInstead(host, p))
		}
		d.allowed = append(d.allowed, p.Masked())
	}
	return d, nil
}

// publicInstead says how to allow every public address in place of p, "" unless p is wider
// than one of neverAllowed that it overlaps.
func publicInstead(host string, p netip.Prefix) string {
	if !slices.ContainsFunc(neverAllowed, func(n netip.Prefix) bool { return p.Bits() < n.Bits() && p.Overlaps(n) }) {
		return ""
	}
	const instead = "; for every public address write the prefixes of docs/public-addresses.yaml"
	if host == "" {
		return instead
	}
	return instead + ", or leave allowed_ips out"
}

// mappedBits is the length of the prefix of IPv6 that holds the IPv4 addresses (RFC 4291,
// section 2.5.5.2).
const mappedBits = 96

// allowedPrefix reads an entry of allowed_ips. An IPv4 address or prefix that is written
// as an IPv6 one (::ffff:8.8.8.8/128) is the IPv4 one.
func allowedPrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-mappedBits) // invalid if it holds more than IPv4
	}
	return p, p.IsValid()
}

// Check says whether addr is an address the name may have. Every address of a
// name must pass.
func (d Destination) Check(addr netip.Addr, port uint16) (Reason, bool) {
	r := d.check(effective(addr), port)
	return r, r == ReasonOK
}

func (d Destination) check(addr netip.Addr, port uint16) Reason {
	switch {
	case d.mode == modeNone:
		return ReasonNoRule
	case !slices.Contains(d.machine, addr) && alwaysBlocked(addr):
		return ReasonAlwaysBlocked
	case d.blocks(port):
		return ReasonControlPlanePort
	case len(d.allowed) > 0:
		if !contains(d.allowed, addr) {
			return ReasonNotInAllowedIPs
		}
	case d.mode == modeLiteral && addr != effective(d.literal):
		return ReasonNotInAllowedIPs
	case d.mode == modePublic && contains(internal, addr):
		return ReasonInternal
	}
	return ReasonOK
}

// alwaysBlocked reports whether no address rule can allow addr.
func alwaysBlocked(addr netip.Addr) bool {
	return !addr.IsValid() || contains(neverAllowed, addr) || contains(metadata, addr)
}

// blocks reports whether port is a control-plane port that the operator has not opened.
// It does not depend on the host. OpenShell blocks these ports in every mode but the
// public one; but a wildcard can lead to a cluster as well as a name can.
func (d Destination) blocks(port uint16) bool {
	return slices.Contains(controlPlanePorts, port) && !slices.Contains(d.open, port)
}

// BlockedPort returns the Reason of a Decision that refuses a control-plane port, in
// OpenShell's words.
func BlockedPort(port uint16) string {
	return fmt.Sprintf("port %d is a blocked control-plane port, connection rejected", port)
}

// CheckControlPlanePorts fails unless each of ports is a control-plane port: an operator
// can open no other.
func CheckControlPlanePorts(ports []uint16) error {
	for _, p := range ports {
		if !slices.Contains(controlPlanePorts, p) {
			return fmt.Errorf("%d is no control-plane port, want some of %v", p, controlPlanePorts)
		}
	}
	return nil
}

// effective is the address a packet really reaches when addr wraps an IPv4 one,
// if that one is blocked anyway; the wrapping ranges themselves are internal.
func effective(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	inner := netip.AddrFrom4([4]byte(b[12:]))
	switch {
	case compatible.Contains(addr) && addr != netip.IPv6Unspecified() && addr != netip.IPv6Loopback():
		return inner
	case nat64.Contains(addr), nat64Local.Contains(addr):
	case sixToFour.Contains(addr):
		inner = netip.AddrFrom4([4]byte(b[2:6]))
	case teredo.Contains(addr):
		inner = netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	default:
		return addr
	}
	if contains(neverAllowed, inner) || contains(metadata, inner) {
		return inner
	}
	return addr
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

var (
	compatible = netip.MustParsePrefix("::/96")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")

	neverAllowed = prefixes("127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/32", "::1/128", "::/128", "fe80::/10")
	// Where clouds serve credentials: EC2 over IPv6, Alibaba, Azure. The rest
	// is link-local.
	metadata = prefixes("fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")
	internal = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:db8::/32", "2002::/16", "3fff::/20",
		"fc00::/7", "fec0::/10", "ff00::/8")
	// etcd's two, the Kubernetes API and the kubelet's two.
	controlPlanePorts = []uint16{2379, 2380, 6443, 10250, 10255}
)
