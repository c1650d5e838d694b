// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// withoutRST attaches a filter to a socket that hides a RST whose acknowledgement number
// has some of these bits. It needs no privilege.
func withoutRST(fd int, bits uint32) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 6, Filter: &[]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 2, K: 0x04},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 8},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 1, K: bits},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}[0]})
}

// checksum returns the TCP checksum of an even number of bytes.
func checksum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// TestBypass_B21_RememberedConnectionWithHelp: a conntrack entry of the proxy cannot be
// used either if a server helps that the proxy has contacted before and that answers a SYN
// which it did not receive.
func TestBypass_B21_RememberedConnectionWithHelp(t *testing.T) {
	p := newPair(t)
	secret := make(chan net.Conn, 16)
	var raw int
	in(t, p.outside, func() {
		eth, err := netlink.LinkByName("eth0")
		must(t, err)
		third, err := netlink.ParseAddr("10.231.240.3/24")
		must(t, err)
		must(t, netlink.AddrAdd(eth, third))
		l, err := net.Listen("tcp4", outsideAddrs[0]+":8080")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go acceptAll(l, secret)
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
		must(t, err)
	})
	defer unix.Close(raw)
	p.close(t)
	at := tcpAddr(insideAddrs[0] + ":9000")
	arrived := sniff(t, p.outside)
	in(t, p.inside, func() {
		d := net.Dialer{Timeout: timeout, Control: both(mark, reuse), LocalAddr: at}
		c, err := d.Dial("tcp4", outsideAddrs[0]+":8080")
		must(t, err)
		other := <-secret
		defer other.Close()
		must(t, control(c.(*net.TCPConn), func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) }))
		must(t, c.Close())

		l, err := net.Listen("tcp4", at.String())
		must(t, err)
		go connectAndStay(t, p.outside, tcpAddr("10.231.240.3:0"), at.String())
		accepted, err := l.Accept()
		must(t, err)
		must(t, l.Close())
		f, err := accepted.(*net.TCPConn).File()
		must(t, err)
		defer f.Close()
		must(t, accepted.Close())
		fd := int(f.Fd())
		if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), unspec(), 16); errno != 0 {
			t.Fatalf("disconnect: %v", errno)
		}
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		must(t, unix.Bind(fd, sockaddr(at.String())))
		must(t, unix.SetNonblock(fd, true))
		// try connects once more, each time with a sequence number that is greater by 3.
		try := func(bits uint32) (refused bool) {
			must(t, withoutRST(fd, bits))
			_ = unix.Connect(fd, sockaddr(outsideAddrs[0]+":8080"))
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			must(t, err)
			return info.State != unix.BPF_TCP_SYN_SENT
		}
		disconnect := func() {
			if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), unspec(), 16); errno != 0 {
				t.Fatalf("disconnect: %v", errno)
			}
		}
		try(0)
		disconnect()
		var number uint32 // that of try 0, acknowledged
		for i := range uint32(32) {
			bit := uint32(0)
			if !try(1 << i) {
				bit = 1
			}
			disconnect()
			number |= (bit ^ (number+3*i)>>i&1) << i
		}
		number += 3 * 32
		if try(^uint32(0)) {
			return
		}
		for len(arrived(quiet)) > 0 { // the SYNs of the tries
		}
		src, dst := netip.MustParseAddr(outsideAddrs[0]).As4(), netip.MustParseAddr(insideAddrs[0]).As4()
		h := make([]byte, 20)
		binary.BigEndian.PutUint16(h, 8080)
		binary.BigEndian.PutUint16(h[2:], uint16(at.Port))
		binary.BigEndian.PutUint32(h[4:], 1000)
		binary.BigEndian.PutUint32(h[8:], number)
		h[12], h[13] = 5<<4, 0x12
		binary.BigEndian.PutUint16(h[14:], 60000)
		pseudo := append(append(append([]byte{}, src[:]...), dst[:]...), 0, unix.IPPROTO_TCP, 0, 20)
		binary.BigEndian.PutUint16(h[16:], checksum(append(pseudo, h...)))
		must(t, unix.Sendto(raw, h, 0, &unix.SockaddrInet4{Addr: dst}))
		testenv.Eventually(50*time.Millisecond, func() bool { // if the answer is taken
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			must(t, err)
			return info.State == unix.BPF_TCP_ESTABLISHED
		})
		_, _ = unix.Write(fd, []byte("secret"))
		if got := arrived(120 * time.Millisecond); len(got) != 0 {
			t.Errorf("arrived: %q", got)
		}
	})
}
