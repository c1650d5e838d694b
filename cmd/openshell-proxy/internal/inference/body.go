// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"io"
	"slices"
	"sync"
)

var (
	errTooLarge = errors.New("the body is too large")
	errNoRoom   = errors.New("too many bodies are under way")
	errReleased = errors.New("the request's body is no longer held")
)

// holding is what an exchange has of [MaxBodies].
type holding struct {
	m *Meter
	n int64
}

func (h *holding) grow(n int) bool {
	if !h.m.hold(int64(n)) {
		return false
	}
	h.n += int64(n)
	return true
}

func (h *holding) release() {
	h.m.release(h.n)
	h.n = 0
}

// firstRead is what is held of a body whose size is not known, in bytes.
const firstRead = 8 << 10

// readAll reads at most limit bytes, and holds no more than twice what it has read:
// a size that is only claimed costs nothing. The claim is negative without one.
func readAll(from io.Reader, claim int64, limit int, h *holding) ([]byte, error) {
	first := firstRead
	if claim >= 0 && claim < firstRead {
		first = int(claim) + 1 // for its end
	}
	if !h.grow(first) {
		return nil, errNoRoom
	}
	buf := make([]byte, 0, first)
	for {
		if len(buf) == cap(buf) {
			more := min(cap(buf), limit+1-cap(buf))
			if more <= 0 {
				return nil, errTooLarge
			}
			if !h.grow(more) {
				return nil, errNoRoom
			}
			buf = append(make([]byte, 0, cap(buf)+more), buf...)
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, errTooLarge
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// payload is a request's body while it may be sent, or sent again. A long stream
// must not hold on to the request that it answers.
type payload struct {
	mu      sync.Mutex
	doc     *document
	readers int
	done    bool
	held    holding
}

func (p *payload) document() *document {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doc
}

// open returns a reader of parts, which are of the document.
func (p *payload) open(parts [][]byte) io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readers++
	return &payloadReader{p: p, parts: slices.Clone(parts)}
}

// finish says that the body is not sent again.
func (p *payload) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.free()
}

func (p *payload) free() {
	if p.done && p.readers == 0 && p.held.n > 0 {
		p.doc = nil
		p.held.release()
	}
}

// payloadReader is read and closed by a transport, maybe at the same time.
type payloadReader struct {
	p     *payload
	mu    sync.Mutex
	parts [][]byte
	// done says that it was closed, released that it does not hold the payload.
	done, released bool
}

// Read gives as much as there is room for, over the parts' ends: transports send
// what one Read gives as one piece.
func (r *payloadReader) Read(b []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return 0, errReleased
	}
	for len(r.parts) > 0 && n < len(b) {
		m := copy(b[n:], r.parts[0])
		n += m
		if r.parts[0] = r.parts[0][m:]; len(r.parts[0]) == 0 {
			r.parts = r.parts[1:]
		}
	}
	if len(r.parts) == 0 {
		// HTTP/2 closes it no sooner than the answer has ended.
		r.release()
		return n, io.EOF
	}
	return n, nil
}

func (r *payloadReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = true
	r.release()
	return nil
}

// release says that nothing more is read. Preconditions: r.mu is held.
func (r *payloadReader) release() {
	if r.released {
		return
	}
	r.released, r.parts = true, nil
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.readers--
	r.p.free()
}
