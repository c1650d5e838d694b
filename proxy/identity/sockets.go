// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sockets looks sockets up in a network namespace, see sock_diag(7).
type sockets struct{ diag, route *netlink.Conn }

// socket is an open socket. The cookie is never given to another.
type socket struct {
	inode  uint32
	cookie uint64
}

// place is where a socket was found.
type place struct {
	local, remote netip.AddrPort
	link          uint32
}

func openSockets(ns *os.File) (*sockets, error) {
	if ns == nil {
		// The library would take 0 for the proxy's own namespace.
		return nil, errors.New("open netlink: no network namespace given")
	}
	s := &sockets{}
	var err error
	if s.diag, err = netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(ns.Fd())}); err != nil {
		return nil, fmt.Errorf("open sock_diag in the container's network namespace: %w", err)
	}
	if s.route, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: int(ns.Fd())}); err != nil {
		_ = s.diag.Close()
		return nil, fmt.Errorf("open rtnetlink in the container's network namespace: %w", err)
	}
	return s, nil
}

func (s *sockets) close() error { return errors.Join(s.diag.Close(), s.route.Close()) }

// find returns the socket whose own address is local and whose peer is remote.
//
// A socket bound to an interface is found only by a question for that interface,
// and one bound and one unbound socket can have the same addresses. So each
// interface is asked for, and two different answers are an error.
func (s *sockets) find(local, remote netip.AddrPort) (socket, place, error) {
	local, remote = plain(local), plain(remote)
	if !local.IsValid() || !remote.IsValid() || local.Addr().Is4() != remote.Addr().Is4() {
		return socket{}, place{}, errors.New("not a pair of addresses")
	}
	links, err := s.interfaces()
	if err != nil {
		return socket{}, place{}, err
	}
	var found socket
	var at place
	for _, link := range append(links, 0) {
		here := place{local, remote, link}
		sock, err := s.ask(here)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return socket{}, place{}, err
		case found != socket{} && found != sock:
			return socket{}, place{}, errors.New("two sockets have these addresses, at different interfaces")
		}
		found, at = sock, here
	}
	if found == (socket{}) {
		return found, at, ErrNoSocket
	}
	return found, at, nil
}

// still checks that the socket is open and where it was found.
func (s *sockets) still(sock socket, at place) error {
	now, err := s.ask(at)
	if errors.Is(err, unix.ENOENT) || err == nil && now != sock {
		return errChanged
	}
	return err
}

// plain drops what the kernel does not tell apart: zones, and IPv4 in IPv6.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// The wire format of linux/inet_diag.h: struct inet_diag_req_v2 and the part of
// struct inet_diag_msg before its attributes, with struct inet_diag_sockid in
// both.
const (
	sizeofDiagReq = 56
	offsetReqID   = 8
	sizeofDiagMsg = 72
	offsetMsgID   = 4
	offsetInode   = 68

	idSrc, idDst, idInterface, idCookie = 4, 20, 36, 40
)

// connected says whether the handshake is done and a process may still have the
// socket. The states are those of include/net/tcp_states.h.
func connected(state byte) bool {
	switch state {
	case unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2,
		unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		return true
	}
	return false
}

func (s *sockets) ask(at place) (socket, error) {
	req := netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   diagRequest(at),
	}
	msgs, err := s.diag.Execute(req)
	if err != nil {
		return socket{}, fmt.Errorf("sock_diag: %w", err)
	}
	if len(msgs) != 1 {
		return socket{}, fmt.Errorf("sock_diag: %d answers, want one", len(msgs))
	}
	return parseDiag(msgs[0].Data, at.local, at.remote)
}

func diagRequest(at place) []byte {
	b := make([]byte, sizeofDiagReq)
	// A question for IPv4 also finds sockets of the other family with IPv4 in
	// their addresses: they are in the same table.
	b[0], b[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if at.local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // in any state
	id := b[offsetReqID:]
	binary.BigEndian.PutUint16(id, at.local.Port())
	binary.BigEndian.PutUint16(id[2:], at.remote.Port())
	copy(id[idSrc:], at.local.Addr().AsSlice())
	copy(id[idDst:], at.remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[idInterface:], at.link)
	binary.NativeEndian.PutUint64(id[idCookie:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// parseDiag reads an answer and checks that it is for these addresses: the kernel
// offers a listening socket where there is no connection.
func parseDiag(b []byte, local, remote netip.AddrPort) (socket, error) {
	if len(b) < sizeofDiagMsg {
		return socket{}, fmt.Errorf("sock_diag: answer of %d bytes, want %d", len(b), sizeofDiagMsg)
	}
	id := b[offsetMsgID:]
	size := 16
	if b[0] == unix.AF_INET {
		size = 4
	}
	addr := func(at, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(id[at : at+size])
		return plain(netip.AddrPortFrom(a, binary.BigEndian.Uint16(id[port:])))
	}
	if addr(idSrc, 0) != local || addr(idDst, 2) != remote {
		return socket{}, unix.ENOENT
	}
	if !connected(b[1]) {
		return socket{}, fmt.Errorf("%w: TCP state %d", ErrNoSocket, b[1])
	}
	sock := socket{
		inode:  binary.NativeEndian.Uint32(b[offsetInode:]),
		cookie: binary.NativeEndian.Uint64(id[idCookie:]),
	}
	if sock.inode == 0 {
		return socket{}, fmt.Errorf("%w: closed by its last holder", ErrNoSocket)
	}
	return sock, nil
}

// interfaces lists the indexes of the namespace's interfaces, afresh: an engine
// may connect another network at any time.
func (s *sockets) interfaces() ([]uint32, error) {
	const sizeofIfInfo, offsetIndex = 16, 4 // struct ifinfomsg
	msgs, err := s.route.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, sizeofIfInfo),
	})
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	if len(msgs) > maxInterfaces {
		return nil, fmt.Errorf("list network interfaces: more than %d", maxInterfaces)
	}
	links := make([]uint32, 0, len(msgs)+1)
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < sizeofIfInfo {
			return nil, errors.New("list network interfaces: unexpected answer")
		}
		links = append(links, binary.NativeEndian.Uint32(m.Data[offsetIndex:]))
	}
	return links, nil
}
