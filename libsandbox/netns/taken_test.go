// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"

	vnetns "github.com/vishvananda/netns"
)

// dockerDNS installs Docker's rules for its resolver in ns, and answers queries with
// "true".
func dockerDNS(t *testing.T, ns vnetns.NsHandle) (asked chan string) {
	t.Helper()
	asked = make(chan string, 16)
	in(t, ns, func() {
		l, err := net.Listen("tcp4", "127.0.0.11:0")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		port := l.Addr().(*net.TCPAddr).Port
		c, err := nftables.New()
		must(t, err)
		tb := &table{c: c, t: c.AddTable(&nftables.Table{Name: "docker", Family: nftables.TableFamilyIPv4})}
		nat := func(kind uint32) []expr.Any {
			p := uint16(port)
			if kind == unix.NFT_NAT_SNAT {
				p = 53
			}
			return []expr.Any{
				&expr.Immediate{Register: 1, Data: []byte{127, 0, 0, 11}},
				&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(p)},
				&expr.NAT{Type: expr.NATType(kind), Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
			}
		}
		addr := func(offset uint32) []expr.Any {
			return equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}, []byte{127, 0, 0, 11})
		}
		tb.begin("out", nftables.ChainTypeNAT, nftables.ChainHookOutput, -100, nftables.ChainPolicyAccept)
		tb.add(proto(unix.IPPROTO_TCP), addr(16), portAt(2, expr.CmpOpEq, 53), nat(unix.NFT_NAT_DNAT))
		tb.begin("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, nftables.ChainPolicyAccept)
		tb.add(proto(unix.IPPROTO_TCP), addr(12), portAt(0, expr.CmpOpEq, uint16(port)), nat(unix.NFT_NAT_SNAT))
		must(t, c.Flush())
		go answerWith(l, "true", asked)
	})
	return asked
}

func answerWith(l net.Listener, what string, asked chan string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		asked <- what + " " + c.RemoteAddr().String()
		_, _ = io.WriteString(c, what)
		_ = c.Close()
	}
}

func askLoop(t *testing.T, from string) string {
	d := net.Dialer{Timeout: timeout, Control: both(mark, reuse)}
	if from != "" {
		d.LocalAddr = tcpAddr(from)
	}
	c, err := d.Dial("tcp4", "127.0.0.11:53")
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(timeout)))
	b, err := io.ReadAll(c)
	return fmt.Sprintf("%s from %s, %v", b, c.LocalAddr(), err)
}

// A listener of the workload at the address of Docker's resolver does not receive the
// proxy's query.
func TestBypass_B16_ForgedResolver(t *testing.T) {
	p := newPair(t)
	asked := dockerDNS(t, p.inside)
	p.close(t)
	in(t, p.inside, func() {
		if got := askLoop(t, "127.0.0.1:40000"); !strings.HasPrefix(got, "true") {
			t.Errorf("control: %s", got)
		}
		const at = "127.0.0.1:40001"
		unanswered(t, unix.AF_INET, "127.0.0.11:53", at)
		forged, err := net.Listen("tcp4", "127.0.0.11:53")
		must(t, err)
		defer forged.Close()
		go answerWith(forged, "forged", asked)
		if got := askLoop(t, at); strings.HasPrefix(got, "forged") {
			t.Errorf("the proxy got %s", got)
		}
	})
}

// unanswered sends a SYN from one address to the other that nobody answers, and leaves no
// socket.
func unanswered(t *testing.T, family int, from, to string) {
	t.Helper()
	l, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(l)
	if family == unix.AF_INET {
		must(t, unix.SetsockoptInt(l, unix.SOL_IP, unix.IP_MINTTL, 255))
	} else {
		must(t, unix.SetsockoptInt(l, unix.SOL_IPV6, unix.IPV6_MINHOPCOUNT, 255))
	}
	must(t, unix.Bind(l, sockaddr(to)))
	must(t, unix.Listen(l, 1))
	s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(s)
	if family == unix.AF_INET6 {
		must(t, unix.SetsockoptInt(s, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
	}
	must(t, unix.Bind(s, sockaddr(from)))
	_ = unix.Connect(s, sockaddr(to)) // which is refused for an attack
}

// A connection from a foreign address does not disturb a connection that the proxy is
// opening.
func TestForeignAddressDisturbsNothing(t *testing.T) {
	for _, attack := range []bool{false, true} {
		p := newPair(t)
		secret := net.JoinHostPort(outsideAddrs[1], "8080")
		accepted := serve(t, p.outside, "tcp6", secret)
		p.close(t)
		arrived := sniff(t, p.outside)
		in(t, p.outside, func() {
			c, err := nftables.New()
			must(t, err)
			tb := &table{c: c, t: c.AddTable(&nftables.Table{Name: "slow", Family: nftables.TableFamilyINet})}
			tb.begin("in", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, nftables.ChainPolicyAccept)
			tb.add(proto(unix.IPPROTO_TCP), port(expr.CmpOpEq, 8080), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
			must(t, c.Flush())
		})
		in(t, p.inside, func() {
			at := net.JoinHostPort(insideAddrs[1], "40001")
			done := make(chan error, 1)
			go in(t, p.inside, func() {
				d := net.Dialer{Timeout: 10 * time.Second, Control: both(mark, reuse), LocalAddr: tcpAddr(at)}
				c, err := d.Dial("tcp6", secret)
				if err == nil {
					_ = c.SetReadDeadline(time.Now().Add(timeout))
					_, err = io.ReadAll(c)
					c.Close()
				}
				done <- err
			})
			if len(arrived(timeout)) == 0 {
				t.Error("the proxy's SYN does not arrive")
			}
			if attack {
				fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
				must(t, err)
				defer unix.Close(fd)
				must(t, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
				must(t, unix.Bind(fd, &unix.SockaddrInet6{Port: 8080, Addr: netip.MustParseAddr(outsideAddrs[1]).As16()}))
				_ = unix.Connect(fd, &unix.SockaddrInet6{Port: 40001, Addr: netip.MustParseAddr(insideAddrs[1]).As16()})
				// Its answer, if there is one.
				_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100)
				must(t, err)
			}
			in(t, p.outside, func() {
				c, err := nftables.New()
				must(t, err)
				c.FlushRuleset()
				must(t, c.Flush())
			})
			if err := <-done; err != nil {
				t.Errorf("attack %t: the proxy's connection: %v, the other side accepted %d", attack, err, len(accepted))
			}
		})
	}
}

// A program's connection to a host is not delivered to another program's listener.
func TestTakenConnection(t *testing.T) {
	p := newPair(t)
	p.close(t)
	conns, _ := proxy(t, p.inside)
	in(t, p.inside, func() {
		to, at := "[2001:db8::7]:8443", net.JoinHostPort(insideAddrs[1], "40001")
		d := net.Dialer{Timeout: timeout}
		c, err := d.Dial("tcp6", to)
		must(t, err)
		must(t, c.Close())
		<-conns
		unanswered(t, unix.AF_INET6, to, at)
		l, err := net.Listen("tcp6", "[::]:8443")
		must(t, err)
		defer l.Close()
		taken := make(chan string, 16)
		go answerWith(l, "taken", taken)
		d = net.Dialer{Timeout: timeout, LocalAddr: tcpAddr(at)}
		c, err = d.Dial("tcp6", to)
		must(t, err)
		defer c.Close()
		b, err := io.ReadAll(c)
		if string(b) != "proxy\n" {
			t.Errorf("got %q, %v; the listener: %d, the proxy: %d", b, err, len(taken), len(conns))
		}
	})
}

// The same for every source port of the proxy's query.
func TestBypass_B16_ForgedResolverEveryPort(t *testing.T) {
	p := newPair(t)
	asked := dockerDNS(t, p.inside)
	p.close(t)
	in(t, p.inside, func() {
		for port := 32768; port < 61000; port++ {
			_ = leave(fmt.Sprintf("%s:%d", proxySource().IP, port))
		}
		forged, err := net.Listen("tcp4", "127.0.0.11:53")
		must(t, err)
		defer forged.Close()
		go answerWith(forged, "forged", asked)
		for range 5 {
			d := net.Dialer{Timeout: timeout, Control: mark, LocalAddr: proxySource()}
			c, err := d.Dial("tcp4", "127.0.0.11:53")
			if err != nil {
				t.Error(err)
				continue
			}
			b, err := io.ReadAll(c)
			if string(b) != "true" {
				t.Errorf("the proxy got %q from %s, %v", b, c.LocalAddr(), err)
			}
			c.Close()
		}
	})
}

func leave(to string) error {
	l, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer unix.Close(l)
	_ = unix.SetsockoptInt(l, unix.SOL_IP, unix.IP_MINTTL, 255)
	if err := unix.Bind(l, sockaddr(to)); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	s, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	defer unix.Close(s)
	_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(s, sockaddr("127.0.0.11:53")); err != nil {
		return err
	}
	if err := unix.Connect(s, sockaddr(to)); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

func proxySource() *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(proxyapi.LoopbackSource, 0))
}
