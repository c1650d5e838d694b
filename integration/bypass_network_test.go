// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/testenv"
)

// TestBypass_B21_OtherProtocols: what is not TCP goes nowhere, and TCP goes to the
// proxy whatever socket asked for it.
func TestBypass_B21_OtherProtocols(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	inside, inside6 := b.up.Inside().String(), "["+b.up.Inside6().String()+"]"
	for _, tc := range []struct{ name, kind, at string }{
		{"QUIC", "udp", inside + ":443"},
		{"QUIC over IPv6", "udp", inside6 + ":443"},
		{"QUIC outside", "udp", "8.8.8.8:443"},
		{"UDP to the gateway", "udp", inside + ":9999"},
		{"NTP", "udp", inside + ":123"},
		{"broadcast", "udp", "255.255.255.255:67"},
		{"multicast", "udp", "239.1.1.1:9999"},
		{"multicast over IPv6", "udp", "[ff02::1]:9999"},
		{"ping", "ping", inside + ":0"},
		{"SCTP", "sctp", inside + ":80"},
		{"UDP-Lite", "udplite", inside + ":80"},
		{"multipath TCP", "mptcp", inside + ":443"},
		{"raw", "raw", inside + ":0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := b.at(t).refused("/bin/probe", "socket", tc.kind, tc.at)
			if !strings.HasPrefix(out, "error: ") {
				t.Errorf("printed %q", out)
			}
			// Who falls back to TCP must learn it at once, not by waiting.
			if strings.HasPrefix(tc.name, "QUIC") && strings.Contains(out, "timeout") {
				t.Errorf("no refusal came: %s", out)
			}
		})
	}
}

// TestBypass_B20_IPv6: what IPv4 may not, IPv6 may not either, nor the link's own
// addresses.
func TestBypass_B20_IPv6(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	b.exec("/bin/probe", "http", "GET", "https://six.test/x") // so that the link is known to be up
	local, err := b.up.LinkLocal()
	if err != nil || !local.IsValid() {
		t.Fatalf("no link-local address: %v", err)
	}
	for _, host := range []string{b.up.Inside6().String(), local.String() + "%eth0", "2001:4860:4860::8888", "::ffff:" + b.up.Inside().String()} {
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []string{"7000", "443", "22"} {
				t.Run(network+" "+host+" "+port, func(t *testing.T) {
					b.at(t).refused("/bin/probe", "say", network, net.JoinHostPort(host, port), `GET /c2VjcmV0 HTTP/1.0\r\n\r\n`)
				})
			}
		}
	}
}

// TestBypass_B21_BoundToDevice: a socket that keeps to the uplink does not leave by it.
func TestBypass_B21_BoundToDevice(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	inside, inside6 := b.up.Inside().String(), b.up.Inside6().String()
	for _, network := range []string{"tcp", "udp"} {
		for _, host := range []string{inside, inside6, "8.8.8.8", "2001:4860:4860::8888"} {
			for _, port := range []string{"53", "443", "7000"} {
				t.Run(network+" "+host+" "+port, func(t *testing.T) {
					out := b.at(t).refused("/bin/probe", "say", network, net.JoinHostPort(host, port), "c2VjcmV0", "eth0")
					if !strings.HasPrefix(out, "error: ") {
						t.Errorf("printed %q", out)
					}
				})
			}
		}
	}
}

// TestBypass_B22_Redirects: each hop is judged, wherever an allowed host sends its
// client.
func TestBypass_B22_Redirects(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	for _, to := range []string{"https://denied.test/c2VjcmV0", "http://169.254.169.254/latest/", "https://api.test/other", "http://" + b.up.Inside().String() + "/x"} {
		for _, verb := range []string{"http", "direct"} {
			t.Run(verb+" "+to, func(t *testing.T) {
				b := b.at(t)
				b.up.Reset()
				out := b.exec("/bin/probe", verb, "GET", "https://api.test/ok/redirect?to="+to)
				if r := b.up.Requests(); len(r) != 1 || r[0].Path != "/ok/redirect" || strings.Contains(out, "upstream saw") {
					t.Errorf("printed %q, the upstream received %v", out, r)
				}
				for _, p := range b.up.Arrived() {
					if p.To.Addr().Unmap() != b.up.Inside() {
						t.Errorf("the upstream got %v", p)
					}
				}
			})
		}
	}
	if out := b.exec("/bin/probe", "http", "GET", "https://api.test/ok/redirect?to=/ok/2"); !strings.Contains(out, "upstream saw GET /ok/2") {
		t.Errorf("a redirect to what is allowed printed %q", out)
	}
}

// TestBypass_B23_Neighbours: the gateway, the host's services, another sandbox and
// the proxy of another sandbox are out of reach, from inside and from outside.
func TestBypass_B23_Neighbours(t *testing.T) {
	t.Parallel()
	a := newBox(t, boxOptions{uplink: true})
	b := newBox(t, boxOptions{uplink: true, up: a.up, nth: 1})
	l, err := net.Listen("tcp", net.JoinHostPort(a.up.Gateway.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var served atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Add(1)
			_ = c.Close()
		}
	}()
	host := newBox(t, boxOptions{up: a.up})
	for _, from := range []*box{a, host} {
		for _, to := range []string{
			l.Addr().String(), "127.0.0.1:22", "127.0.0.1:15001", b.addr.String() + ":15001", b.addr.String() + ":15053", b.addr.String() + ":80",
			a.up.Inside().String() + ":22", a.up.Inside().String() + ":10250", "10.96.0.1:443", "172.17.0.1:80", "host.docker.internal:80",
		} {
			t.Run(fmt.Sprintf("%s to %s", from.id, to), func(t *testing.T) {
				from.at(t).refused("/bin/probe", "say", "tcp", to, `GET /c2VjcmV0 HTTP/1.0\r\n\r\n`)
				from.at(t).refused("/bin/probe", "say", "udp", to, "c2VjcmV0")
			})
		}
	}
	if n := served.Load(); n != 0 {
		t.Errorf("the host's service got %d connections", n)
	}
	// From outside, where the attacker's server is the container's neighbour, a
	// published port answers and the proxy's do not.
	c := newBox(t, boxOptions{uplink: true, up: a.up, nth: 2, argv: []string{"/bin/probe", "listen", ":8080"}})
	dial := func(addr netip.Addr, port int) error {
		return a.up.Within(func() error {
			conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, port), time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}
	waitFor(t, "the published port answers", func() bool { return dial(c.addr, 8080) == nil })
	for _, from := range []*box{a, b, c} {
		for _, port := range []int{15001, 15053} {
			if err := dial(from.addr, port); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("the proxy's port %d at %s, from outside: %v, want refused", port, from.addr, err)
			}
		}
	}
	// No container answers for an address that is not its own.
	nobody := netip.AddrFrom4([4]byte{10, 232, a.addr.As4()[2], 99})
	if err := dial(nobody, 80); err == nil {
		t.Errorf("%s answers", nobody)
	}
	err = a.up.Within(func() error {
		known, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range known {
			if n.IP.String() == nobody.String() && len(n.HardwareAddr) > 0 {
				t.Errorf("a container says that it is %s: %s", nobody, n.HardwareAddr)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBypass_B23_ControlPlanePorts: a policy does not open a port of a cluster's control
// plane, whichever way it is asked for; the operator's configuration does.
func TestBypass_B23_ControlPlanePorts(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	var served atomic.Int64
	for _, port := range []string{"2379", "6443", "10250"} {
		var l net.Listener
		err := up.Within(func() (err error) {
			l, err = net.Listen("tcp", ":"+port)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				served.Add(1)
				_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\nc2VjcmV0"))
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		}()
	}
	inside := up.Inside().String()
	text := fmt.Sprintf(`version: 1
filesystem_policy: {read_only: [/bin, /usr, /lib, /lib64, /etc, /proc]}
network_policies:
  cluster:
    binaries: [/bin/probe]
    endpoints:
      - {host: api.test, ports: [80, 443, 6443]}
      - {host: raw.test, ports: [2379, 6443, 7000], protocol: tcp}
      - {host: %s, ports: [2379, 6443, 10250]}
`, inside)
	attempts := [][]string{
		{"say", "tcp", "api.test:6443", `GET / HTTP/1.0\r\nHost: api.test:6443\r\n\r\n`},
		{"say", "tcp", "raw.test:2379", `GET / HTTP/1.0\r\n\r\n`},
		{"say", "tcp", inside + ":10250", `GET / HTTP/1.0\r\nHost: ` + inside + `:10250\r\n\r\n`},
		{"say", "tcp", inside + ":6443", `GET / HTTP/1.0\r\nHost: ` + inside + `:6443\r\n\r\n`},
		{"say", "tcp", "127.0.0.1:15001", `CONNECT api.test:6443 HTTP/1.1\r\nHost: api.test:6443\r\n\r\n`},
		{"say", "tcp", "127.0.0.1:15001", `CONNECT raw.test:6443 HTTP/1.1\r\nHost: raw.test:6443\r\n\r\n`},
		{"say", "tcp", "127.0.0.1:15001", `GET http://api.test:6443/ HTTP/1.1\r\nHost: api.test:6443\r\n\r\n`},
	}
	for i, tc := range []struct {
		name         string
		uplink, open bool
	}{
		{"blocked", true, false}, {"blocked, names in the hosts file", false, false}, {"open", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := boxOf(t, boxOptions{uplink: tc.uplink, up: up, nth: i, policy: text})
			if !tc.uplink { // the listener's address as the host's network sees it
				b.file("hosts", fmt.Sprintf("127.0.0.1 localhost\n%s api.test raw.test\n", up.Addr))
			}
			if tc.open {
				b.file("config.yaml", "log_dir: "+b.records()+"\ncontrol_plane_ports: [2379, 6443, 10250]\n")
			}
			if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			for _, args := range attempts {
				before := served.Load()
				up.Reset()
				out := b.exec(append([]string{"/bin/probe"}, args...)...)
				if got := served.Load() - before; (got > 0) != tc.open || !tc.open && len(up.Arrived()) > 0 {
					t.Errorf("%v: %d accepted, packets %v, printed %q", args, got, up.Arrived(), out)
				}
			}
		})
	}
}

// TestBypass_B21_MarkOfTheProxy: a name that leads the proxy back to the workload
// gives it a socket, and not the proxy's way out.
func TestBypass_B21_MarkOfTheProxy(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	b.up.Name("raw.test", func(int) []netip.Addr { return []netip.Addr{b.addr} })
	out := b.exec("/bin/probe", "boomerang", "7000", "raw.test", b.up.Inside().String()+":22")
	if !strings.Contains(out, "accepted") {
		t.Fatalf("control: the proxy did not come: %q", out)
	}
	if testenv.Eventually(quiet, func() bool {
		return slices.ContainsFunc(b.up.Arrived(), func(p upstream.Packet) bool { return p.To.Port() != 53 }) || b.up.Saw("c2VjcmV0")
	}) {
		t.Errorf("printed %q, and the upstream got %v", out, b.up.Arrived())
	}
}

// A socket that was connected where it may, and then elsewhere, is led to the proxy
// once more.
func TestReconnect(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	inside := b.up.Inside().String()
	for _, tc := range []struct{ name, network, first, second string }{
		{"TCP, allowed before", "tcp", "raw.test:7000", inside + ":80"},
		{"TCP, the proxy before", "tcp", "127.0.0.1:15001", inside + ":22"},
		{"UDP, loopback before", "udp", "127.0.0.1:9", inside + ":9"},
		{"UDP, the name server before", "udp", inside + ":53", inside + ":443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			out := b.exec("/bin/probe", "reconnect", tc.network, tc.first, tc.second)
			if strings.HasPrefix(out, "error: first") {
				t.Errorf("printed %q", out)
			}
			for _, p := range b.up.Arrived() {
				if port := p.To.Port(); port != 53 && port != 7000 {
					t.Errorf("printed %q, and the upstream got %v", out, p)
				}
			}
			b.noRequestArrived([]string{tc.name}, out)
		})
	}
}

// The proxy's own ports take junk from inside and serve on.
func TestJunkAtTheProxy(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	before := b.proxy().Pid
	long := strings.Repeat("a", 20000)
	texts := []string{
		strings.Repeat(`\x00`, 600), `\x16\x03\x01\x40\x00\x01`, "GET /" + long, `\xff\xfe\x80\r\n\r\n`, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
		`GET http://127.0.0.1:15001/ HTTP/1.1\r\nHost: 127.0.0.1:15001\r\n\r\n`, `CONNECT localhost:15001 HTTP/1.1\r\nHost: localhost:15001\r\n\r\n`, ``,
	}
	b.up.Reset()
	var all []func() string
	for _, at := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:15001"}, {"tcp", "[::1]:15001"}, {"tcp", "127.0.0.1:15053"}, {"udp", "127.0.0.1:15053"}, {"udp", "[::1]:15053"},
	} {
		for _, text := range texts {
			all = append(all, b.start(nil, "/bin/probe", "say", at.network, at.address, text))
		}
	}
	for _, wait := range all {
		out := wait()
		if b.nothingArrived([]string{"junk"}, out); strings.Contains(out, "HTTP/1.1 200") {
			t.Errorf("printed %q", out)
		}
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if after := b.proxy().Pid; after != before {
		t.Errorf("the worker was replaced: %d, then %d", before, after)
	}
}
