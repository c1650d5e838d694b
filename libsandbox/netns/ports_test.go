// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBypass_B39_PortsComeAgain: however connections from few ports to few destinations
// end, each later connection reports its own port and destination to the proxy.
func TestBypass_B39_PortsComeAgain(t *testing.T) {
	for i, own := range insideAddrs {
		p := newPair(t)
		p.close(t)
		conns, _ := proxy(t, p.inside)
		network := []string{"tcp4", "tcp6"}[i]
		lo := []string{"127.0.0.1", "::1"}[i]
		places := [][]string{{"192.0.2.7:443", "192.0.2.7:80", "127.0.0.1:15001"}, {"[2001:db8::7]:443", "[2001:db8::7]:80", "[::1]:15001"}}[i]
		done := 0
		in(t, p.inside, func() {
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				from := net.JoinHostPort([]string{own, lo}[rand.N(2)], []string{"40001", "40002", "15001", "15053"}[rand.N(4)])
				to := places[rand.N(len(places))]
				d := net.Dialer{Timeout: 30 * time.Millisecond, Control: reuse, LocalAddr: tcpAddr(from)}
				c, err := d.Dial(network, to)
				if err != nil {
					continue // the port is taken
				}
				var got redirected
				select {
				case got = <-conns:
				case <-time.After(timeout):
					t.Fatalf("%s → %s did not reach the proxy", from, to)
				}
				want := tcpAddr(from)
				at := got.wanted.String()
				if at == "invalid AddrPort" {
					at = places[2]
				}
				if int(got.port) != want.Port || got.client.Addr() != want.AddrPort().Addr() || at != to {
					t.Errorf("%s → %s: %v", from, to, got)
				}
				done++
				switch rand.N(3) {
				case 0:
					must(t, c.(*net.TCPConn).SetLinger(0))
				case 1:
					_ = control(c.(*net.TCPConn), func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_LINGER2, -1) })
				}
				_ = c.Close()
			}
			// No other socket has the addresses of the proxy's own connections.
			for _, device := range []string{"", "lo", "eth0"} {
				for _, a := range []string{lo, []string{"0.0.0.0", "::"}[i]} {
					fd, err := unix.Socket([]int{unix.AF_INET, unix.AF_INET6}[i], unix.SOCK_STREAM, 0)
					must(t, err)
					for _, o := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
						must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1))
					}
					if device != "" {
						must(t, unix.BindToDevice(fd, device))
					}
					if err := unix.Bind(fd, sockaddr(net.JoinHostPort(a, "15001"))); err == nil {
						t.Errorf("bound to the proxy's address by way of %s, device %q", a, device)
					}
					_ = unix.Close(fd)
				}
			}
		})
		if done < 100 {
			t.Errorf("%s: only %d connections", network, done)
		}
	}
}
