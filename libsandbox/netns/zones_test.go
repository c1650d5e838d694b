// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// both calls the two control functions in order.
func both(a, b func(string, string, syscall.RawConn) error) func(string, string, syscall.RawConn) error {
	return func(network, address string, raw syscall.RawConn) error {
		return errors.Join(a(network, address, raw), b(network, address, raw))
	}
}

func reuse(_, _ string, raw syscall.RawConn) (err error) {
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(e, err)
}

// A query of the proxy and one of the workload may have the same port and the same resolver
// in short succession. Each still reaches its own destination.
func TestQueriesFromOnePort(t *testing.T) {
	for i, resolver := range outsideAddrs {
		p := newPair(t)
		network, server := []string{"udp4", "udp6"}[i], net.JoinHostPort(resolver, "53")
		p.close(t)
		_, queries := proxy(t, p.inside)
		asked := make(chan string, 16)
		in(t, p.outside, func() {
			c, err := net.ListenPacket(network, server)
			must(t, err)
			t.Cleanup(func() { c.Close() })
			go echo(c, asked)
		})
		in(t, p.inside, func() {
			ask := func(d net.Dialer, what string, want, not chan string) *net.UDPAddr {
				t.Helper()
				c, err := d.Dial(network, server)
				must(t, err)
				defer c.Close()
				must(t, c.SetDeadline(time.Now().Add(timeout)))
				_, err = io.WriteString(c, what)
				must(t, err)
				b := make([]byte, 100)
				if n, err := c.Read(b); err != nil || string(b[:n]) != what {
					t.Errorf("%s %s: %q, %v", network, what, b[:n], err)
				}
				if len(want) != 1 || len(not) != 0 {
					t.Errorf("%s %s: the one that is meant got %d, the other %d", network, what, len(want), len(not))
				}
				for len(want)+len(not) > 0 {
					select {
					case <-want:
					case <-not:
					}
				}
				return c.LocalAddr().(*net.UDPAddr)
			}
			port := ask(net.Dialer{Control: mark}, "the proxy's", asked, queries)
			ask(net.Dialer{LocalAddr: port}, "the workload's, after it", queries, asked)
			port = ask(net.Dialer{}, "the workload's", queries, asked)
			ask(net.Dialer{Control: mark, LocalAddr: port}, "the proxy's, after it", asked, queries)
		})
	}
}

// A client that continues to send on a connection that the proxy has closed is told so at
// once.
func TestKernelAnswersForTheProxy(t *testing.T) {
	for i, addr := range outsideAddrs {
		p := newPair(t)
		network, ended := []string{"tcp4", "tcp6"}[i], make(chan error, 1)
		p.close(t)
		in(t, p.outside, func() {
			l, err := net.Listen(network, net.JoinHostPort(addr, "8080"))
			must(t, err)
			t.Cleanup(func() { l.Close() })
			go func() {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				defer c.Close()
				_, _ = io.ReadAll(c) // until the proxy has closed it
				testenv.Eventually(timeout, func() bool {
					_, err = io.WriteString(c, "more")
					return err != nil
				})
				ended <- err
			}()
		})
		in(t, p.inside, func() {
			d := net.Dialer{Timeout: timeout, Control: mark}
			c, err := d.Dial(network, net.JoinHostPort(addr, "8080"))
			must(t, err)
			must(t, c.Close())
		})
		if err := <-ended; !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: sending to a closed connection ends with %v", network, err)
		}
	}
}

// TestBypass_B21_RememberedConnection: a conntrack entry of a connection of the proxy whose
// socket is closed does not serve another socket. A socket with the inbound mark, which may
// answer, tries to continue the connection.
func TestBypass_B21_RememberedConnection(t *testing.T) {
	p := newPair(t)
	secret := make(chan net.Conn, 16)
	in(t, p.outside, func() {
		l, err := net.Listen("tcp4", outsideAddrs[0]+":8080")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go acceptAll(l, secret)
	})
	p.close(t)
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(insideAddrs[0] + ":9000"))
	in(t, p.inside, func() {
		d := net.Dialer{Timeout: timeout, Control: both(mark, reuse), LocalAddr: at}
		c, err := d.Dial("tcp4", outsideAddrs[0]+":8080")
		must(t, err)
		other := <-secret
		defer other.Close()
		// In repair mode a socket closes without sending a packet.
		raw, err := c.(*net.TCPConn).SyscallConn()
		must(t, err)
		var e error
		must(t, raw.Control(func(fd uintptr) { e = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) }))
		must(t, e)
		must(t, c.Close())

		l, err := net.Listen("tcp4", at.String())
		must(t, err)
		go connectAndStay(t, p.outside, nil, at.String())
		in, err := l.Accept()
		must(t, err)
		defer in.Close()
		must(t, l.Close())
		f, err := in.(*net.TCPConn).File()
		must(t, err)
		defer f.Close()
		must(t, unix.SetNonblock(int(f.Fd()), false))
		if got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_MARK); err != nil || got != markInbound {
			t.Errorf("the accepted connection has the mark %#x, %v", got, err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_CONNECT, f.Fd(), unspec(), 16); errno != 0 {
			t.Fatalf("disconnect: %v", errno)
		}
		must(t, unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		must(t, unix.Bind(int(f.Fd()), &unix.SockaddrInet4{Port: at.Port, Addr: netip.MustParseAddr(insideAddrs[0]).As4()}))
		must(t, unix.SetsockoptTimeval(int(f.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1}))
		err = unix.Connect(int(f.Fd()), &unix.SockaddrInet4{Port: 8080, Addr: netip.MustParseAddr(outsideAddrs[0]).As4()})
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect: %v, want refused", err)
		}
		// A SYN would make it ask back, and it would then be reset.
		must(t, other.SetReadDeadline(time.Now().Add(timeout/10)))
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || len(secret) != 0 {
			t.Errorf("the other side was reached: %v, and %d new connections", err, len(secret))
		}
	})
}
