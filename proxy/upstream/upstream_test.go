// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameserver answers over UDP and TCP on one port.
func nameserver(t *testing.T, handle func(m *dns.Msg, network string) bool) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	var udp net.PacketConn
	var tcp net.Listener
	for tcp == nil { // until a port is free for both
		var err error
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err != nil {
			udp.Close()
		}
	}
	handler := func(network string) dns.Handler {
		return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			asked.Add(1)
			m := new(dns.Msg).SetReply(q)
			if handle(m, network) {
				_ = w.WriteMsg(m)
			}
		})
	}
	var tasks sync.WaitGroup
	t.Cleanup(tasks.Wait)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler("udp")}, {Listener: tcp, Handler: handler("tcp")}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		tasks.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return netip.MustParseAddrPort(udp.LocalAddr().String()), &asked
}

func add(m *dns.Msg, records ...string) bool {
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		if h := rr.Header().Rrtype; h == m.Question[0].Qtype || h == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return true
}

func rcode(code int) func(*dns.Msg, string) bool {
	return func(m *dns.Msg, _ string) bool { m.Rcode = code; return true }
}

// TestBypass_B16_ForgedAnswer: in the container's namespace no datagram is taken for
// the answer of a resolver at the loopback, where the workload can send one.
func TestBypass_B16_ForgedAnswer(t *testing.T) {
	t.Parallel()
	for mark, want := range map[int]string{1: "192.0.2.1", 0: "192.0.2.66"} { // 0: the control, on the host
		server, _ := nameserver(t, func(m *dns.Msg, network string) bool {
			if network == "udp" {
				return add(m, "a.test. 5 A 192.0.2.66")
			}
			return add(m, "a.test. 5 A 192.0.2.1")
		})
		got, err := newResolver(&Config{Resolvers: []netip.AddrPort{server}, Mark: mark}, &net.Dialer{}).lookup(context.Background(), "a.test")
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("mark %d: %v, %v, want %s", mark, got, err, want)
		}
	}
}

// A resolver at the loopback that the workload shares is asked from an address that the
// workload does not have.
func TestLoopbackSource(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan string, 2)
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		from <- host
		m := new(dns.Msg).SetReply(q)
		add(m, "a.test. 5 A 192.0.2.1")
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	c := &Config{Resolvers: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}, Mark: 1, LoopbackSource: netip.MustParseAddr("127.1.2.3")}
	if got, err := newResolver(c, &net.Dialer{}).lookup(context.Background(), "a.test"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	for range 2 {
		if got := <-from; got != "127.1.2.3" {
			t.Errorf("asked from %s", got)
		}
	}
}

func TestLookup(t *testing.T) {
	plain := func(m *dns.Msg, _ string) bool { return add(m, "a.test. 5 A 192.0.2.1", "a.test. 5 AAAA 2001:db8::1") }
	for _, tc := range []struct {
		name    string
		servers []func(*dns.Msg, string) bool
		want    []string
		err     string
	}{
		{"both families", []func(*dns.Msg, string) bool{plain}, []string{"192.0.2.1", "2001:db8::1"}, ""},
		{"aliases", []func(*dns.Msg, string) bool{func(m *dns.Msg, _ string) bool {
			return add(m, "a.test. 5 CNAME b.test.", "b.test. 5 CNAME c.test.", "c.test. 5 A 192.0.2.3")
		}}, []string{"192.0.2.3"}, ""},
		{"alias without an address", []func(*dns.Msg, string) bool{func(m *dns.Msg, _ string) bool { return add(m, "a.test. 5 CNAME b.test.") }}, nil, "it has no address"},
		{"address of another name", []func(*dns.Msg, string) bool{func(m *dns.Msg, _ string) bool {
			return add(m, "a.test. 5 A 192.0.2.1", "other.test. 5 A 192.0.2.66")
		}}, []string{"192.0.2.1"}, ""},
		{"truncated", []func(*dns.Msg, string) bool{func(m *dns.Msg, network string) bool {
			m.Truncated = network == "udp"
			return m.Truncated || plain(m, network)
		}}, []string{"192.0.2.1", "2001:db8::1"}, ""},
		{"truncated over TCP", []func(*dns.Msg, string) bool{func(m *dns.Msg, _ string) bool { m.Truncated = true; return true }}, nil, "truncated answer over TCP"},
		{"SERVFAIL, then another", []func(*dns.Msg, string) bool{rcode(dns.RcodeServerFailure), plain}, []string{"192.0.2.1", "2001:db8::1"}, ""},
		{"REFUSED everywhere", []func(*dns.Msg, string) bool{rcode(dns.RcodeRefused), rcode(dns.RcodeRefused)}, nil, "REFUSED"},
		{"no such name is an answer", []func(*dns.Msg, string) bool{rcode(dns.RcodeNameError), plain}, nil, "no such name"},
		{"silence, then another", []func(*dns.Msg, string) bool{func(*dns.Msg, string) bool { return false }, plain}, []string{"192.0.2.1", "2001:db8::1"}, ""},
		{"too many", []func(*dns.Msg, string) bool{func(m *dns.Msg, network string) bool {
			m.Truncated = network == "udp"
			for i := range MaxAddresses + 1 {
				if m.Truncated {
					break
				}
				add(m, fmt.Sprintf("a.test. 5 A 192.0.2.%d", i))
			}
			return true
		}}, nil, "more than 64 addresses"},
		{"no resolver", nil, nil, "the sandbox has no resolver"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var servers []netip.AddrPort
			for _, h := range tc.servers {
				a, _ := nameserver(t, h)
				servers = append(servers, a)
			}
			got, err := newResolver(&Config{Resolvers: servers}, &net.Dialer{}).lookup(context.Background(), "a.test")
			if tc.err != "" {
				if !errors.Is(err, ErrResolve) || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			var texts []string
			for _, a := range got {
				texts = append(texts, a.String())
			}
			if err != nil || !slices.Equal(texts, tc.want) {
				t.Errorf("%v, %v", texts, err)
			}
		})
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	t.Parallel()
	var lost sync.Map
	server, _ := nameserver(t, func(m *dns.Msg, _ string) bool {
		_, again := lost.LoadOrStore(m.Question[0].Qtype, true)
		return again && add(m, "a.test. 5 A 192.0.2.1")
	})
	if got, err := newResolver(&Config{Resolvers: []netip.AddrPort{server}}, &net.Dialer{}).lookup(context.Background(), "a.test"); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestCache(t *testing.T) {
	var ttl atomic.Int64
	ttl.Store(60)
	server, asked := nameserver(t, func(m *dns.Msg, _ string) bool {
		return add(m, fmt.Sprintf("%s %d A 192.0.2.1", m.Question[0].Name, ttl.Load()))
	})
	r := newResolver(&Config{Resolvers: []netip.AddrPort{server}}, &net.Dialer{})
	ask := func(name string) {
		t.Helper()
		if _, err := r.lookup(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	ask("a.test")
	ask("a.test")
	if n := asked.Load(); n != 2 {
		t.Errorf("%d questions for one name, want one of each family", n)
	}
	if left := time.Until(r.cache["a.test"].until); left > MaxCacheTime {
		t.Errorf("kept for %s", left)
	}
	ttl.Store(0)
	ask("b.test")
	ask("b.test")
	if n := asked.Load(); n != 6 {
		t.Errorf("%d questions: an answer without a lifetime was kept", n)
	}
	for i := range MaxCached {
		r.cache[fmt.Sprint(i)] = cached{}
	}
	ask("c.test")
	if len(r.cache) > MaxCached {
		t.Errorf("%d names are kept", len(r.cache))
	}
}

func TestDial(t *testing.T) {
	refused := errors.New("refused")
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tc := range []struct {
		name, host string
		check      func(netip.Addr) error
		want       []netip.Addr
		err        error
	}{
		{"second answers", "a.test", func(netip.Addr) error { return nil }, []netip.Addr{first, second}, nil},
		{"one of two is refused", "a.test", func(a netip.Addr) error {
			if a == second {
				return refused
			}
			return nil
		}, nil, refused},
		{"address", "192.0.2.2", func(netip.Addr) error { return nil }, []netip.Addr{second}, nil},
		{"mapped address is checked as what it is", "::ffff:192.0.2.2", func(a netip.Addr) error {
			if !a.Is4() {
				return refused
			}
			return nil
		}, []netip.Addr{second}, nil},
		{"a name without an address", "none.test", func(netip.Addr) error { return nil }, nil, errNoAddress},
		{"no name", "b.test", func(netip.Addr) error { return nil }, nil, ErrResolve},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var dialled []netip.Addr
			d := New(Config{Hosts: map[string][]netip.Addr{"a.test": {first, second}, "none.test": nil}, Connect: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
				dialled = append(dialled, to.Addr())
				if to != netip.AddrPortFrom(second, 7) {
					return nil, errors.New("connection refused")
				}
				c, _ := net.Pipe()
				return c, nil
			}})
			_, at, err := d.Dial(context.Background(), tc.host, 7, tc.check)
			if !errors.Is(err, tc.err) || !slices.Equal(dialled, tc.want) || err == nil && at != second {
				t.Errorf("reached %s, dialled %v, %v", at, dialled, err)
			}
		})
	}
}

// What was checked is what is dialled: a name is asked for once.
func TestBypass_B16_Rebinding(t *testing.T) {
	var n atomic.Int64
	server, _ := nameserver(t, func(m *dns.Msg, _ string) bool {
		if m.Question[0].Qtype == dns.TypeAAAA {
			return true
		}
		if n.Add(1) == 1 {
			return add(m, "a.test. 0 A 192.0.2.1")
		}
		return add(m, "a.test. 0 A 127.0.0.1")
	})
	var dialled []netip.Addr
	d := New(Config{Resolvers: []netip.AddrPort{server}, Connect: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
		dialled = append(dialled, to.Addr())
		return nil, errors.New("connection refused")
	}})
	for range 2 {
		_, _, err := d.Dial(context.Background(), "a.test", 80, func(a netip.Addr) error {
			if a.IsLoopback() {
				return errors.New("loopback")
			}
			return nil
		})
		if err == nil {
			t.Error("reached")
		}
	}
	if !slices.Equal(dialled, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
		t.Errorf("dialled %v", dialled)
	}
}
