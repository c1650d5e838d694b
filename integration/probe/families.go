// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"golang.org/x/sys/unix"
)

// kernelFamilies opens a socket of each family that few programs need and of each protocol
// of netlink. On ordinary sockets it requests IPsec and protocols on top of TCP and UDP. It
// prints NAME=ERRNO.
func kernelFamilies() {
	var out []string
	add := func(what string, err error) { out = append(out, what+"="+name(errnoOf(err))) }
	open := func(family, kind, protocol int) error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	for _, f := range []struct {
		name         string
		family, kind int
		protocol     int
	}{
		{"AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"AF_KEY", unix.AF_KEY, unix.SOCK_RAW, 2},
		{"AF_RXRPC", unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET},
		{"AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"AF_TIPC", unix.AF_TIPC, unix.SOCK_SEQPACKET, 0},
		{"AF_SMC", unix.AF_SMC, unix.SOCK_STREAM, 0},
		{"AF_CAN", unix.AF_CAN, unix.SOCK_RAW, 1},
		{"AF_BLUETOOTH", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		{"AF_NFC", unix.AF_NFC, unix.SOCK_SEQPACKET, 0},
		{"AF_X25", unix.AF_X25, unix.SOCK_SEQPACKET, 0},
		{"AF_AX25", unix.AF_AX25, unix.SOCK_DGRAM, 0},
		{"AF_ROSE", unix.AF_ROSE, unix.SOCK_SEQPACKET, 0},
		{"AF_NETROM", unix.AF_NETROM, unix.SOCK_SEQPACKET, 0},
		{"AF_ATMPVC", unix.AF_ATMPVC, unix.SOCK_DGRAM, 0},
		{"AF_APPLETALK", unix.AF_APPLETALK, unix.SOCK_DGRAM, 0},
		{"AF_IPX", unix.AF_IPX, unix.SOCK_DGRAM, 0},
		{"AF_PACKET", unix.AF_PACKET, unix.SOCK_DGRAM, 0},
		{"AF_RDS", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
		{"AF_PPPOX", unix.AF_PPPOX, unix.SOCK_STREAM, 2},
		{"AF_LLC", unix.AF_LLC, unix.SOCK_DGRAM, 0},
		{"AF_IB", unix.AF_IB, unix.SOCK_DGRAM, 0},
		{"AF_MPLS", unix.AF_MPLS, unix.SOCK_DGRAM, 0},
		{"AF_PHONET", unix.AF_PHONET, unix.SOCK_DGRAM, 0},
		{"AF_IEEE802154", unix.AF_IEEE802154, unix.SOCK_DGRAM, 0},
		{"AF_CAIF", unix.AF_CAIF, unix.SOCK_SEQPACKET, 0},
		{"AF_ISDN", unix.AF_ISDN, unix.SOCK_RAW, 0},
		{"AF_KCM", unix.AF_KCM, unix.SOCK_DGRAM, 0},
		{"AF_QIPCRTR", unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0},
		{"AF_XDP", unix.AF_XDP, unix.SOCK_RAW, 0},
		{"AF_MCTP", unix.AF_MCTP, unix.SOCK_DGRAM, 0},
		{"NETLINK_XFRM", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
		{"NETLINK_NETFILTER", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		{"NETLINK_SOCK_DIAG", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG},
		{"NETLINK_AUDIT", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT},
		{"NETLINK_KOBJECT_UEVENT", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		{"NETLINK_GENERIC", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC},
		{"NETLINK_CRYPTO", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CRYPTO},
		{"NETLINK_RDMA", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_RDMA},
	} {
		add(f.name, open(f.family, f.kind, f.protocol))
	}
	option := func(what string, family, kind int, set func(fd int) error) {
		fd, err := unix.Socket(family, kind, 0)
		if err != nil {
			report("", err)
		}
		defer unix.Close(fd)
		add(what, set(fd))
	}
	for _, ulp := range []string{"tls", "espintcp"} {
		option("TCP_ULP:"+ulp, unix.AF_INET, unix.SOCK_STREAM, func(fd int) error {
			return unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP, ulp)
		})
	}
	option("UDP_ENCAP", unix.AF_INET, unix.SOCK_DGRAM, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP)
	})
	// The values are too short for a policy: a kernel with the option returns EINVAL.
	option("IP_XFRM_POLICY", unix.AF_INET, unix.SOCK_DGRAM, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_XFRM_POLICY, 0)
	})
	option("IPV6_XFRM_POLICY", unix.AF_INET6, unix.SOCK_DGRAM, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_XFRM_POLICY, 0)
	})
	report(strings.Join(out, " "), nil)
}
