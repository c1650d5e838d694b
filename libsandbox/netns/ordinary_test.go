// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

func udpEcho(t *testing.T, ns vnetns.NsHandle, network, addr string) {
	t.Helper()
	in(t, ns, func() {
		c, err := net.ListenPacket(network, addr)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		go echo(c, nil)
	})
}

func udpAsk(network, local, to string, size int) error {
	d := net.Dialer{}
	if local != "" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	c, err := d.Dial(network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeout / 2))
	what := bytes.Repeat([]byte("x"), size)
	if _, err := c.Write(what); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

func pingAsk(to string) error {
	a := netip.MustParseAddr(to)
	family, proto, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	if a.Is6() {
		family, proto, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err := unix.Sendto(fd, []byte{kind, 0, 0, 0, 0, 0, 0, 1, 'x'}, 0, sockaddr(netip.AddrPortFrom(a, 0).String())); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 100), 0)
	return err
}

func refused(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%w, want refused", err)
}

// Ordinary traffic within the container and from outside keeps working, and what is refused
// fails at once.
func TestOrdinary(t *testing.T) {
	p := newPair(t)
	p.close(t)
	check := func(what string, ns vnetns.NsHandle, f func() error) {
		t.Helper()
		in(t, ns, func() {
			var err error
			if !testenv.Eventually(timeout, func() bool {
				err = f()
				return err == nil
			}) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for i, own := range insideAddrs {
		udp, tcp := []string{"udp4", "udp6"}[i], []string{"tcp4", "tcp6"}[i]
		lo := []string{"127.0.0.1", "::1"}[i]
		at := func(a, port string) string { return net.JoinHostPort(a, port) }
		if i == 0 {
			udpEcho(t, p.inside, "udp", ":7000") // for both families
		}
		udpEcho(t, p.inside, udp, at(own, "7001"))
		udpEcho(t, p.inside, udp, at(own, "53"))
		serve(t, p.inside, tcp, at(own, "8080"))
		for _, a := range []string{lo, own} {
			check("UDP within to "+a, p.inside, func() error { return udpAsk(udp, "", at(a, "7000"), 10) })
			check("UDP within, large, to "+a, p.inside, func() error { return udpAsk(udp, "", at(a, "7000"), 9000) })
			check("UDP within to a closed port of "+a, p.inside, func() error { return refused(udpAsk(udp, "", at(a, "7999"), 10)) })
			check("TCP within to a closed port of "+a, p.inside, func() error { _, err := net.DialTimeout(tcp, at(a, "7999"), timeout); return refused(err) })
			check("query without name server to "+a, p.inside, func() error { return refused(udpAsk(udp, "", at(a, "53"), 10)) })
			check("ping within "+a, p.inside, func() error { return pingAsk(a) })
		}
		check("UDP from lo to the interface", p.inside, func() error { return udpAsk(udp, at(lo, "0"), at(own, "7001"), 10) })
		check("TCP within", p.inside, func() error {
			c, err := net.DialTimeout(tcp, at(own, "8080"), timeout)
			if err == nil {
				_, err = io.ReadAll(c)
				c.Close()
			}
			return err
		})
		for _, out := range []string{outsideAddrs[i], []string{"192.0.2.53", "2001:db8::53"}[i]} {
			check("query without name server to "+out, p.inside, func() error { return refused(udpAsk(udp, "", at(out, "53"), 10)) })
			check("TCP without proxy to "+out, p.inside, func() error { _, err := net.DialTimeout(tcp, at(out, "443"), timeout); return refused(err) })
			check("UDP refused to "+out, p.inside, func() error {
				if err := udpAsk(udp, "", at(out, "443"), 10); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
					return fmt.Errorf("want refused: %w", err)
				}
				return nil
			})
		}
		check("ping from outside", p.outside, func() error { return pingAsk(own) })
		check("UDP to a closed port from outside", p.outside, func() error { return refused(udpAsk(udp, "", at(own, "7999"), 10)) })
		check("TCP to a closed port from outside", p.outside, func() error { _, err := net.DialTimeout(tcp, at(own, "7999"), timeout); return refused(err) })
		for _, port := range []string{"7000", "7001", "53"} {
			check("UDP from outside to "+port, p.outside, func() error { return udpAsk(udp, "", at(own, port), 10) })
			check("UDP from outside, large, to "+port, p.outside, func() error { return udpAsk(udp, "", at(own, port), 9000) })
		}
		for n := range 50 {
			check("UDP peer", p.outside, func() error { return udpAsk(udp, at(outsideAddrs[i], fmt.Sprint(20000+n)), at(own, "7000"), 10) })
		}
		for _, from := range []string{"15001", "15053", "53"} {
			if from == "53" {
				continue // is a query
			}
			check(udp+" peer of port "+from, p.outside, func() error { return udpAsk(udp, at(outsideAddrs[i], from), at(own, "7000"), 10) })
			check(tcp+" peer of port "+from, p.outside, func() error {
				d := net.Dialer{Timeout: timeout, Control: reuse, LocalAddr: tcpAddr(at(outsideAddrs[i], from))}
				c, err := d.Dial(tcp, at(own, "8080"))
				if err == nil {
					_, err = io.ReadAll(c)
					c.Close()
				}
				return err
			})
		}
	}
}
