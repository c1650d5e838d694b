// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Packet is a packet that arrived on one of the host's links.
type Packet struct {
	// Proto is the number of the IP protocol.
	Proto    byte
	From, To netip.AddrPort
	// Data begins with the transport header. The end of a long packet is cut off.
	Data []byte
}

func (p Packet) String() string { return fmt.Sprintf("protocol %d %s → %s", p.Proto, p.From, p.To) }

// maxPacket is how many bytes of one packet are kept.
const maxPacket = 512

// sniffer opens a socket that receives all packets in the thread's namespace.
func sniffer() (int, error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
	)
	return fd, err
}

type closer chan struct{}

func (c closer) Close() error {
	close(c)
	return nil
}

func (h *Host) sniff(fd int) {
	defer unix.Close(fd)
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		select {
		case <-h.stop:
			return
		default:
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING || ll.Ifindex == 1 {
			continue
		}
		if p, ok := parse(buf[:n]); ok && !housekeeping(p) {
			h.mu.Lock()
			keep(&h.packets, p)
			h.mu.Unlock()
		}
	}
}

func parse(b []byte) (p Packet, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		p.Proto = b[9]
		b = b[min(int(b[0]&15)*4, len(b)):]
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		p.Proto = b[6]
		if b = b[40:]; p.Proto == 0 && len(b) > 8 { // hop-by-hop options, of MLD
			p.Proto, b = b[0], b[8+int(b[1])*8:]
		}
	default:
		return p, false
	}
	var ports [2]uint16
	if slices.Contains([]byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}, p.Proto) && len(b) >= 4 {
		ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
	p.From, p.To = netip.AddrPortFrom(src, ports[0]), netip.AddrPortFrom(dst, ports[1])
	p.Data = bytes.Clone(b[:min(len(b), maxPacket)])
	return p, true
}

// housekeeping reports whether a packet is part of the kernels' own traffic: neighbour
// discovery and multicast memberships.
func housekeeping(p Packet) bool {
	if p.Proto == unix.IPPROTO_IGMP {
		return true
	}
	return p.Proto == unix.IPPROTO_ICMPV6 && len(p.Data) > 0 && (p.Data[0] >= 130 && p.Data[0] <= 137 || p.Data[0] == 143)
}

// Arrived returns the first packets of conversations that reached the host: of TCP
// connections, and every packet that is not TCP.
func (h *Host) Arrived() (out []Packet) {
	const syn, ack = 2, 16
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.packets {
		if p.Proto != unix.IPPROTO_TCP || len(p.Data) > 13 && p.Data[13]&(syn|ack) == syn {
			out = append(out, p)
		}
	}
	return out
}

// Saw reports whether any packet that arrived contained text.
func (h *Host) Saw(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.packets, func(p Packet) bool { return bytes.Contains(p.Data, []byte(text)) })
}
