// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/proxy/memory"
)

// answerGate is the server's end of an HTTP/2 connection, below the [http2.ClientConn].
// The library decodes the head of an answer, an interim answer or trailers as soon as it
// has read it, and keeps it for the handler, which may not have begun to wait for it.
// Therefore the gate counts the fields and bytes of a head before the library reads them,
// and takes the memory that exchangeCost does not cover.
//
// The gate never waits for memory: the reader of a connection serves all its streams, and
// they may be the ones that hold the memory. If there is none, the gate cancels the
// request and lets the library read the head once it has given up the stream, because it
// then drops the head after decoding it. If the library takes too long, or if the head
// goes on in further frames, the connection ends.
type answerGate struct {
	net.Conn

	ctx context.Context //nolint:containedctx // the client connection's
	// hold has the memory of all heads.
	hold *memory.Hold
	// in is used by the library's reader, out by its writer.
	in, out frameScanner
	// fields counts the fields of the head that is being read. inHead is true in a frame of
	// it, last in its last frame, and final if it ends the stream.
	fields              fieldCounter
	inHead, last, final bool
	// settings reads the server's settings.
	settings settingScanner
	// failed is why nothing more is read.
	failed error

	mu sync.Mutex
	// claims is signalled when a request has claimed its stream.
	claims sync.Cond
	// begun is the newest stream whose head was sent, claimed the newest one of which the
	// gate knows the request.
	begun, claimed uint32
	// requests are those in flight, by stream.
	requests map[uint32]*exchange
	// reading is the request whose head is being read; nil if it is not a head.
	reading *exchange
	closed  bool
}

// exchange is a request in flight over an HTTP/2 connection, and its answer.
type exchange struct {
	*h2Conn
	// cancel ends the request.
	cancel context.CancelCauseFunc
	trace  httptrace.ClientTrace

	// The rest is protected by the gate's mu. stream is 0 until the head is sent.
	stream uint32
	// heads is what the heads that were read and are kept cost, taken the memory that was
	// taken for them.
	heads, taken int64
	// finished says that the handler has ended, refused that there was no memory for a
	// head of the answer.
	finished, refused bool
	// abandoned, if it is not nil, is closed when the library gives the stream up.
	abandoned chan struct{}
}

func newAnswerGate(ctx context.Context, conn net.Conn, a *memory.Account) *answerGate {
	g := &answerGate{Conn: conn, ctx: ctx, hold: a.Hold(0), requests: map[uint32]*exchange{}}
	g.claims.L = &g.mu
	g.out.left = uint32(len(http2.ClientPreface))
	return g
}

// newExchange returns a request that is to be sent over c. The caller calls finish once it
// has ended.
func newExchange(c *h2Conn, cancel context.CancelCauseFunc) *exchange {
	x := &exchange{h2Conn: c, cancel: cancel}
	x.trace.WroteHeaders = x.claim
	return x
}

// context returns the context with which the request is sent, so that the gate learns its
// stream.
func (x *exchange) context(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &x.trace)
}

// RoundTrip sends the request, which has the context of x. If the server closed the
// connection because it got no client certificate, the error says so; the library's error
// does not.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := x.ClientConn.RoundTrip(req)
	if err != nil && x.asked != nil {
		if refused := x.asked.refused.Load(); refused != nil {
			err = refused
		}
	}
	if canceled := req.Context().Err(); err == nil && canceled != nil { // by the gate, or by others
		_ = resp.Body.Close()
		return nil, canceled
	}
	return resp, err
}

// claim notes that the last stream that was sent is the request's. The library calls it
// after each head, before it sends another.
func (x *exchange) claim() {
	g := x.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.claimed == g.begun { // the head could not be sent
		return
	}
	g.claimed = g.begun
	if !x.finished {
		x.stream = g.claimed
		g.requests[x.stream] = x
	}
	g.claims.Broadcast()
}

// end releases the memory of the request's answer.
func (x *exchange) end() {
	g := x.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	x.finished = true
	delete(g.requests, x.stream)
	if g.reading != x { // else when the head ends
		g.release(x)
	}
	x.abandon()
}

// abandon notes that the library has given the stream up. Preconditions: the gate's mu is
// held.
func (x *exchange) abandon() {
	if x.abandoned != nil {
		close(x.abandoned)
		x.abandoned = nil
	}
}

// release gives the memory of an answer back. Preconditions: g.mu is held.
func (g *answerGate) release(x *exchange) {
	g.hold.Shrink(x.taken)
	x.taken = 0
}

// Read gives the library heads for which there is memory.
func (g *answerGate) Read(p []byte) (int, error) {
	if g.failed != nil {
		return 0, g.failed
	}
	n, err := g.Conn.Read(p)
	if g.failed = g.in.scan(p[:n], g.received, g.payload); g.failed != nil {
		return 0, g.failed
	}
	return n, err
}

func (g *answerGate) Write(p []byte) (int, error) {
	_ = g.out.scan(p, g.sent, nil)
	return g.Conn.Write(p)
}

// Close ends the connection. Like the library's own for a [tls.Conn], it does not wait long
// for a server that reads nothing.
func (g *answerGate) Close() error {
	g.mu.Lock()
	g.closed = true
	g.endHead()
	g.mu.Unlock()
	if t, ok := g.Conn.(interface{ NetConn() net.Conn }); ok {
		late := time.AfterFunc(closeTime, func() { _ = t.NetConn().Close() })
		defer late.Stop()
	}
	return g.Conn.Close()
}

// sent notes a frame that the library sends.
func (g *answerGate) sent(kind http2.FrameType, _ http2.Flags, stream uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch kind {
	case http2.FrameHeaders:
		g.begun = max(g.begun, stream)
	case http2.FrameRSTStream:
		if x := g.requests[stream]; x != nil {
			delete(g.requests, stream) // the library drops further heads
			x.abandon()
		}
	default: // nothing begins or ends
	}
	return nil
}

// received notes a frame of the server.
func (g *answerGate) received(kind http2.FrameType, flags http2.Flags, stream uint32) error {
	g.inHead = kind == http2.FrameHeaders || kind == http2.FrameContinuation
	g.last = flags.Has(http2.FlagHeadersEndHeaders)
	g.settings = settingScanner{open: kind == http2.FrameSettings}
	if kind == http2.FrameContinuation {
		g.fields.frame(kind, flags, g.in.left)
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endHead()
	g.fields.frame(kind, flags, g.in.left)
	if !g.inHead {
		return nil
	}
	g.final = flags.Has(http2.FlagHeadersEndStream)
	for g.claimed < stream && stream <= g.begun {
		g.claims.Wait()
	}
	if g.reading = g.requests[stream]; g.reading == nil || g.reading.refused {
		g.reading = &exchange{finished: true} // the library drops the head
	}
	return nil
}

// endHead notes that the head that was being read has ended. Preconditions: g.mu is held.
func (g *answerGate) endHead() {
	x := g.reading
	if g.reading = nil; x == nil {
		return
	}
	x.heads = g.kept(x)
	if x.finished {
		g.release(x)
	}
}

// kept returns what the heads of an answer cost that are kept once the one that is being
// read is decoded: the answer's own and trailers, which end the stream, but no interim
// answers.
func (g *answerGate) kept(x *exchange) int64 {
	if g.final {
		return x.heads + g.fields.cost()
	}
	return max(x.heads, g.fields.cost())
}

// cost returns the memory that the fields take when they are decoded, in bytes.
func (c *fieldCounter) cost() int64 {
	return min(int64(c.fields), maxAnswerFields)*fieldCost + min(c.bytes, maxAnswerBytes)*byteCost
}

// payload takes memory for the fields in a frame's payload, and changes settings.
func (g *answerGate) payload(p []byte) error {
	if g.settings.open {
		g.settings.limit(p)
	}
	if !g.inHead {
		return nil
	}
	g.fields.scan(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.reading
	if g.closed || x == nil { // no head begins with CONTINUATION: the library ends the connection
		return nil
	}
	if more := g.kept(x) - usualHeadCost - x.taken; more > 0 && !x.refused {
		if !g.hold.Try(more) {
			return g.refuse(x)
		}
		x.taken += more
	}
	if g.last && g.in.left == 0 {
		g.endHead()
	}
	return nil
}

// refuse ends a request for whose answer there is no memory, and waits until the library
// has given its stream up. An error ends the connection. Preconditions: g.mu is held, which
// refuse releases while it waits.
func (g *answerGate) refuse(x *exchange) error {
	if !g.last { // the library would keep what it has of the head
		return memory.ErrExhausted
	}
	defer g.endHead() // the rest of the frame is not counted
	x.refused = true
	if x.finished {
		return nil
	}
	abandoned := make(chan struct{})
	x.abandoned = abandoned
	g.mu.Unlock()
	defer g.mu.Lock()
	x.cancel(memory.ErrExhausted)
	late := time.NewTimer(refusalTime)
	defer late.Stop()
	select {
	case <-abandoned:
		return nil
	case <-g.ctx.Done():
	case <-late.C:
	}
	return memory.ErrExhausted
}

// settingScanner reads the payload of a SETTINGS frame.
type settingScanner struct {
	open bool
	// at is the position in a setting of six bytes, and id its first two.
	at int
	id uint16
}

// limit replaces the largest frame that the server accepts by [frameSize], which every
// server accepts. The library reads each request's body with a buffer of that size, of up
// to 512 KiB.
func (s *settingScanner) limit(p []byte) {
	const idSize, size = 2, 6
	for i := range p {
		switch {
		case s.at < idSize:
			s.id = s.id<<8 | uint16(p[i])
		case s.id == uint16(http2.SettingMaxFrameSize):
			p[i] = byte(uint32(frameSize) >> (8 * (size - 1 - s.at)))
		}
		s.at = (s.at + 1) % size
	}
}
