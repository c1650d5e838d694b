// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"io"
	"slices"
	"sync"

	"openshell.dev/runtime/proxy/memory"
)

var errReleased = errors.New("the request's body is no longer held")

// payload is a request's body while it may be sent, or sent again. A long stream
// must not hold on to the request that it answers.
type payload struct {
	mu      sync.Mutex
	doc     *document
	readers int
	done    bool
	// held is the memory of doc.
	held *memory.Hold
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
	if p.done && p.readers == 0 {
		p.doc = nil
		p.held.Release()
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
