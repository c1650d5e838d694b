// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/proxy/memory"
)

// ResponseHeader masks echoed values in a response's header or trailers. It removes a
// field whose name holds a value, and then returns true.
func (r *Rewritten) ResponseHeader(h http.Header) (dropped bool) {
	if r.scrub == nil {
		return false
	}
	for name, values := range h {
		if r.scrub.inName(name) {
			delete(h, name)
			dropped = true
			continue
		}
		for i, v := range values {
			b := []byte(v)
			if r.scrub.scrub(b, true); string(b) != v {
				values[i] = string(b)
			}
		}
	}
	return dropped
}

// ResponseBody returns the body of an answer with echoed values masked. Its length is that
// of body. The body is searched as bytes, whatever its type; if it is compressed, by its
// header or by its first bytes, its expansion is searched as well. A value there cannot be
// masked: the returned body then ends with an EchoError before the bytes that complete the
// value.
//
// An error is an EchoError: nothing of the answer may pass. The caller closes the returned
// body, which closes body.
func (r *Rewritten) ResponseBody(status int, h http.Header, body io.ReadCloser) (io.ReadCloser, error) {
	if r.scrub == nil || r.unsearched {
		return body, nil
	}
	out := &scrubReader{s: r.scrub, src: body, close: body.Close, least: MinScrub, hold: r.r.hold}
	first := int64(0)
	if status == http.StatusPartialContent {
		p, err := r.part.answer(h)
		switch {
		case err != nil && r.strict && (r.part != nil || ofBytes(h)):
			return nil, &EchoError{Reason: err.Error()}
		case err != nil: // a page of an API, or a part of a file that may have any two edges
			out.edge, out.least = true, MinEdge
		default:
			first, out.edge = p.first, p.first > 0
			if !p.toEnd() {
				out.least = MinEdge
			}
		}
	}
	if first == 0 { // content that is compressed cannot be expanded from its middle
		coding := codingOf(strings.Join(h["Content-Encoding"], ","))
		out.open = &opener{s: r.scrub, coding: coding, strict: r.strict, layers: MaxLayers, hold: r.r.hold}
	}
	return out, nil
}

// ResponseText masks echoed values in a short text, such as an error's.
func (r *Rewritten) ResponseText(msg []byte) []byte {
	if r.scrub == nil {
		return msg
	}
	msg = slices.Clone(msg)
	r.scrub.scrub(msg, true)
	return msg
}

// codingOf returns the registered codings that the Content-Encoding of an answer names.
// Content of any other coding is searched as it is, and opened by its first bytes.
func codingOf(encoding string) string {
	codings := strings.Split(compression(encoding), ",")
	return strings.Join(slices.DeleteFunc(codings, func(c string) bool { return !contentCodings[c].registered }), ",")
}

// Mask returns the body of an answer with value masked, as [Rewritten.ResponseBody] does,
// for a request that was not made by [Set.Request].
func Mask(body io.ReadCloser, value secret.Secret) io.ReadCloser {
	s := newScrubber([]string{value.Reveal()})
	if s == nil {
		return body
	}
	return &scrubReader{s: s, src: body, close: body.Close, least: MinScrub, open: &opener{s: s, strict: true, layers: MaxLayers}}
}

// scrubReader masks the values in its content. Bytes that may begin a value wait for the
// bytes that follow, and compressed content waits until its expansion was searched.
type scrubReader struct {
	opaque

	s     *scrubber
	src   io.Reader
	close func() error
	// open searches compressed content; nil does not.
	open *opener
	// hold has the memory of the bytes that wait.
	hold *memory.Hold
	// edge is true if the content begins at a cut, which may lie in a value.
	edge bool
	// least is the shortest beginning of a value that is masked at the end, in bytes.
	least int

	buf  []byte
	base int64 // where buf begins in the content
	done int   // how many bytes of buf are masked
	safe int   // how many bytes of buf may pass
	at   int   // how many of those were read
	err  error
}

func (r *scrubReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.at == r.safe {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.buf[r.at:r.safe])
	r.at += n
	return n, nil
}

func (r *scrubReader) Close() error {
	if r.open != nil {
		r.open.close()
	}
	return r.close()
}

func (r *scrubReader) fill() {
	if r.buf == nil {
		r.buf = make([]byte, 0, window)
	}
	r.buf = append(r.buf[:0], r.buf[r.safe:]...)
	r.base, r.done = r.base+int64(r.safe), r.done-r.safe
	r.at, r.safe = 0, 0
	if len(r.buf) == cap(r.buf) { // a long value, written at its longest, or compressed content
		if err := r.hold.Grow(context.Background(), int64(cap(r.buf))); err != nil {
			r.err = &EchoError{Reason: err.Error()}
			return
		}
		r.buf = append(r.buf, make([]byte, cap(r.buf))...)[:len(r.buf)]
	}
	n, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.err = err
	limit := len(r.buf)
	if r.open != nil {
		safe, oerr := r.open.push(r.buf[len(r.buf)-n:], err != nil)
		limit = int(safe - r.base)
		if oerr != nil {
			r.err = oerr
		}
	}
	if r.edge {
		cut, more := r.s.startEdge(r.buf, err != nil)
		if more {
			return
		}
		r.s.hide(r.buf[:cut])
		r.edge = false
	}
	least := 0
	if err != nil {
		least = r.least
	}
	r.done += r.s.scrubTo(r.buf[r.done:], least)
	r.safe = min(r.done, limit)
}
