// SPDX-License-Identifier: Apache-2.0

// Package upstream reaches the other side: it resolves a name, has every address
// of it checked, and dials one that was checked. An address that the client
// claims is never dialled.
//
// It does not judge: which addresses a name may have is the caller's.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrResolve is a name whose addresses could not be found.
var ErrResolve = errors.New("DNS resolution failed")

// Config says where names are looked up and how connections start.
type Config struct {
	// Hosts are names with their addresses. No resolver is asked for them, not even for a
	// name without an address.
	Hosts map[string][]netip.Addr
	// Resolvers are asked in order.
	Resolvers []netip.AddrPort
	// Synthetic says that an address only stands for a name: no answer at all.
	Synthetic func(netip.Addr) bool
	// Mark is set on every socket, unless 0 (SO_MARK, which needs CAP_NET_ADMIN).
	Mark int
	// LoopbackSource is, with a Mark, where questions to a resolver at a loopback address
	// of IPv4 come from, if it is set.
	LoopbackSource netip.Addr
	// Connect reaches an address that was checked; nil is TCP from this machine.
	Connect func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Dialer reaches upstreams. It is safe for use by many goroutines.
type Dialer struct {
	resolver *resolver
	hosts    map[string][]netip.Addr
	connect  func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// extra holds an element for each attempt beside the oldest of its Dial.
	extra chan struct{}
}

// New makes a Dialer.
func New(c Config) *Dialer {
	d := net.Dialer{Timeout: AddressTimeout, FallbackDelay: -1}
	if c.Mark != 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, c.Mark) })
			return errors.Join(e, err)
		}
	}
	connect := c.Connect
	if connect == nil {
		connect = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	return &Dialer{resolver: newResolver(&c, &d), hosts: c.Hosts, connect: connect, extra: make(chan struct{}, MaxExtraAttempts)}
}

// Dial connects to host (a name or an address) after check has accepted every
// address it has, and says which of them it reached. Addresses that do not answer
// are tried side by side (RFC 8305). An error of check is returned as it is.
func (d *Dialer) Dial(ctx context.Context, host string, port uint16, check func(netip.Addr) error) (net.Conn, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	addrs, err := d.resolve(ctx, host)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	for _, a := range addrs {
		if err := check(a); err != nil {
			return nil, netip.Addr{}, err
		}
	}
	c, a, err := d.race(ctx, addrs, port)
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("connect to %s: %w", host, err)
	}
	return c, a, nil
}

func (d *Dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if a, ok := d.hosts[host]; ok {
		if len(a) == 0 {
			return nil, fmt.Errorf("%w for %s: %w", ErrResolve, host, errNoAddress)
		}
		return a, nil
	}
	return d.resolver.lookup(ctx, host)
}
