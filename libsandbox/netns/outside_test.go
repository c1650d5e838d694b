// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"

	vnetns "github.com/vishvananda/netns"
)

// quiet is how long a test watches for a packet that must not arrive. A packet that is sent
// arrives within a millisecond.
const quiet = 40 * time.Millisecond

// sniff collects the packets that arrive in ns from elsewhere, other than ARP and neighbour
// discovery. The function arrived returns those that arrived since its last call; if there
// are none it waits for the first one, for at most wait.
func sniff(t *testing.T, ns vnetns.NsHandle) (arrived func(wait time.Duration) []string) {
	t.Helper()
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	var fd int
	in(t, ns, func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
		must(t, err)
	})
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}))
	var mu sync.Mutex
	var got []string
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				select {
				case <-stop:
					return
				default:
					continue
				}
			}
			l, ok := from.(*unix.SockaddrLinklayer)
			if !ok || l.Pkttype == unix.PACKET_OUTGOING || l.Hatype == unix.ARPHRD_LOOPBACK {
				continue
			}
			if s := packet(b[:n]); s != "" {
				mu.Lock()
				got = append(got, s)
				mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; _ = unix.Close(fd) })
	return func(wait time.Duration) (s []string) {
		testenv.Eventually(wait, func() bool {
			mu.Lock()
			defer mu.Unlock()
			s, got = got, nil
			return len(s) > 0
		})
		return s
	}
}

// packet describes a packet; it returns "" for neighbour discovery.
func packet(b []byte) string {
	if len(b) < 20 {
		return ""
	}
	var proto byte
	var src, dst netip.Addr
	var rest []byte
	switch b[0] >> 4 {
	case 4:
		proto, rest = b[9], b[int(b[0]&15)*4:]
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case 6:
		if len(b) < 44 {
			return ""
		}
		proto, rest = b[6], b[40:]
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		if proto == unix.IPPROTO_ICMPV6 && rest[0] >= 133 && rest[0] <= 136 || proto == 0 && !bytes.Contains(b, []byte{0x5e, 0xc7}) {
			return ""
		}
	default:
		return ""
	}
	if proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP {
		s := fmt.Sprintf("%d %s:%d>%s:%d", proto, src, binary.BigEndian.Uint16(rest), dst, binary.BigEndian.Uint16(rest[2:]))
		if proto == unix.IPPROTO_TCP {
			s += fmt.Sprintf(" flags %#x data %d", rest[13], len(rest)-int(rest[12]>>4)*4)
		}
		return s
	}
	return fmt.Sprintf("%d %s>%s type %d len %d", proto, src, dst, rest[0], len(rest))
}

func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(e, err)
}

func foreignTCP(_, _ string, raw syscall.RawConn) (err error) {
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) })
	return errors.Join(e, err)
}

func tcpAddr(a string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }

// TestBypass_B21_ForeignPeer: if one end of a connection within the container has a foreign
// address, its other end cannot use the connection to send packets outside.
func TestBypass_B21_ForeignPeer(t *testing.T) {
	p := newPair(t)
	own, foreign := net.JoinHostPort(insideAddrs[1], "9000"), net.JoinHostPort(outsideAddrs[1], "8080")
	p.close(t)
	arrived := sniff(t, p.outside)
	in(t, p.inside, func() {
		l, err := net.Listen("tcp6", own)
		must(t, err)
		defer l.Close()
		d := net.Dialer{Timeout: timeout, Control: foreignTCP, LocalAddr: tcpAddr(foreign)}
		from, err := d.Dial("tcp6", own)
		if errors.Is(err, unix.ECONNREFUSED) {
			return
		}
		must(t, err)
		defer from.Close()
		c, err := l.Accept()
		must(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "within")
		must(t, err)
		must(t, from.SetReadDeadline(time.Now().Add(timeout)))
		b := make([]byte, 100)
		n, err := from.Read(b)
		must(t, err)
		if string(b[:n]) != "within" {
			t.Errorf("read %q", b[:n])
		}
		must(t, control(c.(*net.TCPConn), func(fd int) error { return unix.BindToDevice(fd, "eth0") }))
		_, _ = io.WriteString(c, "secret")
	})
	if got := arrived(300 * time.Millisecond); len(got) != 0 {
		t.Errorf("arrived: %q", got)
	}
}

func sockaddr(a string) unix.Sockaddr {
	at := netip.MustParseAddrPort(a)
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

// TestBypass_B21_OddSockets: no kind of socket that a process without privileges can open
// sends a packet outside. Without the rules it does, if the kernel supports it.
func TestBypass_B21_OddSockets(t *testing.T) {
	tcp, udp := unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK
	set := func(level, option, value int) func(fd int) error {
		return func(fd int) error { return unix.SetsockoptInt(fd, level, option, value) }
	}
	eth0 := func(fd int) error { return unix.BindToDevice(fd, "eth0") }
	srr := func(via string) func(fd int) error {
		return func(fd int) error {
			a := netip.MustParseAddr(via).As4()
			return unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, string(append([]byte{0x83, 7, 4}, append(a[:], 0)...)))
		}
	}
	// A segment routing header, the only routing header that needs no privilege.
	srh := func(via, to string) func(fd int) error {
		return func(fd int) error {
			a, b := netip.MustParseAddr(to).As16(), netip.MustParseAddr(via).As16()
			h := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, append(a[:], b[:]...)...)
			return unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_RTHDR, string(h))
		}
	}
	out4, out6 := outsideAddrs[0]+":8080", net.JoinHostPort(outsideAddrs[1], "8080")
	send := func(to string) func(fd int) error {
		return func(fd int) error { return unix.Sendto(fd, []byte("secret"), 0, sockaddr(to)) }
	}
	fast := func(to string) func(fd int) error {
		return func(fd int) error { return unix.Sendto(fd, []byte("secret"), unix.MSG_FASTOPEN, sockaddr(to)) }
	}
	connect := func(to string) func(fd int) error {
		return func(fd int) error {
			if err := unix.Connect(fd, sockaddr(to)); err != nil {
				return err
			}
			_, err := unix.Write(fd, []byte("secret"))
			return err
		}
	}
	ping := func(to string, kind byte) func(fd int) error {
		return func(fd int) error {
			return unix.Sendto(fd, append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, "secret"...), 0, sockaddr(to))
		}
	}
	join4 := func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: [4]byte{239, 's', 'e', 'c'}, Ifindex: 2})
	}
	join6 := func(fd int) error {
		return unix.SetsockoptIPv6Mreq(fd, unix.SOL_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: netip.MustParseAddr("ff0e::5ec7").As16(), Interface: 2})
	}
	info := func(to string, source string, link uint32) func(fd int) error {
		return func(fd int) error {
			var oob []byte
			a := netip.MustParseAddr(source)
			if a.Is4() {
				oob = make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
				h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
				h.Level, h.Type = unix.SOL_IP, unix.IP_PKTINFO
				h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
				i := (*unix.Inet4Pktinfo)(unsafe.Pointer(&oob[unix.CmsgLen(0)]))
				i.Ifindex, i.Spec_dst = int32(link), a.As4()
			} else {
				oob = make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
				h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
				h.Level, h.Type = unix.SOL_IPV6, unix.IPV6_PKTINFO
				h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
				i := (*unix.Inet6Pktinfo)(unsafe.Pointer(&oob[unix.CmsgLen(0)]))
				i.Ifindex, i.Addr = link, a.As16()
			}
			return unix.Sendmsg(fd, []byte("secret"), oob, sockaddr(to), 0)
		}
	}
	open, closed := newPair(t), newPair(t)
	closed.close(t)
	var arrived [2]func(time.Duration) []string
	for i, p := range []*pair{open, closed} {
		in(t, p.inside, func() { must(t, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)) })
		arrived[i] = sniff(t, p.outside)
	}
	for _, tc := range []struct {
		name                string
		family, kind, proto int
		do                  []func(fd int) error
	}{
		{"TCP", unix.AF_INET, tcp, 0, []func(int) error{connect(out4)}},
		{"TCP, IPv6", unix.AF_INET6, tcp, 0, []func(int) error{connect(out6)}},
		{"TCP, IPv4 in IPv6", unix.AF_INET6, tcp, 0, []func(int) error{connect("[::ffff:" + outsideAddrs[0] + "]:8080")}},
		{"bound to the interface", unix.AF_INET, tcp, 0, []func(int) error{eth0, connect(out4)}},
		{"bound to the interface, IPv6", unix.AF_INET6, tcp, 0, []func(int) error{eth0, connect(out6)}},
		{"fast open", unix.AF_INET, tcp, 0, []func(int) error{set(unix.SOL_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1), fast(out4)}},
		{"fast open, bound", unix.AF_INET, tcp, 0, []func(int) error{eth0, set(unix.SOL_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1), fast(out4)}},
		{"fast open, bound, IPv6", unix.AF_INET6, tcp, 0, []func(int) error{eth0, set(unix.SOL_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1), fast(out6)}},
		{"source route", unix.AF_INET, tcp, 0, []func(int) error{srr(outsideAddrs[0]), connect("198.18.0.1:80")}},
		{"source route, bound", unix.AF_INET, tcp, 0, []func(int) error{eth0, srr(outsideAddrs[0]), connect("198.18.0.1:80")}},
		{"source route, UDP, bound", unix.AF_INET, udp, 0, []func(int) error{eth0, srr(outsideAddrs[0]), send("198.18.0.1:80")}},
		{"segments", unix.AF_INET6, tcp, 0, []func(int) error{eth0, srh(outsideAddrs[1], "2001:db8::1"), connect("[2001:db8::1]:80")}},
		{"segments, UDP", unix.AF_INET6, udp, 0, []func(int) error{eth0, srh(outsideAddrs[1], "2001:db8::1"), send("[2001:db8::1]:80")}},
		{"UDP", unix.AF_INET, udp, 0, []func(int) error{send(out4)}},
		{"UDP to the last port", unix.AF_INET, udp, 0, []func(int) error{send(outsideAddrs[0] + ":65535")}},
		{"UDP to the last port, IPv6", unix.AF_INET6, udp, 0, []func(int) error{send(net.JoinHostPort(outsideAddrs[1], "65535"))}},
		{"UDP, bound", unix.AF_INET, udp, 0, []func(int) error{eth0, send(out4)}},
		{"UDP, bound, IPv6", unix.AF_INET6, udp, 0, []func(int) error{eth0, send(out6)}},
		{"queries, bound", unix.AF_INET, udp, 0, []func(int) error{eth0, send(outsideAddrs[0] + ":53")}},
		{"queries, bound, IPv6", unix.AF_INET6, udp, 0, []func(int) error{eth0, send(net.JoinHostPort(outsideAddrs[1], "53"))}},
		{"queries over TCP, bound", unix.AF_INET, tcp, 0, []func(int) error{eth0, connect(outsideAddrs[0] + ":53")}},
		{"UDP from the name server's port", unix.AF_INET, udp, 0, []func(int) error{func(fd int) error { return unix.Bind(fd, sockaddr(insideAddrs[0]+":15053")) }, eth0, send(out4)}},
		{"UDP by the interface", unix.AF_INET, udp, 0, []func(int) error{info(out4, insideAddrs[0], 2)}},
		{"UDP by the interface, IPv6", unix.AF_INET6, udp, 0, []func(int) error{info(out6, insideAddrs[1], 2)}},
		{"UDP with a foreign source", unix.AF_INET6, udp, 0, []func(int) error{set(unix.SOL_IPV6, unix.IPV6_FREEBIND, 1), info(out6, "2001:db8::9", 2)}},
		{"UDP without checks of routes", unix.AF_INET, udp, 0, []func(int) error{set(unix.SOL_SOCKET, unix.SO_DONTROUTE, 1), eth0, send(out4)}},
		{"broadcast", unix.AF_INET, udp, 0, []func(int) error{set(unix.SOL_SOCKET, unix.SO_BROADCAST, 1), eth0, send("255.255.255.255:8080")}},
		{"multicast", unix.AF_INET, udp, 0, []func(int) error{eth0, send("239.1.2.3:8080")}},
		{"multicast, IPv6", unix.AF_INET6, udp, 0, []func(int) error{eth0, send("[ff0e::1]:8080")}},
		{"ping", unix.AF_INET, udp, unix.IPPROTO_ICMP, []func(int) error{eth0, ping(outsideAddrs[0]+":0", 8)}},
		{"ping, IPv6", unix.AF_INET6, udp, unix.IPPROTO_ICMPV6, []func(int) error{eth0, ping(net.JoinHostPort(outsideAddrs[1], "0"), 128)}},
		{"a group", unix.AF_INET, udp, 0, []func(int) error{join4}},
		{"a group, IPv6", unix.AF_INET6, udp, 0, []func(int) error{join6}},
		{"UDP in segments", unix.AF_INET, udp, 0, []func(int) error{set(unix.SOL_UDP, unix.UDP_SEGMENT, 3), eth0, send(out4)}},
	} {
		for i, p := range []*pair{open, closed} {
			var got []string
			in(t, p.inside, func() {
				fd, err := unix.Socket(tc.family, tc.kind, tc.proto)
				must(t, err)
				defer unix.Close(fd)
				for _, f := range tc.do {
					if err = f(fd); err != nil {
						break // which is as good
					}
				}
				wait := quiet
				if p == open {
					wait = timeout
				}
				got = arrived[i](wait)
			})
			for p == open && len(arrived[i](quiet)) > 0 { // further packets of this attempt
			}
			switch {
			case p == closed && len(got) != 0:
				t.Errorf("%s: arrived: %q", tc.name, got)
			case p == open && len(got) == 0:
				t.Errorf("%s: nothing arrived without rules", tc.name)
			}
		}
	}
}
