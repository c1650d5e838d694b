// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is one end of a connection, which notes that it was closed.
type pipe struct {
	net.Conn
	closed bool
}

func (p *pipe) Close() error {
	p.closed = true
	return p.Conn.Close()
}

// lateHost answers at each address after a time; negative is a refusal after that
// time, and without an entry an address never answers.
type lateHost struct {
	after map[string]time.Duration

	mu      sync.Mutex
	dialled []string
	made    []*pipe
}

func (h *lateHost) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	a := to.Addr().String()
	h.mu.Lock()
	h.dialled = append(h.dialled, a)
	h.mu.Unlock()
	d, ok := h.after[a]
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(max(d, -d)) //nolint:forbidigo // the bubble's clock: the host answers after this time
	if d < 0 {
		return nil, errors.New("connection refused")
	}
	c, _ := net.Pipe()
	p := &pipe{Conn: c}
	h.mu.Lock()
	h.made = append(h.made, p)
	h.mu.Unlock()
	return p, nil
}

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// Addresses that do not answer cost a quarter of a second each, not seconds.
func TestDialRacesAddresses(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name  string
		addrs []netip.Addr
		after map[string]time.Duration
		want  string // reached
		took  time.Duration
		order []string
	}{
		{"the first answers", addresses("192.0.2.1", "2001:db8::1"), map[string]time.Duration{"192.0.2.1": 100 * ms}, "192.0.2.1", 100 * ms, []string{"192.0.2.1"}},
		{
			"four are dead", addresses("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"),
			map[string]time.Duration{"192.0.2.5": 0},
			"192.0.2.5", 4 * AttemptDelay,
			[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"},
		},
		{
			"IPv4 is dead", addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"),
			map[string]time.Duration{"2001:db8::1": 10 * ms},
			"2001:db8::1", AttemptDelay + 10*ms,
			[]string{"192.0.2.1", "2001:db8::1"},
		},
		{
			"a refusal does not wait", addresses("192.0.2.1", "192.0.2.2"),
			map[string]time.Duration{"192.0.2.1": -ms, "192.0.2.2": ms},
			"192.0.2.2", 2 * ms,
			[]string{"192.0.2.1", "192.0.2.2"},
		},
		{
			"the slow one still wins", addresses("192.0.2.1", "192.0.2.2"),
			map[string]time.Duration{"192.0.2.1": 300 * ms, "192.0.2.2": 400 * ms},
			"192.0.2.1", 300 * ms,
			[]string{"192.0.2.1", "192.0.2.2"},
		},
		{
			"all refuse", addresses("192.0.2.1", "192.0.2.2"),
			map[string]time.Duration{"192.0.2.1": -ms, "192.0.2.2": -ms},
			"", 2 * ms,
			[]string{"192.0.2.1", "192.0.2.2"},
		},
		{"all are dead", addresses("192.0.2.1", "192.0.2.2"), nil, "", DialTimeout, []string{"192.0.2.1", "192.0.2.2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &lateHost{after: tc.after}
				d := New(Config{Hosts: map[string][]netip.Addr{"a.test": tc.addrs}, Connect: h.connect})
				began := time.Now()
				conn, at, err := d.Dial(context.Background(), "a.test", 443, func(netip.Addr) error { return nil })
				took := time.Since(began)
				if (err == nil) != (tc.want != "") || err == nil && at.String() != tc.want || took != tc.took {
					t.Errorf("reached %s after %s, %v; want %s after %s", at, took, err, tc.want, tc.took)
				}
				time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock: all attempts have ended
				synctest.Wait()
				h.mu.Lock()
				defer h.mu.Unlock()
				if !slices.Equal(h.dialled, tc.order) {
					t.Errorf("dialled %v, want %v", h.dialled, tc.order)
				}
				for _, p := range h.made {
					if p != conn && !p.closed {
						t.Error("a connection that came later is open")
					}
					if p == conn && p.closed {
						t.Error("the connection that was returned is closed")
					}
				}
				if len(d.extra) != 0 {
					t.Errorf("%d extra attempts are still counted", len(d.extra))
				}
			})
		})
	}
}

// At the bound of attempts a Dial tries one address after the other.
func TestDialBoundsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &lateHost{after: map[string]time.Duration{"192.0.2.1": -3 * time.Second, "192.0.2.2": 0}}
		d := New(Config{Hosts: map[string][]netip.Addr{"a.test": addresses("192.0.2.1", "192.0.2.2")}, Connect: h.connect})
		for range MaxExtraAttempts {
			d.extra <- struct{}{}
		}
		began := time.Now()
		if _, at, err := d.Dial(context.Background(), "a.test", 443, func(netip.Addr) error { return nil }); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("reached %s after %s, %v", at, time.Since(began), err)
		}
	})
}
