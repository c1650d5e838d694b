// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h and
// netfilter_ipv6/ip6_tables.h) have the same number.
const soOriginalDst = 80

func addrPort(a net.Addr) netip.AddrPort {
	t := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(t.Addr().Unmap().WithZone(""), t.Port())
}

// originalEnds are c's two ends as the client sees them: where it started, and where
// it was meant to go before it was led here, which is the listener's address if it was
// meant for the proxy.
func originalEnds(c *net.TCPConn) (local, wanted netip.AddrPort, err error) {
	self := addrPort(c.LocalAddr())
	raw, err := c.SyscallConn()
	if err != nil {
		return local, wanted, err
	}
	var port uint16
	if e := raw.Control(func(fd uintptr) {
		if port, err = originalPort(int(fd)); err == nil {
			wanted, err = originalDestination(int(fd), self)
		}
	}); e != nil {
		err = e
	}
	return netip.AddrPortFrom(addrPort(c.RemoteAddr()).Addr(), port), wanted, err
}

// originalPort is the port that a connection started from, which the rules of the
// namespace have put into its mark.
func originalPort(fd int) (uint16, error) {
	mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	if err != nil {
		return 0, fmt.Errorf("find the port that a connection started from: %w", err)
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(mark))
	if [2]byte(b[2:]) != proxyapi.SourceTag {
		return 0, fmt.Errorf("the mark %#x of a connection does not say the port that it started from", uint32(mark))
	}
	return binary.BigEndian.Uint16(b[:]), nil
}

// originalDestination is where a connection was meant to go; self, the listener's
// address, if nobody translated that.
func originalDestination(fd int, self netip.AddrPort) (to netip.AddrPort, err error) {
	if self.Addr().Is6() {
		var info *unix.IPv6MTUInfo // begins with the sockaddr_in6 that is returned
		if info, err = unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, soOriginalDst); err == nil {
			p := info.Addr.Port // in network order
			to = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), p<<8|p>>8)
		}
	} else {
		var m *unix.IPv6Mreq // as large as the sockaddr_in that is returned
		if m, err = unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, soOriginalDst); err == nil {
			b := m.Multiaddr
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return self, nil
	case err != nil:
		return to, fmt.Errorf("find a connection's destination: %w", err)
	}
	return to, nil
}

// clientClosed reports whether the other end of a connection has closed it, or its direction
// to the proxy.
func clientClosed(tcp *net.TCPConn) bool {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State != tcpEstablished
	})
	return err != nil || closed
}

// tcpEstablished is the kernel's TCP_ESTABLISHED.
const tcpEstablished = 1
