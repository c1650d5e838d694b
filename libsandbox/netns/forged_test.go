// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreign lets a socket bind to any address. It needs no privilege.
func foreign(network, _ string, raw syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if network == "udp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(e, err)
}

// TestBypass_B16_ForgedAnswer: the workload cannot answer a query of the proxy with a
// socket that is bound to the resolver's address.
func TestBypass_B16_ForgedAnswer(t *testing.T) {
	for i, resolver := range outsideAddrs {
		p := newPair(t)
		network := []string{"udp4", "udp6"}[i]
		forged := make(chan struct{}) // closed when the forged answer has been sent
		p.close(t)
		in(t, p.outside, func() {
			c, err := net.ListenPacket(network, net.JoinHostPort(resolver, "53"))
			must(t, err)
			t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 100)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					select {
					case <-forged:
					case <-t.Context().Done():
						return
					}
					_, _ = c.WriteTo([]byte("true"), from)
				}
			}()
		})
		in(t, p.inside, func() {
			d := net.Dialer{Control: mark}
			question, err := d.Dial(network, net.JoinHostPort(resolver, "53"))
			must(t, err)
			defer question.Close()
			_, err = question.Write([]byte("?"))
			must(t, err)
			forger := net.Dialer{Control: foreign, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(resolver), 53))}
			c, err := forger.Dial(network, question.LocalAddr().String())
			if err == nil { // for IPv4, the kernel refuses a source address that is not its own
				defer c.Close()
				_, _ = c.Write([]byte("forged"))
			}
			close(forged)
			must(t, question.SetReadDeadline(time.Now().Add(timeout)))
			b := make([]byte, 100)
			if n, err := question.Read(b); err != nil || string(b[:n]) != "true" {
				t.Errorf("%s: the proxy got %q, %v", network, b[:n], err)
			}
		})
	}
}
