// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// redirected is a connection as the proxy sees it: the client's address, the client's port
// in the connection's mark, and the original destination.
type redirected struct {
	client netip.AddrPort
	port   uint16
	wanted netip.AddrPort
}

// proxy opens the listeners in ns and reports what they receive. It answers each query with
// the bytes of the query.
func proxy(t *testing.T, ns vnetns.NsHandle) (conns chan redirected, queries chan string) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", int(ns)))
	must(t, err)
	defer f.Close()
	files, err := Listen(f)
	must(t, err)
	conns, queries = make(chan redirected, 16), make(chan string, 16)
	for i, file := range files {
		switch i {
		case proxyapi.ProxyTCP4, proxyapi.ProxyTCP6:
			l, err := net.FileListener(file)
			must(t, err)
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					tcp := c.(*net.TCPConn)
					conns <- redirected{c.RemoteAddr().(*net.TCPAddr).AddrPort(), started(tcp), wanted(tcp, i == proxyapi.ProxyTCP6)}
					_, _ = c.Write([]byte("proxy\n"))
					_ = c.Close()
				}
			}()
		case proxyapi.DNSUDP4, proxyapi.DNSUDP6:
			c, err := net.FilePacketConn(file)
			must(t, err)
			t.Cleanup(func() { c.Close() })
			go echo(c, queries)
		}
		must(t, file.Close())
	}
	return conns, queries
}

// started returns the source port in a connection's mark; 0 if it has none.
func started(c *net.TCPConn) (port uint16) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
		b := binary.NativeEndian.AppendUint32(nil, uint32(mark))
		if err == nil && [2]byte(b[2:]) == proxyapi.SourceTag {
			port = binary.BigEndian.Uint16(b)
		}
	})
	return port
}

func wanted(c *net.TCPConn, six bool) (a netip.AddrPort) {
	raw, err := c.SyscallConn()
	if err != nil {
		return a
	}
	_ = raw.Control(func(fd uintptr) {
		if six {
			// IP6T_SO_ORIGINAL_DST returns a sockaddr_in6, and IPv6MTUInfo begins with one.
			if i, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.IPPROTO_IPV6, 80); err == nil {
				a = netip.AddrPortFrom(netip.AddrFrom16(i.Addr.Addr), i.Addr.Port<<8|i.Addr.Port>>8)
			}
			return
		}
		// SO_ORIGINAL_DST returns a sockaddr_in, which fits into an IPv6Mreq.
		if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, 80); err == nil {
			a = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), uint16(m.Multiaddr[2])<<8|uint16(m.Multiaddr[3]))
		}
	})
	return a
}

// loOnly returns a namespace with only lo.
func loOnly(t *testing.T) vnetns.NsHandle {
	t.Helper()
	p := newPair(t)
	in(t, p.inside, func() {
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.LinkDel(l))
	})
	return p.inside
}

// Every TCP connection and every query reaches the proxy together with its original
// destination, with an uplink and without one.
func TestCaptureLeadsToProxy(t *testing.T) {
	for _, tc := range []struct {
		name string
		ns   func() vnetns.NsHandle
	}{
		{"with an uplink", func() vnetns.NsHandle { return newPair(t).inside }},
		{"without", func() vnetns.NsHandle { return loOnly(t) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := tc.ns()
			(&pair{inside: ns}).close(t)
			conns, queries := proxy(t, ns)
			for _, to := range []string{"192.0.2.7:443", "[2001:db8::7]:80", outsideAddrs[0] + ":8080", "198.18.0.1:22", "127.0.0.11:53"} {
				if to == "127.0.0.11:53" {
					continue // the DNS listener's, below
				}
				if err := dial(t, ns, "tcp", to); err != nil {
					t.Errorf("%s: %v", to, err)
					continue
				}
				got := <-conns
				if got.wanted.String() != to {
					t.Errorf("wanted %s, the proxy sees %s", to, got.wanted)
				}
				if !got.client.IsValid() {
					t.Error("no client address")
				}
			}
			for _, to := range []string{"8.8.8.8:53", "[2001:db8::53]:53", "127.0.0.11:53", "[::1]:53"} {
				in(t, ns, func() {
					c, err := net.Dial("udp", to)
					must(t, err)
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(timeout))
					_, err = c.Write([]byte(to))
					must(t, err)
					b := make([]byte, 100)
					if n, err := c.Read(b); err != nil || string(b[:n]) != to {
						t.Errorf("query to %s: %q, %v", to, b[:n], err)
					}
				})
				if q := <-queries; q != to {
					t.Errorf("the policy DNS got %q", q)
				}
			}
		})
	}
}

// Each of several connections from one port to several destinations reports that port to
// the proxy. Their addresses do not show it: at the proxy they would be equal, so the
// kernel changes all but one.
func TestConnectionsFromOnePort(t *testing.T) {
	for _, tc := range []struct {
		network      string
		destinations []string
	}{
		{"tcp4", []string{"192.0.2.7:443", "192.0.2.7:80", "198.18.0.1:22"}},
		{"tcp6", []string{"[2001:db8::7]:443", "[2001:db8::7]:80", "[2001:db8::8]:22"}},
	} {
		p := newPair(t)
		p.close(t)
		conns, _ := proxy(t, p.inside)
		seen := map[uint16]int{}
		in(t, p.inside, func() {
			d := net.Dialer{Timeout: timeout, Control: reuse}
			for _, to := range tc.destinations {
				c, err := d.Dial(tc.network, to)
				must(t, err)
				defer c.Close()
				own := c.LocalAddr().(*net.TCPAddr)
				d.LocalAddr = own
				got := <-conns
				if int(got.port) != own.Port || got.client.Addr() != own.AddrPort().Addr() {
					t.Errorf("%s from %s came from %s, by its mark from port %d", to, own, got.client, got.port)
				}
				seen[got.client.Port()]++
			}
		})
		if len(seen) < 3 {
			t.Errorf("%s: ports at the proxy: %v, so that nothing was tried", tc.network, seen)
		}
	}
}

// The proxy's own connections leave the namespace, over both families.
func TestMarkedLeaves(t *testing.T) {
	for i, addr := range outsideAddrs {
		p := newPair(t)
		target := net.JoinHostPort(addr, "8080")
		accepted := serve(t, p.outside, []string{"tcp4", "tcp6"}[i], target)
		p.close(t)
		in(t, p.inside, func() {
			d := net.Dialer{Timeout: timeout, Control: mark}
			c, err := d.Dial("tcp", target)
			if err != nil {
				t.Errorf("%s: %v", target, err)
				return
			}
			_ = c.Close()
		})
		select {
		case <-accepted:
		case <-time.After(timeout):
			t.Errorf("%s accepted nothing", target)
		}
	}
}

func mark(_, _ string, raw syscall.RawConn) (err error) {
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, proxyapi.Mark) })
	return errors.Join(e, err)
}

// TestBypass_B61_RulesGone: the routing rules are sufficient alone. After the nftables
// rules are deleted, nothing leaves. After the routes are deleted as well, packets do, so
// the test can fail.
func TestBypass_B61_RulesGone(t *testing.T) {
	for i, addr := range outsideAddrs {
		p := newPair(t)
		target := net.JoinHostPort(addr, "8080")
		accepted := serve(t, p.outside, []string{"tcp4", "tcp6"}[i], target)
		p.close(t)
		in(t, p.inside, func() {
			c, err := nftables.New()
			must(t, err)
			c.DelTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyINet})
			must(t, c.Flush())
		})
		if err := dial(t, p.inside, "tcp", target); err == nil || len(accepted) != 0 {
			t.Errorf("%s: %v, the other side accepted %d", target, err, len(accepted))
		}
		in(t, p.inside, func() {
			rules, err := netlink.RuleList([]int{netlink.FAMILY_V4, netlink.FAMILY_V6}[i])
			must(t, err)
			for _, r := range rules {
				if r.Priority >= rulePriority && r.Priority < mainPriority {
					must(t, netlink.RuleDel(&r))
				}
			}
		})
		if err := dial(t, p.inside, "tcp", target); err != nil {
			t.Errorf("control, without both locks: %s: %v", target, err)
		}
	}
}

// TestBypass_B21_ReconnectedSocket: an accepted connection that is reconnected elsewhere
// (AF_UNSPEC) still has the inbound mark, which is routed to the uplink. It is refused at
// once.
func TestBypass_B21_ReconnectedSocket(t *testing.T) {
	p := newPair(t)
	secret := serve(t, p.outside, "tcp4", outsideAddrs[0]+":8080")
	p.close(t)
	conns, _ := proxy(t, p.inside)
	in(t, p.inside, func() {
		l, err := net.Listen("tcp4", insideAddrs[0]+":9000")
		must(t, err)
		defer l.Close()
		go connectAndStay(t, p.outside, nil, insideAddrs[0]+":9000")
		c, err := l.Accept()
		must(t, err)
		defer c.Close()
		f, err := c.(*net.TCPConn).File()
		must(t, err)
		defer f.Close()
		must(t, unix.SetNonblock(int(f.Fd()), false))
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, f.Fd(), unspec(), 16)
		if errno != 0 {
			t.Fatalf("disconnect: %v", errno)
		}
		err = unix.Connect(int(f.Fd()), &unix.SockaddrInet4{Port: 8080, Addr: netip.MustParseAddr(outsideAddrs[0]).As4()})
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect: %v, want refused", err)
		}
	})
	if len(secret) != 0 || len(conns) != 0 {
		t.Errorf("the other side was reached %d times, the proxy %d times", len(secret), len(conns))
	}
}

// A UDP server inside can answer packets from outside.
func TestInboundUDPIsAnswered(t *testing.T) {
	for i, addr := range insideAddrs {
		p := newPair(t)
		p.close(t)
		in(t, p.inside, func() {
			c, err := net.ListenPacket("udp", ":7000")
			must(t, err)
			t.Cleanup(func() { c.Close() })
			go echo(c, nil)
		})
		in(t, p.outside, func() {
			d := net.Dialer{Timeout: timeout}
			c, err := d.DialContext(context.Background(), []string{"udp4", "udp6"}[i], net.JoinHostPort(addr, "7000"))
			must(t, err)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(timeout))
			_, err = c.Write([]byte("ping"))
			must(t, err)
			b := make([]byte, 10)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "ping" {
				t.Errorf("%s: %q, %v", addr, b[:n], err)
			}
		})
	}
}
