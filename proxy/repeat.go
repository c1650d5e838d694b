// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/proxy/memory"
)

// unprocessed reports whether an error of RoundTrip says that the server has certainly not
// processed the request: it came after the last one that a GOAWAY names, or was refused
// with REFUSED_STREAM, or was not sent (RFC 9113, section 8.7). Two of the library's errors
// have no type.
func unprocessed(err error) bool {
	var stream http2.StreamError
	if errors.As(err, &stream) {
		return stream.Code == http2.ErrCodeRefusedStream
	}
	switch err.Error() {
	case "http2: Transport received Server's graceful shutdown GOAWAY", "http2: client conn not usable":
		return true
	}
	return false
}

// keptBody is the body of a request that may be sent again. It keeps the bytes that were
// read. Its methods may be called concurrently. On nil they do nothing: there is no body.
type keptBody struct {
	src  io.ReadCloser
	hold *memory.Hold

	mu sync.Mutex
	// kept has the bytes that were read, in a buffer of uploads; nil if they are not kept.
	kept *[]byte
	// end is the error that src has ended with.
	end error
	// reading is true while an attempt waits for src.
	reading bool
	first   bodyAttempt
}

// uploads has buffers of keptUpload bytes.
var uploads = sync.Pool{New: func() any { b := make([]byte, 0, keptUpload); return &b }}

// keepBody returns the body of a request; nil if it has none. If there is no memory to keep
// it, the request cannot be sent again.
func keepBody(req *http.Request, hold *memory.Hold) *keptBody {
	if req.ContentLength == 0 {
		return nil
	}
	b := &keptBody{src: req.Body, hold: hold}
	if req.ContentLength <= keptUpload && hold.Try(keptUpload) {
		b.kept = uploads.Get().(*[]byte)
	}
	return b
}

// forget returns the buffer to its pool. The body cannot be sent again.
func (b *keptBody) forget() {
	if b != nil {
		b.mu.Lock()
		b.drop()
		b.mu.Unlock()
	}
}

// drop is forget. Preconditions: b.mu is held.
func (b *keptBody) drop() {
	if b.kept != nil {
		*b.kept = (*b.kept)[:0]
		uploads.Put(b.kept)
		b.kept = nil
		b.hold.Shrink(keptUpload)
	}
}

// rewind reports whether the body can be sent from its beginning.
func (b *keptBody) rewind() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept != nil
}

// attempt returns the body for one attempt, from its beginning. The attempt before has
// ended.
func (b *keptBody) attempt() io.ReadCloser {
	a := &b.first
	if a.body != nil {
		a = &bodyAttempt{}
	}
	a.body = b
	return a
}

// bodyAttempt is a keptBody as one attempt reads it.
type bodyAttempt struct {
	body *keptBody
	// at is the number of kept bytes that the attempt has read. closed is true when it has
	// ended.
	at     int
	closed bool
}

var errAttemptEnded = errors.New("the request is not sent any more")

func (a *bodyAttempt) Read(p []byte) (int, error) {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed:
		return 0, errAttemptEnded
	case b.kept != nil && a.at < len(*b.kept):
		n := copy(p, (*b.kept)[a.at:])
		a.at += n
		return n, nil
	case b.end != nil:
		return 0, b.end
	}
	b.reading = true
	b.mu.Unlock()
	n, err := b.src.Read(p)
	b.mu.Lock()
	b.reading, b.end = false, err
	if b.kept != nil && len(*b.kept)+n > cap(*b.kept) {
		b.drop()
	}
	if b.kept != nil {
		*b.kept = append(*b.kept, p[:n]...)
		a.at += n
	}
	return n, err
}

// Close ends the attempt. If it is waiting for the client, the client is given some time
// to send more; then the body ends, and so does the request.
func (a *bodyAttempt) Close() error {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	a.closed = true
	if b.reading {
		time.AfterFunc(repeatTime, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.reading {
				b.drop()
				_ = b.src.Close()
			}
		})
	}
	return nil
}

// pause waits before a request is sent again over the connection that has refused it.
func pause(ctx context.Context, repeats int) {
	t := time.NewTimer(repeatPause << repeats)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
