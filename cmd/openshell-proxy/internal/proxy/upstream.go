// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/memory"
	"openshell.dev/runtime/policy"
)

// upstreamHTTP is the other side of one client connection: reached when first
// needed, kept, and reached again when it has ended. Both legs speak the same
// version of HTTP, so that a request is never translated.
type upstreamHTTP struct {
	c  *connection
	to target

	mu sync.Mutex
	// tcp is a connection that was reached and is not used yet.
	tcp net.Conn
	// early is why the other side could not be had when TLS began, told to the
	// first request.
	early error
	h1    *upConn
	h2    *http2.ClientConn
	// window is how many bytes the other side may send over HTTP/2 before they are
	// read; the account holds them. transport makes connections with this window.
	window    int64
	transport *http2.Transport
}

// upConn is an HTTP/1 connection to the other side.
type upConn struct {
	conn  net.Conn
	limit *headReader
	br    *bufio.Reader
	// answered says that it has served a request.
	answered bool
	// resting says that br has no buffer to speak of.
	resting bool
}

func newUpstreamHTTP(c *connection, to target, tcp net.Conn) *upstreamHTTP {
	return &upstreamHTTP{c: c, to: to, tcp: tcp}
}

// protocols is what the client is offered of what it offers: what the other side
// chose of it.
func (u *upstreamHTTP) protocols(ctx context.Context, dec policy.Decision, offered []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	alpn := known(offered)
	if !slices.Contains(alpn, "http/1.1") {
		alpn = append(alpn, "http/1.1")
	}
	conn, proto, err := u.connect(ctx, dec, alpn)
	if err != nil {
		u.early = err
		return known(offered)
	}
	if proto == "h2" {
		if u.h2, err = u.newHTTP2(ctx, conn); err != nil {
			u.early = err
		}
		return []string{"h2"}
	}
	u.h1 = newUpConn(conn)
	if slices.Contains(offered, "http/1.1") {
		return []string{"http/1.1"}
	}
	return nil
}

// connect reaches the other side and says what it speaks.
func (u *upstreamHTTP) connect(ctx context.Context, dec policy.Decision, alpn []string) (net.Conn, string, error) {
	conn := u.tcp
	u.tcp = nil
	if conn == nil {
		var err error
		if conn, err = u.c.dial(ctx, u.to, dec); err != nil {
			return nil, "", err
		}
	}
	if !u.to.tls {
		return conn, "http/1.1", nil
	}
	config := u.c.s.tls.Clone()
	config.RootCAs = u.c.s.c.Roots()
	config.ServerName, config.NextProtos = u.to.host, alpn
	t := tls.Client(conn, config)
	hctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(hctx); err != nil {
		return nil, "", errors.Join(fmt.Errorf("TLS with %s: %w", u.to, err), conn.Close())
	}
	return t, t.ConnectionState().NegotiatedProtocol, nil
}

func newUpConn(conn net.Conn) *upConn {
	limit := &headReader{r: conn}
	return &upConn{conn: conn, limit: limit, br: bufio.NewReaderSize(limit, upstreamBuffer)}
}

// headReader reads from the other side. Within the head of an answer it takes memory for
// the bytes that it has read before it reads more.
type headReader struct {
	r io.Reader
	// head is true while an answer's head is read; hold is that of the request.
	head bool
	hold *memory.Hold
	// left is how many more bytes the head may have; lines and taken are its lines so
	// far and the bytes of memory that were taken for them.
	left         int
	lines, taken int64
}

// begin notes that an answer's head of at most [MaxResponseHead] bytes is read next, and
// end that a body is.
func (h *headReader) begin(hold *memory.Hold) {
	*h = headReader{r: h.r, head: true, hold: hold, left: MaxResponseHead, taken: usualFields*fieldCost + usualHead*byteCost}
}

func (h *headReader) end() { h.head = false }

func (h *headReader) Read(p []byte) (int, error) {
	if !h.head {
		return h.r.Read(p)
	}
	if h.left == 0 {
		return 0, io.EOF
	}
	if cost := h.lines*fieldCost + int64(MaxResponseHead-h.left)*byteCost; cost > h.taken {
		if !h.hold.Try(cost - h.taken) {
			return 0, memory.ErrExhausted
		}
		h.taken = cost
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	h.lines += int64(bytes.Count(p[:n], []byte("\n")))
	return n, err
}

// quiet says that nothing has come since the last answer: no end, and no answer
// that nobody asked for, which the next request would get.
func (c *upConn) quiet() bool {
	conn := c.conn
	if t, ok := conn.(*tls.Conn); ok {
		// TLS reads more than it gives out. With its time over, it gives what it has
		// and asks nobody; half a record is as one that is still on its way.
		_ = t.SetReadDeadline(past)
		_, err := c.br.Peek(1)
		_ = t.SetReadDeadline(time.Time{})
		if !timedOut(err) {
			return false
		}
		conn = t.NetConn()
	} else if c.br.Buffered() > 0 {
		return false
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// http1 is a connection for one request; idle says that it was there before and
// may have ended meanwhile.
func (u *upstreamHTTP) http1(ctx context.Context, dec policy.Decision) (c *upConn, idle bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.early; err != nil {
		u.early = nil
		return nil, false, err
	}
	if u.h1 != nil && (!u.h1.answered || u.h1.quiet()) {
		u.h1.wake()
		return u.h1, true, nil
	}
	u.dropLocked()
	conn, _, err := u.connect(ctx, dec, []string{"http/1.1"})
	if err != nil {
		return nil, false, err
	}
	u.h1 = newUpConn(conn)
	return u.h1, false, nil
}

// rest lets the buffer of a connection go that has nothing in it.
func (u *upstreamHTTP) rest() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.h1 != nil && u.h1.br.Buffered() == 0 {
		u.h1.br = bufio.NewReaderSize(u.h1.limit, 0) // the smallest
		u.h1.resting = true
	}
}

// wake gives the connection its buffer back.
func (c *upConn) wake() {
	if c.resting && c.br.Buffered() == 0 {
		c.br, c.resting = bufio.NewReaderSize(c.limit, upstreamBuffer), false
	}
}

// drop ends the HTTP/1 connection.
func (u *upstreamHTTP) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dropLocked()
}

func (u *upstreamHTTP) dropLocked() {
	if u.h1 != nil {
		_ = u.h1.conn.Close()
		u.h1 = nil
	}
}

// http2 is a connection that takes one more request.
func (u *upstreamHTTP) http2(ctx context.Context, dec policy.Decision) (*http2.ClientConn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.early; err != nil {
		u.early = nil
		return nil, err
	}
	if u.h2 != nil && u.h2.CanTakeNewRequest() {
		return u.h2, nil
	}
	conn, proto, err := u.connect(ctx, dec, []string{"h2"})
	if err != nil {
		return nil, err
	}
	if proto != "h2" {
		return nil, errors.Join(fmt.Errorf("%s does not speak HTTP/2 any more", u.to), conn.Close())
	}
	u.h2, err = u.newHTTP2(ctx, conn)
	return u.h2, err
}

// downloadWindows are how many bytes the other side may send over one HTTP/2 connection
// before they are read. A larger window is faster over long distances and takes more
// memory for a client that does not read. A connection gets the largest one that leaves
// half of the budget free, and at least the last.
var downloadWindows = []int64{8 << 20, 1 << 20, 2 * uploadWindow}

// http2Transports make connections with one of downloadWindows each; they keep none.
var http2Transports = func() (all []*http2.Transport) {
	for _, window := range downloadWindows {
		t, err := http2.ConfigureTransports(&http.Transport{HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: int(window) - uploadWindow, // which is added to the protocol's first window
			MaxReceiveBufferPerStream:     int(window / 2),
		}})
		if err != nil { // of a new transport: cannot be
			panic(err)
		}
		t.DisableCompression, t.MaxHeaderListSize, t.MaxReadFrameSize = true, MaxResponseHead, frameSize
		t.ReadIdleTimeout, t.WriteByteTimeout = 30*time.Second, 30*time.Second
		all = append(all, t)
	}
	return all
}()

// newHTTP2 begins HTTP/2 with as large a window as the memory allows. Preconditions:
// u.mu is held.
func (u *upstreamHTTP) newHTTP2(ctx context.Context, conn net.Conn) (*http2.ClientConn, error) {
	if u.transport == nil {
		if err := u.takeWindow(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	c, err := u.transport.NewClientConn(conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin HTTP/2: %w", err), conn.Close())
	}
	return c, nil
}

// takeWindow takes the memory for a window. Preconditions: u.mu is held.
func (u *upstreamHTTP) takeWindow(ctx context.Context) error {
	b, last := u.c.s.memory, len(downloadWindows)-1
	i := slices.IndexFunc(downloadWindows[:last], func(window int64) bool {
		return b.Used()+window <= b.Limit()/2 && u.c.account.Try(window)
	})
	if i < 0 {
		i = last
		if err := u.c.account.Take(ctx, downloadWindows[last]); err != nil {
			return err
		}
	}
	u.window, u.transport = downloadWindows[i], http2Transports[i]
	return nil
}

func (u *upstreamHTTP) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.c.account.Release(u.window)
	u.window, u.transport = 0, nil
	u.dropLocked()
	if u.tcp != nil {
		_ = u.tcp.Close()
	}
	if u.h2 != nil {
		_ = u.h2.Close()
	}
}
