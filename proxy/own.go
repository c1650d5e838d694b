// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"openshell.dev/runtime/policy"
)

// Own reaches the container itself: clients that use the proxy's variables for every name
// ask the proxy for the container's own names, too.
type Own interface {
	// Is reports whether addr is one of the container's.
	Is(addr netip.Addr) bool
	// Dial connects to one of the container's addresses from within its network namespace.
	// It refuses the proxy's ports.
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// ownAddresses returns the container's addresses that host means; none if host is not the
// container itself.
func (s *Sandbox) ownAddresses(host string) (out []netip.Addr) {
	if s.config.Own == nil {
		return nil
	}
	addrs := s.config.OwnNames[host]
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a}
	} else if policy.IsLocalhost(host) {
		addrs = loopbacks
	}
	for _, a := range addrs {
		switch {
		case a == netip.IPv4Unspecified():
			out = append(out, loopbacks[0])
		case a == netip.IPv6Unspecified():
			out = append(out, loopbacks[1])
		case a.IsLoopback() || s.config.Own.Is(a):
			out = append(out, a)
		}
	}
	return out
}

// isOwn reports whether host is the container itself.
func (s *Sandbox) isOwn(host string) bool { return len(s.ownAddresses(host)) > 0 }

// ownDecision allows a connection to the container itself, which needs no policy: programs
// reach it without the proxy, too. Nothing on the connection is looked at, and no
// credential is put in.
func (s *Sandbox) ownDecision() policy.Decision {
	dec := policy.Decision{Reason: s.Closed(), Revision: s.engine.Load().engine.Revision()}
	if dec.Reason == "" {
		dec.Verdict, dec.Reason, dec.TCP = policy.Allow, "the sandbox itself", true
		dec.AllowEncodedSlash = true
		dec.Credentials.AllowUninspected = true
	}
	return dec
}

// dialOwn connects to the container itself.
func (c *connection) dialOwn(ctx context.Context, to target) (net.Conn, error) {
	var errs []error
	for _, a := range c.sandbox.ownAddresses(to.host) {
		conn, err := c.sandbox.config.Own.Dial(ctx, netip.AddrPortFrom(a, to.port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, &connectError{errors.Join(append(errs, errors.New("no server of the sandbox answers"))...)}
}
