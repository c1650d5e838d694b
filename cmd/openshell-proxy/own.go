// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/proxy/guard"
)

const (
	// ownTimeout bounds a connection to a server in the container itself.
	ownTimeout = 5 * time.Second
	// maxOwnDials bounds such connections that are being made.
	maxOwnDials = 16
)

// proxyPorts lead to the proxy in the container's network namespace.
var proxyPorts = []uint16{proxyapi.PortProxy, proxyapi.PortDNS, proxyapi.PortDomain}

// own reaches the container's own addresses, by sockets in its network namespace.
type own struct {
	sockets *guard.Sockets
	slots   chan struct{}
}

// newOwn uses the guard's socket fd. broken is called if it fails.
func newOwn(fd uintptr, broken func(error)) (*own, error) {
	f := os.NewFile(fd, "sockets")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use the guard's socket: %w", err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("use the guard's socket: it is no unix socket")
	}
	return &own{guard.NewSockets(c, broken), make(chan struct{}, maxOwnDials)}, nil
}

// Is reports whether addr is one of the container's.
func (o *own) Is(addr netip.Addr) bool {
	f, err := o.sockets.Open(addr)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// Dial connects to a server in the container itself, never to the proxy.
func (o *own) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if slices.Contains(proxyPorts, to.Port()) {
		return nil, fmt.Errorf("port %d of the container is the proxy's", to.Port())
	}
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, err := o.sockets.Open(to.Addr())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return connectOwn(ctx, f, to)
}

// connectOwn connects the socket f, which does not block.
func connectOwn(ctx context.Context, f *os.File, to netip.AddrPort) (net.Conn, error) {
	at := unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
	if to.Addr().Is4() {
		at = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	_ = f.SetWriteDeadline(time.Now().Add(ownTimeout))
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Connect(int(fd), at)
		if errors.Is(failed, unix.EISCONN) {
			failed = nil
		}
		return !errors.Is(failed, unix.EINPROGRESS) && !errors.Is(failed, unix.EALREADY)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("connect to %s in the container: %w", to, err)
	}
	return net.FileConn(f)
}
