// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// ResponseHeader masks echoed values in a response's header or trailers. Where
// ResponseBody decompresses, the fields that describe the compressed form are
// taken out; the length is then not known.
func (r *Rewritten) ResponseHeader(h http.Header) {
	if r.scrub == nil {
		return
	}
	for _, values := range h {
		for i, v := range values {
			b := []byte(v)
			if r.scrub.scrub(b, true); string(b) != v {
				values[i] = string(b)
			}
		}
	}
	if coding := codingOf(strings.Join(h["Content-Encoding"], ",")); coding != "" && !binary(h.Get("Content-Type")) {
		for _, name := range []string{"Content-Encoding", "Content-Length", "Content-Md5", "Content-Digest", "Digest", "Accept-Ranges"} {
			delete(h, name)
		}
	}
}

// ResponseBody is a response's body with echoed values masked. Its length is the
// upstream's, unless it was compressed: a text that comes compressed though that
// was not asked for is decompressed, and one that cannot be ends with an EchoError.
// Images, archives and other types that are not text pass as they are.
func (r *Rewritten) ResponseBody(contentType, contentEncoding string, body io.Reader) io.Reader {
	if r.scrub == nil || binary(contentType) {
		return body
	}
	if coding := codingOf(contentEncoding); coding != "" {
		return &scrubReader{s: r.scrub, src: &lateReader{coding: coding, src: body}}
	}
	return &scrubReader{s: r.scrub, src: body}
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

func codingOf(encoding string) string {
	if c := strings.ToLower(strings.Trim(encoding, " ,\t")); c != "identity" {
		return c
	}
	return ""
}

// binary says whether a type is known to be none of text. Unknown ones are text.
func binary(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	top, sub, _ := strings.Cut(kind, "/")
	switch top {
	case "image":
		return !strings.HasSuffix(sub, "+xml")
	case "audio", "video", "font":
		return true
	case "application":
		switch sub {
		case "octet-stream", "zip", "gzip", "x-gzip", "x-tar", "x-xz", "x-bzip2", "zstd", "pdf", "wasm", "java-archive", "x-protobuf", "protobuf",
			"x-git-upload-pack-result", "x-git-receive-pack-result", "vnd.amazon.eventstream", "vnd.debian.binary-package":
			return true
		}
		return sub == "grpc" || strings.HasPrefix(sub, "grpc+") || strings.HasSuffix(sub, "+zip") || strings.HasSuffix(sub, "+gzip") ||
			strings.HasSuffix(sub, "+zstd")
	}
	return false
}

// lateReader decompresses, and begins when it is first read.
type lateReader struct {
	coding string
	src    io.Reader
	z      io.ReadCloser
}

func (l *lateReader) Read(p []byte) (int, error) {
	if l.z == nil {
		src := bufio.NewReader(l.src)
		if _, err := src.Peek(1); err != nil {
			return 0, err // no body, as in the answer to a HEAD request
		}
		z, err := decompress(l.coding, src)
		if err != nil {
			return 0, &EchoError{Reason: err.Error()}
		}
		l.z = z
	}
	n, err := l.z.Read(p)
	if err != nil {
		_ = l.z.Close()
		if !errors.Is(err, io.EOF) {
			err = &EchoError{Reason: "its " + l.coding + " is broken"}
		}
	}
	return n, err
}

// scrubReader masks what passes. Only what may be the beginning of a value waits
// for what follows.
type scrubReader struct {
	opaque

	s    *scrubber
	src  io.Reader
	buf  []byte
	safe int // how much of buf is ready
	at   int // how much of that was read
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

func (r *scrubReader) fill() {
	if r.buf == nil {
		r.buf = make([]byte, 0, window)
	}
	r.buf = append(r.buf[:0], r.buf[r.safe:]...)
	r.at, r.safe = 0, 0
	if len(r.buf) == cap(r.buf) { // a long value, written at its longest
		r.buf = append(r.buf, make([]byte, cap(r.buf))...)[:len(r.buf)]
	}
	n, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.err = err
	r.safe = r.s.scrub(r.buf, err != nil)
}
