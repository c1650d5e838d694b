// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/memory"
)

var (
	errOwed   = errors.New("HTTP/2: the client does not read the answers to its frames")
	errResets = errors.New("HTTP/2: the client resets streams faster than they end")
)

// streamGate is the client's end of an HTTP/2 connection, below the [http2.Server].
// The server reads a request's head before it calls the handler, and it keeps the
// head for as long as the handler runs, which may wait for a client that reads
// nothing. Therefore the gate looks at the frames' headers, and the server reads the
// first frame of a stream only once there is memory for the stream.
//
// A stream's memory belongs to the gate at first (pending), then to the handler (from
// begin to end), and to the gate again (left) if the stream outlives the handler: the
// server keeps the head until the client has taken the answer. The gate does not know
// which handler serves which stream, and some streams have no handler of ours: the
// server itself answers a malformed request. The gate therefore only counts: it holds
// the memory of one stream for each open stream, and for each handler whose stream has
// ended.
type streamGate struct {
	*tls.Conn

	ctx context.Context //nolint:containedctx // the connection's
	s   *Server
	a   *memory.Account
	// refused records that the gate ends the connection, and why.
	refused func(error)
	// in is used by the server's reader, out by its writer.
	in, out frameScanner

	mu sync.Mutex
	// open has each stream that the server has not answered in full and that neither
	// side has reset, with the bytes that it holds beside [streamCost]; last is the
	// newest stream.
	open map[uint32]int64
	last uint32
	// pending is the number of streams that have memory and no handler yet, running
	// the number of handlers.
	pending, running int
	// left has the bytes of each stream that is open and whose handler has ended.
	left []int64
	// refusals is how many of the pending streams will be refused.
	refusals int
	// owed is the number of control frames that the server has yet to write.
	owed int
	// done is signalled when a handler ends.
	done chan struct{}
	// failed is why nothing more is read.
	failed error
}

func newStreamGate(ctx context.Context, c *connection, conn *tls.Conn, refused func(error)) *streamGate {
	g := &streamGate{Conn: conn, ctx: ctx, s: c.s, a: c.account, refused: refused, open: map[uint32]int64{}, done: make(chan struct{}, 1)}
	g.in.left = uint32(len(http2.ClientPreface))
	return g
}

// Read gives the server frames for which there is memory.
func (g *streamGate) Read(p []byte) (int, error) {
	if g.failed != nil {
		return 0, g.failed
	}
	n, err := g.Conn.Read(p)
	if g.failed = g.in.scan(p[:n], g.received); g.failed != nil {
		g.refused(g.failed)
		return 0, g.failed
	}
	return n, err
}

func (g *streamGate) Write(p []byte) (int, error) {
	_ = g.out.scan(p, g.sent)
	return g.Conn.Write(p)
}

// received notes a frame that the client has sent.
func (g *streamGate) received(kind http2.FrameType, flags http2.Flags, stream uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, open := g.open[stream]
	switch kind {
	case http2.FrameHeaders:
		switch {
		case stream > g.last:
			g.last = stream
			if len(g.open) < MaxStreams { // otherwise the server refuses the stream
				return g.admit(stream)
			}
			return g.owe()
		case open:
			return g.trailers(stream)
		}
		return g.owe()
	case http2.FrameRSTStream:
		g.close(stream)
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			return g.owe()
		}
	case http2.FrameData:
		if !open {
			return g.owe()
		}
	default: // the server keeps nothing of the frame, or it belongs to a head
	}
	return nil
}

// sent notes a frame that the server has sent.
func (g *streamGate) sent(kind http2.FrameType, flags http2.Flags, stream uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case kind == http2.FrameRSTStream, kind == http2.FramePing && flags.Has(http2.FlagPingAck):
		g.owed = max(g.owed-1, 0)
	case (kind == http2.FrameHeaders || kind == http2.FrameData) && flags.Has(http2.FlagDataEndStream):
	default:
		return nil
	}
	g.close(stream)
	return nil
}

// owe notes that the server answers a frame with a control frame, which it keeps
// until the client reads it.
func (g *streamGate) owe() error {
	if g.owed++; g.owed > maxOwed {
		return errOwed
	}
	return nil
}

// admit takes the memory for a new stream. Preconditions: g.mu is held, which admit
// releases while it waits.
func (g *streamGate) admit(stream uint32) error {
	if g.holders() >= MaxStreams {
		if err := g.awaitHandlers(); err != nil {
			return err
		}
	}
	if !g.a.Try(streamCost) {
		g.mu.Unlock()
		err := g.a.Take(g.ctx, streamCost)
		if err != nil {
			err = g.s.takeRefusal(g.ctx, g.a)
			g.mu.Lock()
			if err != nil {
				return err
			}
			g.refusals++
		} else {
			g.mu.Lock()
		}
	}
	g.pending++
	g.open[stream] = 0
	return nil
}

// awaitHandlers waits for the end of handlers that go on although the client has reset
// their streams. Preconditions: g.mu is held, which awaitHandlers releases while it
// waits.
func (g *streamGate) awaitHandlers() error {
	ctx, cancel := context.WithTimeout(g.ctx, memory.Patience)
	defer cancel()
	for g.holders() >= MaxStreams {
		g.mu.Unlock()
		select {
		case <-g.done:
		case <-ctx.Done():
		}
		g.mu.Lock()
		if ctx.Err() != nil {
			return errResets
		}
	}
	return nil
}

// trailers takes the memory for a stream's trailers until the stream ends.
// Preconditions: g.mu is held.
func (g *streamGate) trailers(stream uint32) error {
	if !g.a.Try(maxHeadCost) {
		return memory.ErrExhausted
	}
	g.open[stream] += maxHeadCost
	return nil
}

// close notes that a stream has ended. Preconditions: g.mu is held.
func (g *streamGate) close(stream uint32) {
	more, ok := g.open[stream]
	if !ok {
		return
	}
	delete(g.open, stream)
	g.a.Release(more + g.surplus())
}

// holders returns how many streams and handlers have memory. Preconditions: g.mu is
// held.
func (g *streamGate) holders() int { return g.pending + g.running + len(g.left) }

// surplus gives up the memory that no stream needs and returns how many bytes that is,
// which the caller releases. Preconditions: g.mu is held.
func (g *streamGate) surplus() (n int64) {
	for g.holders() > len(g.open) && len(g.left) > 0 {
		last := len(g.left) - 1
		n += g.left[last]
		g.left = g.left[:last]
	}
	for g.holders() > len(g.open) && g.pending > 0 {
		n += streamCost
		g.drop(1)
	}
	return n
}

// drop counts n pending streams less: they will have no handler. Preconditions: g.mu is
// held.
func (g *streamGate) drop(n int) {
	g.pending -= n
	for g.refusals > g.pending {
		g.refusals--
		g.s.giveRefusal()
	}
}

// finish releases the memory of all streams that are left. Preconditions: the server
// has ended.
func (g *streamGate) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var more int64
	for _, n := range g.open {
		more += n
	}
	clear(g.open)
	g.a.Release(more + g.surplus())
}

// begin gives a handler its memory. If refused is true the handler must refuse the
// request.
func (g *streamGate) begin() (hold *memory.Hold, refused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running++
	if g.pending == 0 { // the stream has ended before its handler began
		g.a.Force(streamCost)
		return g.a.Hold(streamCost), false
	}
	g.pending--
	if refused = g.refusals > 0; refused {
		g.refusals--
	}
	return g.a.Hold(streamCost), refused
}

// end notes that a handler has ended, and takes its memory back.
func (g *streamGate) end(hold *memory.Hold, refused bool) {
	if refused {
		g.s.giveRefusal()
	}
	g.mu.Lock()
	g.running--
	if g.holders() < len(g.open) {
		g.left = append(g.left, hold.Take())
	}
	g.mu.Unlock()
	hold.Release()
	select {
	case g.done <- struct{}{}:
	default:
	}
}

// takeRefusal takes one of the [maxRefusals] places in which a request is read and
// refused. Their memory is not part of the budget. It waits at most [refusalTime]; the
// error is [memory.ErrExhausted].
func (s *Server) takeRefusal(ctx context.Context, a *memory.Account) error {
	late := time.NewTimer(refusalTime)
	defer late.Stop()
	select {
	case s.refusals <- struct{}{}:
		a.Force(streamCost)
		return nil
	case <-ctx.Done():
	case <-late.C:
	}
	return memory.ErrExhausted
}

// giveRefusal gives a place back.
func (s *Server) giveRefusal() { <-s.refusals }

// frameScanner finds the headers of HTTP/2 frames in a stream of bytes.
type frameScanner struct {
	head [9]byte
	have int
	// left is how many bytes of the payload, or of the preface, are still to come.
	left uint32
}

// scan reads the next bytes of the stream and calls each for each frame whose header is
// complete, until each returns an error.
func (f *frameScanner) scan(p []byte, each func(http2.FrameType, http2.Flags, uint32) error) error {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(uint32(len(p)), f.left)
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < len(f.head) {
			return nil
		}
		f.have = 0
		f.left = uint32(f.head[0])<<16 | uint32(f.head[1])<<8 | uint32(f.head[2])
		stream := binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1)
		if err := each(http2.FrameType(f.head[3]), http2.Flags(f.head[4]), stream); err != nil {
			return err
		}
	}
	return nil
}
