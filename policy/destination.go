// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Reason says why an address was refused. The zero value is a refusal, too.
type Reason uint8

// The reasons of [Destination.Check].
const (
	// ReasonNoRule is the reason of the zero Destination, which allows nothing.
	ReasonNoRule Reason = iota
	// ReasonOK means that the address is allowed.
	ReasonOK
	// ReasonAlwaysBlocked refuses a loopback, link-local, unspecified or metadata address.
	ReasonAlwaysBlocked
	// ReasonInternal refuses an internal address for a host that matched a wildcard.
	ReasonInternal
	// ReasonNotInAllowedIPs refuses an address that allowed_ips does not contain.
	ReasonNotInAllowedIPs
	// ReasonControlPlanePort refuses a port of a cluster's control plane that the operator
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
	modePublic       // host is a wildcard: public addresses only
	modePrivate      // host is a full name: internal addresses, too
	modeLiteral      // host is an address: only itself
)

// Destination decides to which addresses of a host the proxy may connect. The zero value
// allows none.
type Destination struct {
	mode    mode
	literal netip.Addr
	allowed []netip.Prefix
	// machine holds the addresses of the machine that runs the sandbox, if the host is one
	// of its names. They are allowed even if they are otherwise always blocked.
	machine []netip.Addr
	// open holds the control-plane ports that the operator has opened.
	open []uint16
}

// NewDestination returns the rules for an endpoint's host, as written in the policy, and
// its allowed_ips. It fails if an entry is not valid or covers addresses that are always
// blocked; the returned Destination then allows nothing.
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

// publicInstead returns the hint how to allow every public address instead of p. It returns
// "" unless p overlaps an entry of neverAllowed and is wider than it.
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

// mappedBits is the length of the IPv6 prefix that contains the IPv4-mapped addresses (RFC
// 4291, section 2.5.5.2).
const mappedBits = 96

// allowedPrefix parses an entry of allowed_ips. It converts an IPv4 address or prefix that
// is written as IPv6 (::ffff:8.8.8.8/128) to IPv4.
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
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-mappedBits) // invalid if p contains more than IPv4 addresses
	}
	return p, p.IsValid()
}

// Check reports whether the proxy may connect to addr and port. Every address that a name
// resolves to must pass, not only the one that is dialed.
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

// blocks reports whether port is a control-plane port that the operator has not opened, for
// any host. OpenShell does not block these ports in its public mode; this package does,
// because a wildcard can lead to a cluster as well as a name can.
func (d Destination) blocks(port uint16) bool {
	return slices.Contains(controlPlanePorts, port) && !slices.Contains(d.open, port)
}

// BlockedPort returns the Reason of a Decision that refuses a control-plane port, in
// OpenShell's words.
func BlockedPort(port uint16) string {
	return fmt.Sprintf("port %d is a blocked control-plane port, connection rejected", port)
}

// CheckControlPlanePorts fails if one of the ports is not a control-plane port. An operator
// can open no others.
func CheckControlPlanePorts(ports []uint16) error {
	for _, p := range ports {
		if !slices.Contains(controlPlanePorts, p) {
			return fmt.Errorf("%d is no control-plane port, want some of %v", p, controlPlanePorts)
		}
	}
	return nil
}

// effective returns the IPv4 address that packets to addr reach, if addr embeds one that is
// blocked. Otherwise it returns addr: the address ranges that embed IPv4 addresses are
// internal.
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
	// The addresses at which clouds serve credentials: EC2 over IPv6, Alibaba and Azure.
	// The others are link-local.
	metadata = prefixes("fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")
	internal = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:db8::/32", "2002::/16", "3fff::/20",
		"fc00::/7", "fec0::/10", "ff00::/8")
	// Two ports of etcd, the one of the Kubernetes API, and two of the kubelet.
	controlPlanePorts = []uint16{2379, 2380, 6443, 10250, 10255}
)
