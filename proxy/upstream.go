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
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
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
	h2    *h2Conn
}

// h2Conn is an HTTP/2 connection to the other side.
type h2Conn struct {
	*http2.ClientConn
	gate *answerGate
	// window is an index of downloadWindows. The account holds that window while
	// requests, the number of requests in flight, is not 0.
	window   int
	requests atomic.Int64
	// replaced says that new requests go over another connection.
	replaced atomic.Bool
	// asked is the connection if the server has asked for a client certificate, else nil.
	asked *askedConn
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
		if u.h2, err = u.newHTTP2(conn, u.freeWindow(0)); err != nil {
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
	config := u.c.sandbox.tls.Clone()
	config.RootCAs = u.c.sandbox.config.Roots()
	config.ServerName, config.NextProtos = u.to.host, alpn
	asked := false
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &tls.Certificate{}, nil // none
	}
	t := tls.Client(conn, config)
	hctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(hctx); err != nil {
		if asked {
			err = &certificateError{err}
		}
		return nil, "", &connectError{errors.Join(fmt.Errorf("TLS with %s: %w", u.to, err), conn.Close())}
	}
	if asked {
		return &askedConn{Conn: t}, t.ConnectionState().NegotiatedProtocol, nil
	}
	return t, t.ConnectionState().NegotiatedProtocol, nil
}

func newUpConn(conn net.Conn) *upConn {
	limit := &headReader{r: conn}
	return &upConn{conn: conn, limit: limit, br: bufio.NewReaderSize(limit, upstreamBuffer)}
}

var errHeadTooLong = fmt.Errorf("the head of the server's answer is longer than %d KiB", MaxResponseHead>>10)

// headReader reads from the other side. Within the head of an answer it takes memory for
// the bytes that it has read before it reads more.
type headReader struct {
	r io.Reader
	// pushed are bytes that are read before those of r.
	pushed []byte
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
	*h = headReader{r: h.r, pushed: h.pushed, head: true, hold: hold, left: MaxResponseHead, taken: usualHeadCost}
}

func (h *headReader) end() { h.head = false }

func (h *headReader) Read(p []byte) (int, error) {
	if len(h.pushed) > 0 {
		n := copy(p, h.pushed)
		if h.pushed = h.pushed[n:]; len(h.pushed) == 0 {
			h.pushed = nil
		}
		return n, nil
	}
	if !h.head {
		return h.r.Read(p)
	}
	if h.left == 0 {
		return 0, errHeadTooLong
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

// readAnswer reads the head of an answer, of at most [MaxResponseHead] bytes.
func (c *upConn) readAnswer(req *http.Request, hold *memory.Hold) (*http.Response, error) {
	c.limit.begin(hold)
	defer c.limit.end()
	clean, err := inspect.CleanAnswer(c.br)
	if clean != nil {
		early, _ := c.br.Peek(c.br.Buffered())
		c.limit.pushed = slices.Concat(clean, early, c.limit.pushed)
		c.br.Reset(c.limit)
	}
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(c.br, req)
	}
	if err != nil && !connectionFailed(err) {
		err = &answerError{err}
	}
	return resp, err
}

// connectionFailed reports whether an error comes from the connection or the memory budget,
// and not from the bytes that were received.
func connectionFailed(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || timedOut(err) || errors.Is(err, net.ErrClosed) || errors.Is(err, memory.ErrExhausted)
}

// quiet says that nothing has come since the last answer: no end, and no answer
// that nobody asked for, which the next request would get.
func (c *upConn) quiet() bool {
	if len(c.limit.pushed) > 0 {
		return false
	}
	conn := c.conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		// TLS reads more than it gives out. With its time over, it gives what it has
		// and asks nobody; half a record is as one that is still on its way.
		_ = conn.SetReadDeadline(past)
		_, err := c.br.Peek(1)
		_ = conn.SetReadDeadline(time.Time{})
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
	if u.h1 != nil && u.h1.br.Buffered() == 0 && len(u.h1.limit.pushed) == 0 {
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

// http2 returns a request over HTTP/2 that cancel ends. The caller calls finish once it has
// ended.
func (u *upstreamHTTP) http2(ctx context.Context, cancel context.CancelCauseFunc, dec policy.Decision) (*exchange, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.early; err != nil {
		u.early = nil
		return nil, err
	}
	first, usable := 0, u.h2 != nil && u.h2.CanTakeNewRequest()
	if usable {
		if u.h2.join() {
			return newExchange(u.h2, cancel), nil
		}
		first = u.h2.window
	}
	window, err := u.takeWindow(ctx, first)
	if err != nil {
		return nil, err
	}
	if !usable || window != u.h2.window {
		if err := u.replaceHTTP2(ctx, dec, window); err != nil {
			u.c.account.Release(downloadWindows[window].size)
			return nil, err
		}
	}
	u.h2.requests.Add(1)
	return newExchange(u.h2, cancel), nil
}

// join adds a request to those in flight. It returns false if there are none.
func (c *h2Conn) join() bool {
	for {
		n := c.requests.Load()
		if n == 0 {
			return false
		}
		if c.requests.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// finish notes that a request has ended. The last one of a connection gives the window back
// and closes the connection if it was replaced. A nil x is ignored.
func (u *upstreamHTTP) finish(x *exchange) {
	if x == nil {
		return
	}
	x.end()
	c := x.h2Conn
	if c.requests.Add(-1) > 0 {
		return
	}
	u.c.account.Release(downloadWindows[c.window].size)
	if c.replaced.Load() && c.requests.Load() == 0 {
		_ = c.Close()
	}
}

// replaceHTTP2 connects with a window. Preconditions: u.mu is held.
func (u *upstreamHTTP) replaceHTTP2(ctx context.Context, dec policy.Decision, window int) error {
	if old := u.h2; old != nil {
		u.h2 = nil
		old.replaced.Store(true)
		if old.requests.Load() == 0 {
			_ = old.Close()
		}
	}
	conn, proto, err := u.connect(ctx, dec, []string{"h2"})
	if err != nil {
		return err
	}
	if proto != "h2" {
		return errors.Join(fmt.Errorf("%s does not speak HTTP/2 any more", u.to), conn.Close())
	}
	u.h2, err = u.newHTTP2(conn, window)
	return err
}

// downloadWindows are how many bytes the other side may send over one HTTP/2 connection
// before they are read. A larger window is faster over long distances and takes more
// memory for a client that does not read. A connection gets the first one that leaves
// the given part of the budget free, one in leaves bytes, or else the last.
var downloadWindows = []struct{ size, leaves int64 }{
	{8 << 20, 2},
	{1 << 20, 4},
	{size: 2 * uploadWindow},
}

// http2Transports make connections with one of downloadWindows each; they keep none.
var http2Transports = func() (all []*http2.Transport) {
	for _, w := range downloadWindows {
		t, err := http2.ConfigureTransports(&http.Transport{HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: int(w.size) - uploadWindow, // which is added to the protocol's first window
			MaxReceiveBufferPerStream:     int(w.size / 2),
		}})
		if err != nil { // of a new transport: cannot be
			panic(err)
		}
		t.DisableCompression, t.MaxHeaderListSize, t.MaxReadFrameSize = true, maxResponseHead2, frameSize
		t.ReadIdleTimeout, t.WriteByteTimeout = 30*time.Second, 30*time.Second
		all = append(all, t)
	}
	return all
}()

// newHTTP2 begins HTTP/2 on conn with one of downloadWindows.
func (u *upstreamHTTP) newHTTP2(conn net.Conn, window int) (*h2Conn, error) {
	gate := newAnswerGate(u.c.ctx, conn, u.c.account)
	c, err := http2Transports[window].NewClientConn(gate)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin HTTP/2: %w", err), gate.Close())
	}
	asked, _ := conn.(*askedConn)
	return &h2Conn{ClientConn: c, gate: gate, window: window, asked: asked}, nil
}

// freeWindow returns the first of downloadWindows, from the given one on, for which
// there is memory, or the last.
func (u *upstreamHTTP) freeWindow(from int) int {
	b, last := u.c.server.memory, len(downloadWindows)-1
	for ; from < last; from++ {
		if w := downloadWindows[from]; b.Used()+w.size <= b.Limit()-b.Limit()/w.leaves {
			break
		}
	}
	return from
}

// takeWindow takes the memory for one of downloadWindows, the given one or a smaller
// one, and returns its index.
func (u *upstreamHTTP) takeWindow(ctx context.Context, from int) (int, error) {
	last := len(downloadWindows) - 1
	for i := u.freeWindow(from); i < last; i = u.freeWindow(i + 1) {
		if u.c.account.Try(downloadWindows[i].size) {
			return i, nil
		}
	}
	return last, u.c.account.Take(ctx, downloadWindows[last].size)
}

func (u *upstreamHTTP) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dropLocked()
	if u.tcp != nil {
		_ = u.tcp.Close()
	}
	if u.h2 != nil {
		_ = u.h2.Close()
	}
}
