// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolver asks recursive resolvers. A name is asked for as it is: no search
// domain makes another of it.
type resolver struct {
	servers   []netip.AddrPort
	dial      *net.Dialer
	synthetic func(netip.Addr) bool
	// shared says that the workload is in the resolver's network namespace.
	shared bool
	// loopback is where questions to the loopback come from; none is anywhere.
	loopback netip.Addr

	mu    sync.Mutex
	cache map[string]cached
}

type cached struct {
	addrs []netip.Addr
	until time.Time
}

func newResolver(c *Config, d *net.Dialer) *resolver {
	return &resolver{servers: c.Resolvers, dial: d, synthetic: c.Synthetic, shared: c.Mark != 0, loopback: c.LoopbackSource, cache: map[string]cached{}}
}

func (r *resolver) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	r.mu.Lock()
	c, ok := r.cache[name]
	r.mu.Unlock()
	if ok && time.Now().Before(c.until) {
		return c.addrs, nil
	}
	if len(r.servers) == 0 {
		return nil, fmt.Errorf("%w for %s: the sandbox has no resolver", ErrResolve, name)
	}
	// Both families at once; IPv4 goes first, as it reaches more.
	var answers [2]answer
	var wait sync.WaitGroup
	for i, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		wait.Go(func() { answers[i] = r.ask(ctx, name, kind) })
	}
	wait.Wait()
	addrs := slices.Concat(answers[0].addrs, answers[1].addrs)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%w for %s: %w", ErrResolve, name, noAnswer(answers[0].err, answers[1].err))
	}
	if len(addrs) > MaxAddresses {
		return nil, fmt.Errorf("%w for %s: more than %d addresses", ErrResolve, name, MaxAddresses)
	}
	ttl := MaxCacheTime
	for _, a := range answers {
		if len(a.addrs) > 0 {
			ttl = min(ttl, a.ttl)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= MaxCached {
		clear(r.cache)
	}
	r.cache[name] = cached{addrs, time.Now().Add(ttl)}
	return addrs, nil
}

var errNoAddress = errors.New("it has no address")

// noAnswer is why neither family has an address, once where both say the same.
func noAnswer(four, six error) error {
	switch {
	case four == nil && six == nil:
		return errNoAddress
	case four != nil && six != nil && four.Error() == six.Error():
		return four
	}
	return errors.Join(four, six)
}

type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

// ask takes the first server that answers; no such name is an answer.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) answer {
	var errs []error
	for _, server := range slices.Repeat(r.servers, Rounds) {
		m, err := r.exchange(ctx, server, name, kind)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case m.Rcode == dns.RcodeNameError:
			return answer{err: errors.New("no such name")}
		case m.Rcode != dns.RcodeSuccess:
			errs = append(errs, fmt.Errorf("resolver %s: %s", server, dns.RcodeToString[m.Rcode]))
			continue
		}
		a := answer{ttl: MaxCacheTime}
		names := []string{dns.CanonicalName(name)}
		for _, rr := range m.Answer {
			if !slices.Contains(names, dns.CanonicalName(rr.Header().Name)) {
				continue // of something that was not asked for
			}
			a.ttl = min(a.ttl, time.Duration(rr.Header().Ttl)*time.Second)
			var addr netip.Addr
			var ok bool
			switch rr := rr.(type) {
			case *dns.CNAME:
				names = append(names, dns.CanonicalName(rr.Target))
			case *dns.A:
				addr, ok = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				addr, ok = netip.AddrFromSlice(rr.AAAA)
			}
			if ok && rr.Header().Rrtype == kind {
				a.addrs = append(a.addrs, addr.Unmap())
			}
		}
		if r.synthetic != nil && slices.ContainsFunc(a.addrs, r.synthetic) {
			// It asked from inside the sandbox (Docker's own does) and was led to
			// the policy DNS: it does not know the name itself.
			errs = append(errs, fmt.Errorf("resolver %s: it asked the sandbox's", server))
			continue
		}
		return a
	}
	return answer{err: errors.Join(errs...)}
}

func (r *resolver) exchange(ctx context.Context, server netip.AddrPort, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(1232, false)
	networks, dial := []string{"udp", "tcp"}, r.dial
	if r.shared && server.Addr().IsLoopback() {
		// Everybody in the namespace may send from its loopback's addresses: a datagram
		// could be the workload's (Docker's resolver is there).
		networks = networks[1:]
		// And from a usual address, the workload could prepare for every port that a
		// question may come from.
		if r.loopback.IsValid() && server.Addr().Is4() {
			from := *dial
			from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.loopback, 0))
			dial = &from
		}
	}
	for _, network := range networks {
		c := &dns.Client{Net: network, Timeout: QueryTimeout, Dialer: dial, UDPSize: 1232}
		m, _, err := c.ExchangeContext(ctx, q, server.String())
		if err != nil {
			return nil, fmt.Errorf("resolver %s: %w", server, err)
		}
		if !m.Truncated {
			return m, nil
		}
	}
	return nil, fmt.Errorf("resolver %s: truncated answer over TCP", server)
}
