// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

const timeout = 3 * time.Second

// pair is two namespaces that are joined by a veth pair. inside is the sandbox's.
type pair struct{ inside, outside vnetns.NsHandle }

var (
	insideAddrs  = []string{"10.231.240.2", "fd00:231::2"}
	outsideAddrs = []string{"10.231.240.1", "fd00:231::1"}
)

func newPair(t *testing.T) *pair {
	t.Helper()
	testenv.Require(t, testenv.Root)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := vnetns.Get()
	must(t, err)
	defer here.Close()
	defer func() { must(t, vnetns.Set(here)) }()
	p := &pair{}
	p.outside, err = vnetns.New()
	must(t, err)
	p.inside, err = vnetns.New()
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(p.inside.Close(), p.outside.Close())) })
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.outside)}))
	up := func(addrs []string) {
		for _, name := range []string{"lo", "eth0"} {
			l, err := netlink.LinkByName(name)
			must(t, err)
			must(t, netlink.LinkSetUp(l))
			if name == "lo" {
				continue
			}
			for i, a := range addrs {
				addr, err := netlink.ParseAddr(a + []string{"/24", "/64"}[i])
				must(t, err)
				if i == 1 {
					addr.Flags = 0x02 // IFA_F_NODAD: usable at once
				}
				must(t, netlink.AddrAdd(l, addr))
			}
		}
	}
	up(insideAddrs)
	must(t, vnetns.Set(p.outside))
	up(outsideAddrs)
	running(t, outsideAddrs[1])
	must(t, vnetns.Set(p.inside))
	running(t, insideAddrs[1])
	return p
}

// running waits until eth0 and its IPv6 address are usable. The kernel detects the carrier
// of a veth pair some time after both ends are up, and until then its routes do not work.
// Later a work queue adds the address to the table of local addresses, also without
// duplicate address detection. Until then the rules reset connections from the address,
// because it seems to be foreign.
func running(t *testing.T, addr string) {
	t.Helper()
	local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(128, 128)}}
	var state netlink.LinkOperState
	var routes []netlink.Route
	if !testenv.Eventually(timeout, func() bool {
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		state = l.Attrs().OperState
		routes, err = netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		must(t, err)
		return state == netlink.OperUp && len(routes) > 0
	}) {
		t.Fatalf("eth0 is %s, the local routes to %s are %v", state, addr, routes)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs f on a thread inside ns.
func in(t *testing.T, ns vnetns.NsHandle, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := vnetns.Set(ns)
		defer func() { done <- err }()
		if err == nil {
			err = errors.New("the test ended in the namespace")
			f()
			err = nil
		}
	}()
	must(t, <-done)
}

// connectAndStay connects from ns to an address. The connection lasts until the test ends.
func connectAndStay(t *testing.T, ns vnetns.NsHandle, from net.Addr, to string) {
	in(t, ns, func() {
		d := net.Dialer{LocalAddr: from}
		if c, err := d.Dial("tcp", to); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	})
}

func (p *pair) close(t *testing.T) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", int(p.inside)))
	must(t, err)
	defer f.Close()
	must(t, Capture(f))
}

// echo returns the packets that c receives, and sends their text to got unless that is nil.
func echo(c net.PacketConn, got chan<- string) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if got != nil {
			got <- string(b[:n])
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// acceptAll sends the connections that l accepts to into.
func acceptAll(l net.Listener, into chan<- net.Conn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		into <- c
	}
}

// serve sends one line to each TCP client in ns and counts the clients.
func serve(t *testing.T, ns vnetns.NsHandle, network, addr string) (accepted chan string) {
	t.Helper()
	accepted = make(chan string, 16)
	in(t, ns, func() {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- c.RemoteAddr().String()
				_, _ = io.WriteString(c, "hello\n")
				_ = c.Close()
			}
		}()
	})
	return accepted
}

func dial(t *testing.T, ns vnetns.NsHandle, network, addr string) error {
	t.Helper()
	var result error
	in(t, ns, func() {
		d := net.Dialer{Timeout: timeout}
		c, err := d.Dial(network, addr)
		if err == nil {
			_, err = io.ReadAll(c)
			_ = c.Close()
		}
		result = err
	})
	return result
}

// TestBypass_B20_BothFamilies: no connection from inside reaches the other side, over IPv4
// or IPv6. Without the rules it does, so the test can fail.
func TestBypass_B20_BothFamilies(t *testing.T) {
	for i, addr := range outsideAddrs {
		p := newPair(t)
		target := net.JoinHostPort(addr, "8080")
		accepted := serve(t, p.outside, []string{"tcp4", "tcp6"}[i], target)
		if err := dial(t, p.inside, "tcp", target); err != nil {
			t.Fatalf("control, without rules: %v", err)
		}
		<-accepted
		p.close(t)
		p.close(t) // again: the rules are replaced, not duplicated
		start := time.Now()
		if err := dial(t, p.inside, "tcp", target); err == nil {
			t.Errorf("%s was reached", target)
		}
		if d := time.Since(start); d > timeout/2 {
			t.Errorf("refused only after %s", d)
		}
		if n := len(accepted); n != 0 {
			t.Errorf("the other side accepted %d connections", n)
		}
	}
}

// TestBypass_B21_UDP: datagrams are refused and never arrive.
func TestBypass_B21_UDP(t *testing.T) {
	p := newPair(t)
	arrived := make(chan []byte, 16)
	in(t, p.outside, func() {
		c, err := net.ListenPacket("udp", net.JoinHostPort(outsideAddrs[0], "443"))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for {
				b := make([]byte, 100)
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				arrived <- b[:n]
			}
		}()
	})
	send := func() (err error) {
		in(t, p.inside, func() {
			c, e := net.Dial("udp", net.JoinHostPort(outsideAddrs[0], "443"))
			if e != nil {
				err = e
				return
			}
			defer c.Close()
			_, err = c.Write([]byte("secret"))
		})
		return err
	}
	must(t, send())
	select {
	case <-arrived:
	case <-time.After(timeout):
		t.Fatal("control, without rules: nothing arrived")
	}
	p.close(t)
	_ = send() // the error is reported by this call or the next one
	select {
	case b := <-arrived:
		t.Errorf("arrived: %q", b)
	case <-time.After(300 * time.Millisecond):
	}
}

// TestBypass_B19_LocalResolver: a resolver at a local address would forward queries, so
// port 53 is refused there, too. Other local ports are allowed.
func TestBypass_B19_LocalResolver(t *testing.T) {
	p := newPair(t)
	resolver := serve(t, p.inside, "tcp4", "127.0.0.1:53")
	serve(t, p.inside, "tcp4", "127.0.0.1:8080")
	p.close(t)
	if err := dial(t, p.inside, "tcp", "127.0.0.1:53"); err == nil || len(resolver) != 0 {
		t.Error("a local resolver was reached")
	}
	if err := dial(t, p.inside, "tcp", "127.0.0.1:8080"); err != nil {
		t.Errorf("another local port: %v", err)
	}
}

// Published ports keep working: connections from outside are answered.
func TestInboundIsAnswered(t *testing.T) {
	for i, addr := range insideAddrs {
		p := newPair(t)
		p.close(t)
		target := net.JoinHostPort(addr, "8080")
		serve(t, p.inside, []string{"tcp4", "tcp6"}[i], target)
		if err := dial(t, p.outside, "tcp", target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestCaptureRefusesOwnNamespace(t *testing.T) {
	// Not /proc/self: a test may have left the main thread in another namespace.
	f, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer f.Close()
	if err := Capture(f); !errors.Is(err, ErrHost) {
		t.Errorf("error %v, want ErrHost", err)
	}
}
