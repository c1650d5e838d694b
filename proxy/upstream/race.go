// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// race connects to one of addrs and returns the first connection and its address. The
// next address is tried when an attempt fails, or [AttemptDelay] after the latest one
// began. Connections that are made later are closed.
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, netip.Addr, error) {
	if len(addrs) == 1 {
		c, err := d.connect(ctx, netip.AddrPortFrom(addrs[0], port))
		return c, addrs[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	next := alternate(addrs)
	results := make(chan attempt)
	var errs []error
	for running := 0; ; {
		if len(next) > 0 && (running == 0 || d.mayTry()) {
			go d.attempt(ctx, netip.AddrPortFrom(next[0], port), running > 0, results, over)
			next = next[1:]
			running++
		}
		var delay <-chan time.Time
		if len(next) > 0 {
			delay = time.After(AttemptDelay)
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, r.addr, nil
			}
			errs = append(errs, r.err)
			if running--; running == 0 && len(next) == 0 {
				return nil, netip.Addr{}, errors.Join(errs...)
			}
		case <-delay:
		}
	}
}

// mayTry reserves an extra attempt, and reports whether there is one left.
func (d *Dialer) mayTry() bool {
	select {
	case d.extra <- struct{}{}:
		return true
	default:
		return false
	}
}

// attempt is the result of one connect.
type attempt struct {
	conn net.Conn
	addr netip.Addr
	err  error
}

// attempt connects to one address and sends the result, or closes the connection if over
// is closed, the end of the race. With extra it releases the attempt that mayTry has
// reserved.
func (d *Dialer) attempt(ctx context.Context, to netip.AddrPort, extra bool, results chan<- attempt, over <-chan struct{}) {
	conn, err := d.connect(ctx, to)
	if extra {
		<-d.extra
	}
	select {
	case results <- attempt{conn, to.Addr(), err}:
	case <-over:
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// alternate orders addresses so that the families take turns (RFC 8305, section 4). The
// family of the first address comes first.
func alternate(addrs []netip.Addr) []netip.Addr {
	var turn [2][]netip.Addr
	for _, a := range addrs {
		i := 0
		if a.Is4() != addrs[0].Is4() {
			i = 1
		}
		turn[i] = append(turn[i], a)
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(turn[0]), len(turn[1])) {
		for _, family := range turn {
			if i < len(family) {
				out = append(out, family[i])
			}
		}
	}
	return out
}
