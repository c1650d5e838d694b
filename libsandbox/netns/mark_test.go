// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBypass_B21_MarkOfTheProxy: if a name leads the proxy back into the container, the
// workload does not get the proxy's mark. A socket that accepts the proxy's connection
// would keep the mark (tcp_fwmark_accept) and could then connect to any address after a
// disconnect (AF_UNSPEC).
func TestBypass_B21_MarkOfTheProxy(t *testing.T) {
	for i, own := range insideAddrs {
		p := newPair(t)
		network := []string{"tcp4", "tcp6"}[i]
		secret := serve(t, p.outside, network, net.JoinHostPort(outsideAddrs[i], "8080"))
		p.close(t)
		conns, _ := proxy(t, p.inside)
		in(t, p.inside, func() {
			l, err := net.Listen(network, net.JoinHostPort(own, "9000"))
			must(t, err)
			defer l.Close()
			d := net.Dialer{Timeout: time.Second, Control: mark}
			from, err := d.Dial(network, l.Addr().String())
			for try := 0; err != nil && try < 5; try++ { // IPv6 needs a moment to be ready
				from, err = d.Dial(network, l.Addr().String())
			}
			must(t, err)
			defer from.Close()
			c, err := l.Accept()
			must(t, err)
			defer c.Close()
			f, err := c.(*net.TCPConn).File()
			must(t, err)
			defer f.Close()
			must(t, unix.SetNonblock(int(f.Fd()), false))
			if _, _, errno := unix.Syscall(unix.SYS_CONNECT, f.Fd(), unspec(), 16); errno != 0 {
				t.Fatalf("disconnect: %v", errno)
			}
			to := netip.MustParseAddr(outsideAddrs[i])
			var at unix.Sockaddr = &unix.SockaddrInet6{Port: 8080, Addr: to.As16()}
			if to.Is4() {
				at = &unix.SockaddrInet4{Port: 8080, Addr: to.As4()}
			}
			must(t, unix.Connect(int(f.Fd()), at))
		})
		select {
		case <-conns: // as any other connection
		case who := <-secret:
			t.Errorf("%s reached the other side", who)
		case <-time.After(timeout):
			t.Error("the connection went nowhere")
		}
	}
}
