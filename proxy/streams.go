// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
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
	// refused is called with the reason when the gate ends the connection. malformed is
	// called for each request or connection that the library refuses, with the status of
	// the answer, or 0 without one.
	refused   func(error)
	malformed func(reason string, status int)
	// in is used by the server's reader, out by its writer. fields counts the fields of
	// heads.
	in, out frameScanner
	fields  fieldCounter
	// writing is the argument of the current Write. resets are the frames in it that are
	// replaced by answers.
	writing []byte
	resets  []streamReset

	mu sync.Mutex
	// open has each stream that the server has not answered in full and that neither
	// side has reset; last is the newest stream.
	open map[uint32]openStream
	last uint32
	// block is the number of bytes that were received of the head that is being read. taken
	// is the memory taken for it in addition to [streamCost].
	block, taken int64
	// why is the name of the last error that the library has counted.
	why string
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

// openStream is an open stream of a streamGate.
type openStream struct {
	// more is the memory that it holds beside [streamCost], in bytes.
	more int64
	// answered says that the head of the answer was sent.
	answered bool
}

// streamReset is a reset of a stream that was not answered: its place in what is written,
// and the stream.
type streamReset struct {
	at     int
	stream uint32
}

func newStreamGate(ctx context.Context, c *connection, conn *tls.Conn, refused func(error)) *streamGate {
	g := &streamGate{Conn: conn, ctx: ctx, s: c.server, a: c.account, refused: refused, open: map[uint32]openStream{}, done: make(chan struct{}, 1)}
	g.in.left = uint32(len(http2.ClientPreface))
	return g
}

// Read gives the server frames for which there is memory.
func (g *streamGate) Read(p []byte) (int, error) {
	if g.failed != nil {
		return 0, g.failed
	}
	n, err := g.Conn.Read(p)
	if g.failed = g.in.scan(p[:n], g.received, g.payload); g.failed != nil {
		g.refused(g.failed)
		return 0, g.failed
	}
	return n, err
}

var errFields = fmt.Errorf("%w: more than %d fields", inspect.ErrHeadTooLarge, maxFields2)

// payload counts the fields in a frame's payload.
func (g *streamGate) payload(p []byte) error {
	if g.fields.scan(p); g.fields.fields > maxFields2 {
		return errFields
	}
	return nil
}

// Write sends what the server writes. The server resets a stream whose request is malformed
// and answers nothing: the gate answers 400 in its place.
func (g *streamGate) Write(p []byte) (int, error) {
	g.writing, g.resets = p, g.resets[:0]
	_ = g.out.scan(p, g.sent, nil)
	g.writing = nil
	if len(g.resets) == 0 {
		return g.Conn.Write(p)
	}
	var out []byte
	from := 0
	for _, r := range g.resets {
		out = append(out, p[from:r.at]...)
		out = append(out, badRequestFrames(r.stream)...)
		from = r.at + frameHeader + resetPayload
	}
	if _, err := g.Conn.Write(append(out, p[from:]...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

const (
	// frameHeader is the size of a frame's header, and resetPayload that of the payload of
	// RST_STREAM, in bytes.
	frameHeader  = 9
	resetPayload = 4
)

// badRequestFrames returns an answer with status 400 and no body, and a reset without an
// error, which stops the request's body.
func badRequestFrames(stream uint32) []byte {
	const status400 = 0x80 | 12 // in HPACK's static table
	out := []byte{0, 0, 1, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream)}
	out = append(binary.BigEndian.AppendUint32(out, stream), status400)
	out = append(out, 0, 0, resetPayload, byte(http2.FrameRSTStream), 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, stream), uint32(http2.ErrCodeNo))
}

// code returns the error code at an offset in the payload of the frame that Write is about
// to send. It returns false if this part of the payload is not in the same Write.
func (g *streamGate) code(at int) (http2.ErrCode, bool) {
	if at += g.out.at; at+4 <= len(g.writing) {
		return http2.ErrCode(binary.BigEndian.Uint32(g.writing[at:])), true
	}
	return 0, false
}

// counted is the library's CountError.
func (g *streamGate) counted(why string) {
	g.mu.Lock()
	g.why = why
	g.mu.Unlock()
}

// reset notes that the server resets a stream. Preconditions: g.mu is held.
func (g *streamGate) reset(stream uint32) {
	code, ok := g.code(0)
	if !ok || g.malformed == nil {
		return
	}
	switch code {
	case http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeStreamClosed: // by the handler, or of a stream that has ended
		return
	default: // the library refuses the request
	}
	status := 0
	if s, open := g.open[stream]; open && !s.answered && code == http2.ErrCodeProtocol && g.out.at >= frameHeader {
		g.resets = append(g.resets, streamReset{g.out.at - frameHeader, stream})
		status = http.StatusBadRequest
	}
	if text := invalidRequests[g.why]; text != "" {
		g.malformed("HTTP/2: "+text, status)
		return
	}
	g.malformed(fmt.Sprintf("HTTP/2: %s (%s)", code, g.why), status)
}

// goAway notes that the server ends the connection. Preconditions: g.mu is held.
func (g *streamGate) goAway() {
	if code, ok := g.code(4); ok && code != http2.ErrCodeNo && g.malformed != nil {
		g.malformed("HTTP/2: "+g.endReason(code), 0)
	}
}

// endReason returns the reason for which the library ends the connection with code. It counts
// no error if a head is larger than it reads. Preconditions: g.mu is held.
func (g *streamGate) endReason(code http2.ErrCode) string {
	switch {
	case g.why != "":
		return fmt.Sprintf("the connection ends with %s (%s)", code, g.why)
	case code == http2.ErrCodeProtocol && g.block*8/leastBits > maxHead2:
		return errHead2TooLarge.Error()
	}
	return fmt.Sprintf("the connection ends with %s", code)
}

// errHead2TooLarge is the error of a head that the proxy does not read to its end.
var errHead2TooLarge = fmt.Errorf("%w: larger than %d KiB", inspect.ErrHeadTooLarge, maxHead2>>10)

// invalidRequests has the texts for the names under which the library counts the requests
// that it refuses.
var invalidRequests = map[string]string{
	"stream_PROTOCOL_ERROR_bad_path":                "the path does not begin with a slash, or has an invalid URL escape or character",
	"stream_PROTOCOL_ERROR_bad_path_method":         "the request has no method, no path or an unknown scheme",
	"stream_PROTOCOL_ERROR_bad_connect":             "CONNECT with a path or scheme, or without an authority",
	"stream_PROTOCOL_ERROR_authority_host_mismatch": ":authority and Host differ",
	"stream_PROTOCOL_ERROR_multiple_host_headers":   "more than one Host",
	"stream_PROTOCOL_ERROR_userinfo_in_authority":   "user information in :authority",
	"stream_PROTOCOL_ERROR_invalid_authority":       ":authority is not a host",
}

// received notes a frame that the client has sent.
func (g *streamGate) received(kind http2.FrameType, flags http2.Flags, stream uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, open := g.open[stream]
	g.fields.frame(kind, flags, g.in.left)
	switch kind {
	case http2.FrameHeaders:
		g.block, g.taken = 0, 0
		switch {
		case stream > g.last:
			g.last = stream
			if len(g.open) >= MaxStreams { // the server refuses the stream
				return g.owe()
			}
			if err := g.admit(stream); err != nil {
				return err
			}
			return g.lengthen(stream)
		case open:
			return g.trailers(stream)
		}
		return g.owe()
	case http2.FrameContinuation:
		return g.lengthen(stream)
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
	case kind == http2.FrameRSTStream:
		g.reset(stream)
		g.owed = max(g.owed-1, 0)
	case kind == http2.FramePing && flags.Has(http2.FlagPingAck):
		g.owed = max(g.owed-1, 0)
	case kind == http2.FrameGoAway:
		g.goAway()
		return nil
	case kind == http2.FrameHeaders && !flags.Has(http2.FlagHeadersEndStream):
		if s, ok := g.open[stream]; ok && !s.answered {
			s.answered = true
			g.open[stream] = s
		}
		return nil
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
	g.open[stream] = openStream{}
	return nil
}

// lengthen takes memory for the next frame of a head: for the largest size that the head
// can have when it is decoded, without the part that [streamCost] covers. Preconditions:
// g.mu is held, which lengthen releases while it waits.
func (g *streamGate) lengthen(stream uint32) error {
	if g.block += int64(g.in.left); g.block > maxHead2 {
		return errHead2TooLarge
	}
	more := max(g.block*8/leastBits-smallHead, 0)*byteCost - g.taken
	if more <= 0 {
		return nil
	}
	if !g.a.Try(more) {
		g.mu.Unlock()
		err := g.a.Take(g.ctx, more)
		g.mu.Lock()
		if err != nil {
			return err
		}
	}
	g.taken += more
	s, open := g.open[stream]
	if !open { // it is refused, or has ended meanwhile
		g.a.Release(more)
		return nil
	}
	s.more += more
	g.open[stream] = s
	return nil
}

// leastBits is the length of the shortest code that HPACK has for a byte, in bits.
const leastBits = 5

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
	s := g.open[stream]
	s.more += maxHeadCost
	g.open[stream] = s
	return nil
}

// close notes that a stream has ended. Preconditions: g.mu is held.
func (g *streamGate) close(stream uint32) {
	s, ok := g.open[stream]
	if !ok {
		return
	}
	delete(g.open, stream)
	g.a.Release(s.more + g.surplus())
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
	for _, s := range g.open {
		more += s.more
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
	head [frameHeader]byte
	have int
	// left is how many bytes of the payload, or of the preface, are still to come, and at
	// where the payload begins in the bytes that are scanned.
	left uint32
	at   int
}

// scan reads the next bytes of the stream. It calls each for each frame whose header is
// complete, and payload, unless it is nil, for the payloads' bytes, until one returns an
// error.
func (f *frameScanner) scan(p []byte, each func(http2.FrameType, http2.Flags, uint32) error, payload func([]byte) error) error {
	for at := 0; at < len(p); {
		if f.left > 0 {
			n := min(uint32(len(p)-at), f.left)
			f.left -= n
			if payload != nil {
				if err := payload(p[at : at+int(n)]); err != nil {
					return err
				}
			}
			at += int(n)
			continue
		}
		n := copy(f.head[f.have:], p[at:])
		f.have += n
		at += n
		if f.have < len(f.head) {
			return nil
		}
		f.have, f.at = 0, at
		f.left = uint32(f.head[0])<<16 | uint32(f.head[1])<<8 | uint32(f.head[2])
		stream := binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1)
		if err := each(http2.FrameType(f.head[3]), http2.Flags(f.head[4]), stream); err != nil {
			return err
		}
	}
	return nil
}
