// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h and
// netfilter_ipv6/ip6_tables.h) have the same number.
const soOriginalDst = 80

func addrPort(a net.Addr) netip.AddrPort {
	t := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(t.Addr().Unmap().WithZone(""), t.Port())
}

// originalDestination is where c was meant to go before it was led here; self,
// the listener's address, if it was meant for the proxy.
func originalDestination(c *net.TCPConn, self netip.AddrPort) (to netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return to, err
	}
	e := raw.Control(func(fd uintptr) {
		if self.Addr().Is6() {
			var info *unix.IPv6MTUInfo // begins with the sockaddr_in6 that is returned
			if info, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.IPPROTO_IPV6, soOriginalDst); err == nil {
				p := info.Addr.Port // in network order
				to = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), p<<8|p>>8)
			}
			return
		}
		var m *unix.IPv6Mreq // as large as the sockaddr_in that is returned
		if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, soOriginalDst); err == nil {
			b := m.Multiaddr
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	})
	// Nobody translated it: it was made to the proxy.
	if errors.Is(err, unix.ENOENT) {
		return self, e
	}
	if err = errors.Join(err, e); err != nil {
		return to, fmt.Errorf("find a connection's destination: %w", err)
	}
	return to, nil
}
