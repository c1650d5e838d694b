// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotOwn means that an address is not one of the container's.
	ErrNotOwn = errors.New("not an address of the container")
	// ErrBroken means that the guard's connection for sockets cannot be used any longer.
	ErrBroken = errors.New("the guard's connection for sockets is broken")
)

// numberSize is the size of a request's number, in bytes. A request is its number (big
// endian) and the text of an address. The answer is the same number and one of the bytes
// below.
const numberSize = 4

// Answers to a request for a socket. With socketMade comes the socket.
const (
	socketMade = 'y'
	socketNone = 'n'
)

// maxAddress bounds the text of an address, in bytes.
const maxAddress = 64

// serveSockets gives a worker sockets until the worker ends.
func (g *Guard) serveSockets(conn *net.UnixConn) {
	defer conn.Close()
	b := make([]byte, numberSize+maxAddress)
	for {
		n, err := conn.Read(b)
		if err != nil || n < numberSize {
			return
		}
		answer, rights := byte(socketNone), []byte(nil)
		fd, err := g.ownSocket(string(b[numberSize:n]))
		if err == nil {
			answer, rights = socketMade, unix.UnixRights(fd)
		}
		_, _, err = conn.WriteMsgUnix(append(b[:numberSize:numberSize], answer), rights, nil)
		if answer == socketMade {
			_ = unix.Close(fd)
		}
		if err != nil {
			return
		}
	}
}

// ownSocket makes a TCP socket in the container's network namespace that is bound to an
// address of the container. The socket has no mark, so that it leads to the container's
// own servers, or to the proxy, which serves no connection of a process outside the
// container.
func (g *Guard) ownSocket(text string) (fd int, err error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return -1, ErrNotOwn
	}
	err = within(g.Netns, func() error {
		family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.As16()})
		if addr.Is4() {
			family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
		}
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		// The port is chosen as the socket connects.
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, at)
		}
		if err != nil {
			_ = unix.Close(fd)
		}
		return err
	})
	return fd, err
}

// within runs f in a network namespace.
func within(ns *os.File, f func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if err := netns.Set(netns.NsHandle(ns.Fd())); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the container's network namespace: %w", err)
	}
	err = f()
	if back := netns.Set(own); back != nil {
		return errors.Join(err, back) // the thread ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// Sockets asks the guard for sockets in the container's network namespace. It is safe for
// use by many goroutines.
type Sockets struct {
	timeout time.Duration
	broken  func(error)

	mu   sync.Mutex
	conn *net.UnixConn
	last uint32 // the number of the last request
}

// NewSockets asks over conn, the worker's end. broken is called with an error that wraps
// ErrBroken when conn fails: no later request can succeed then.
func NewSockets(conn *net.UnixConn, broken func(error)) *Sockets {
	return &Sockets{conn: conn, broken: broken, timeout: socketTimeout}
}

// Open returns a TCP socket that is bound to addr and not connected, or an error that
// wraps ErrNotOwn if addr is not one of the container's. An error that wraps
// os.ErrDeadlineExceeded says that the guard is late; the next request may succeed.
func (s *Sockets) Open(addr netip.Addr) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	s.last++
	request := binary.BigEndian.AppendUint32(nil, s.last)
	if _, err := s.conn.Write(append(request, addr.String()...)); err != nil {
		return nil, s.failed(err)
	}
	for {
		var answer [numberSize + 1]byte
		rights := make([]byte, unix.CmsgSpace(4))
		n, control, _, _, err := s.conn.ReadMsgUnix(answer[:], rights)
		if err != nil {
			return nil, s.failed(err)
		}
		f, err := receivedFile(rights[:control])
		switch {
		case n != len(answer):
			closeFile(f)
			return nil, s.failed(fmt.Errorf("an answer of %d bytes", n))
		case binary.BigEndian.Uint32(answer[:]) != s.last:
			closeFile(f) // the answer to a request that timed out
		case answer[numberSize] != socketMade:
			closeFile(f)
			return nil, fmt.Errorf("%s: %w", addr, ErrNotOwn)
		default:
			return f, err
		}
	}
}

// failed reports a broken connection, and returns the error of the request.
func (s *Sockets) failed(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
		s.broken(err)
	}
	return fmt.Errorf("ask the guard for a socket: %w", err)
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// receivedFile returns the one descriptor of a control message.
func receivedFile(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, errors.New("ask the guard for a socket: no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("ask the guard for a socket: no descriptor came")
	}
	return os.NewFile(uintptr(fds[0]), "own"), nil
}
