// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/klauspost/compress/zstd"

	"openshell.dev/runtime/proxy/memory"
)

// errShown is the error for compressed content that holds a value.
var errShown = &EchoError{Reason: "it holds a credential in compressed form, where it cannot be masked"}

// opener recognizes compressed content, expands it and searches the result. The content
// itself is not changed.
type opener struct {
	s *scrubber
	// layers is how many layers of compression may still be opened.
	layers int
	// coding is the Content-Encoding; if it is empty the first bytes tell the coding.
	coding string
	// strict refuses content that cannot be searched because of its coding or its size;
	// without strict it passes.
	strict bool
	// hold has the memory of the decoders.
	hold *memory.Hold

	start  []byte // the first bytes, until they tell the coding
	opened bool   // the coding is known
	x      *expansion
	n      int64 // number of bytes pushed
}

// push takes the next bytes of the content. It returns how many bytes of the content, from
// its beginning, may be sent: their expansion has been searched and no value begins in it.
// final is true for the last bytes. After an error nothing more may be sent.
func (o *opener) push(b []byte, final bool) (safe int64, err error) {
	o.n += int64(len(b))
	if !o.opened {
		if len(o.start) > 0 {
			b = append(o.start, b...)
		}
		coding, more := o.coding, len(b) == 0
		if coding == "" && !more {
			coding, more = recognize(b)
		}
		if more && !final {
			o.start = bytes.Clone(b)
			return 0, nil
		}
		o.start, o.opened = nil, true
		if coding != "" && len(b) > 0 && o.layers > 0 {
			o.x = newExpansion(o.s, coding, o.layers-1, o.strict, o.hold)
		}
	}
	if o.x == nil {
		return o.n, nil
	}
	safe, err = o.x.push(b, final)
	if err == nil && o.n-safe > MaxHeldAnswer {
		err = &boundError{"too much of it would wait to be searched"}
	}
	if err == nil {
		return safe, nil
	}
	o.close()
	var echo *EchoError
	var bound *boundError
	switch {
	case errors.As(err, &echo):
		return safe, err
	case o.strict && errors.As(err, &bound), o.strict && o.coding != "" && !errors.Is(err, io.EOF):
		return safe, &EchoError{Reason: err.Error()}
	}
	// The content is not compressed, or has ended, or no decoder can expand it.
	return o.n, nil
}

// close ends the search. The caller must call it.
func (o *opener) close() {
	if o.x != nil {
		o.x.close()
		o.x = nil
	}
}

// boundError is the error for content beyond a bound of the search.
type boundError struct{ reason string }

func (e *boundError) Error() string { return e.reason }

// signatures are the first bytes of compressed content. recognize computes those of zlib.
var signatures = []struct{ bytes, coding string }{
	{"\x1f\x8b\x08", "gzip"},
	{"\x28\xb5\x2f\xfd", "zstd"},
}

// zstdSkippable are the first bytes of a zstd frame without content, but for the lower half
// of the first byte, which is free (RFC 8878, section 3.1.2).
const zstdSkippable = "\x50\x2a\x4d\x18"

// recognize returns the coding of content by its first bytes, "" if the content is not
// compressed or the coding is unknown. If more is true, it needs more bytes to decide.
func recognize(b []byte) (coding string, more bool) {
	for _, s := range signatures {
		if bytes.HasPrefix(b, []byte(s.bytes)) {
			return s.coding, false
		}
		more = more || strings.HasPrefix(s.bytes, string(b[:min(len(b), len(s.bytes))]))
	}
	if b[0]&0xf0 == zstdSkippable[0] && strings.HasPrefix(zstdSkippable[1:], string(b[1:min(len(b), len(zstdSkippable))])) {
		if len(b) >= len(zstdSkippable) {
			return "zstd", false
		}
		more = true
	}
	const usualWindow = 0x78 // ordinary text may begin with the first byte of other windows
	if b[0] == usualWindow {
		if isZlib(b) {
			return "deflate", false
		}
		more = len(b) < zlibHeader
	}
	return "", more
}

// expansion expands content that is pushed into it and searches the result. A decoder
// reads its input, so it runs as a coroutine, which yields whenever it needs bytes that
// have not arrived.
type expansion struct {
	coding string
	search search

	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool

	src *bufio.Reader // reads from in
	in  []byte
	end bool  // in has the last bytes
	fed int64 // bytes that src has read
	out int64 // bytes that the content has expanded to
	// marks are places that have been searched but may not pass, because a value may
	// begin before them.
	marks []mark
	safe  int64
	err   error // the error that ended the decoder
}

// mark is a position in the content: its first in bytes expand to out bytes.
type mark struct{ in, out int64 }

func newExpansion(s *scrubber, coding string, layers int, strict bool, hold *memory.Hold) *expansion {
	x := &expansion{coding: coding, search: search{s: s, open: opener{s: s, layers: layers, strict: strict, hold: hold}}}
	x.src = bufio.NewReader(reader(x.pull))
	x.resume, x.stop = iter.Pull(x.run)
	return x
}

// push does what [opener.push] does. It returns io.EOF if bytes follow the end of the
// compressed content.
func (x *expansion) push(b []byte, final bool) (safe int64, err error) {
	x.in, x.end = b, final
	if _, more := x.resume(); more {
		return x.safe, nil
	}
	var echo *EchoError
	if !errors.As(x.err, &echo) {
		if _, err := x.search.push(nil, true); err != nil {
			x.err = err
		}
	}
	if x.err == nil && (!final || len(x.in) > 0 || x.src.Buffered() > 0) {
		x.err = io.EOF
	}
	if x.err == nil {
		x.safe = x.fed
	}
	return x.safe, x.err
}

func (x *expansion) close() {
	x.stop()
	x.search.open.close()
}

// run is the coroutine: it expands the content to its end.
func (x *expansion) run(yield func(struct{}) bool) {
	x.yield = yield
	z, err := decompress(x.search.open.hold, x.coding, x.src, expanded{x}.skipped)
	if errors.Is(err, memory.ErrExhausted) {
		err = exhausted(err)
	}
	if err != nil {
		x.err = err
		return
	}
	defer z.Close()
	_, err = io.Copy(expanded{x}, z)
	switch {
	case x.err != nil || err == nil:
	case errors.Is(err, memory.ErrExhausted):
		x.err = exhausted(err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		x.err = &boundError{"its zstd needs too large a window"}
	default:
		x.err = errors.New("its " + x.coding + " is broken")
	}
}

// exhausted ends an answer that cannot be searched for lack of memory. If such an answer
// passed, a client could use up the memory on purpose.
func exhausted(err error) error { return &EchoError{Reason: err.Error()} }

// pull reads for the decoder.
func (x *expansion) pull(p []byte) (int, error) {
	for len(x.in) == 0 {
		if x.end {
			return 0, io.EOF
		}
		if !x.yield(struct{}{}) {
			x.end = true // yield may not be called again
		}
	}
	n := copy(p, x.in)
	x.in = x.in[n:]
	x.fed += int64(n)
	return n, nil
}

// expanded takes the output of the decoder. Each write completes the output of the bytes
// read so far, except for up to three bytes that the decoder has read ahead.
type expanded struct{ x *expansion }

func (e expanded) Write(p []byte) (int, error) {
	x := e.x
	var safe int64
	x.out += int64(len(p))
	if safe, x.err = x.search.push(p, false); x.err != nil {
		return 0, x.err
	}
	in := x.fed - int64(x.src.Buffered())
	if x.out > FreeExpansion && x.out/MaxExpansion > in {
		x.err = &boundError{"it expands to too much"}
		return 0, x.err
	}
	x.marks = append(x.marks, mark{in, x.out})
	passed := 0
	for passed < len(x.marks) && x.marks[passed].out <= safe {
		x.safe = x.marks[passed].in
		passed++
	}
	x.marks = append(x.marks[:0], x.marks[passed:]...)
	return len(p), nil
}

// skipped is called when the bytes read so far have no further output.
func (e expanded) skipped() error {
	_, err := e.Write(nil)
	return err
}

// search searches bytes and their expansion for values. It does not change them.
type search struct {
	s    *scrubber
	tail []byte // the last bytes, if a value may begin in them
	n    int64
	open opener
}

// push does what [opener.push] does.
func (f *search) push(b []byte, final bool) (safe int64, err error) {
	f.n += int64(len(b))
	text, least := b, 0
	if len(f.tail) > 0 {
		f.tail = append(f.tail, b...)
		text = f.tail
	}
	if final {
		least = MinScrub
	}
	start, n := f.s.find(text, 0, least)
	if n > 0 {
		return 0, errShown
	}
	f.tail = append(f.tail[:0], text[start:]...)
	safe, err = f.open.push(b, final)
	return min(safe, f.n-int64(len(text)-start)), err
}

// reader is a function that reads.
type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
