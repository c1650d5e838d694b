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

	"openshell.dev/runtime/cmd/openshell-proxy/internal/memory"
)

// errShown says that compressed content holds a value.
var errShown = &EchoError{Reason: "it holds a credential in compressed form, where it cannot be masked"}

// opener recognizes compressed content and searches what it expands to, while the
// content itself passes as it is.
type opener struct {
	s *scrubber
	// layers is how many layers may still be opened.
	layers int
	// coding is what Content-Encoding says; empty is recognized by the first bytes.
	coding string
	// strict refuses content that its coding or its size keeps from being searched;
	// otherwise it passes.
	strict bool
	// hold has the memory of the decoders.
	hold *memory.Hold

	start  []byte // the first bytes, until they say what the content is
	opened bool   // it is known what the content is
	x      *expansion
	n      int64 // bytes that were pushed
}

// push takes the next bytes of the content and returns how many bytes of it may pass,
// counted from its beginning: what they expand to was searched, and no value begins in
// it. final says that no more follow. After an error no more may pass.
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
	// It is not compressed after all, or its end was reached, or nobody can expand it.
	return o.n, nil
}

// close ends the search, and has to be called.
func (o *opener) close() {
	if o.x != nil {
		o.x.close()
		o.x = nil
	}
}

// boundError says that content goes beyond a bound of what is opened.
type boundError struct{ reason string }

func (e *boundError) Error() string { return e.reason }

// signatures are the first bytes of compressed content; zlib's are computed.
var signatures = []struct{ bytes, coding string }{
	{"\x1f\x8b\x08", "gzip"},
	{"\x28\xb5\x2f\xfd", "zstd"},
}

// recognize returns the coding of content by its first bytes, empty if it has none that
// is known. More means that the next bytes decide.
func recognize(b []byte) (coding string, more bool) {
	for _, s := range signatures {
		if bytes.HasPrefix(b, []byte(s.bytes)) {
			return s.coding, false
		}
		more = more || strings.HasPrefix(s.bytes, string(b[:min(len(b), len(s.bytes))]))
	}
	const usualWindow = 0x78 // what other windows would begin with is text
	if b[0] == usualWindow {
		if isZlib(b) {
			return "deflate", false
		}
		more = len(b) < zlibHeader
	}
	return "", more
}

// expansion expands content that is pushed into it and searches the result. The
// decoder, which pulls, runs as a coroutine that is left whenever it wants bytes that
// have not come yet.
type expansion struct {
	coding string
	search search

	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool

	src *bufio.Reader // reads from in
	in  []byte
	end bool  // nothing follows in
	fed int64 // bytes that src has read
	out int64 // bytes that the content has expanded to
	// marks are the places up to which all that they expand to had been searched,
	// where a value might begin before them.
	marks []mark
	safe  int64
	err   error // why the decoder has ended
}

// mark says that in bytes of the content expand to out bytes.
type mark struct{ in, out int64 }

func newExpansion(s *scrubber, coding string, layers int, strict bool, hold *memory.Hold) *expansion {
	x := &expansion{coding: coding, search: search{s: s, open: opener{s: s, layers: layers, strict: strict, hold: hold}}}
	x.src = bufio.NewReader(reader(x.pull))
	x.resume, x.stop = iter.Pull(x.run)
	return x
}

// push is as that of opener. The error is io.EOF at the end of the content, if there
// are bytes behind it.
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

// run is the coroutine.
func (x *expansion) run(yield func(struct{}) bool) {
	x.yield = yield
	z, err := decompress(x.search.open.hold, x.coding, x.src)
	if errors.Is(err, memory.ErrExhausted) {
		err = &EchoError{Reason: err.Error()} // which only the client could want to pass
	}
	if err != nil {
		x.err = err
		return
	}
	defer z.Close()
	_, err = io.Copy(expanded{x}, z)
	switch {
	case x.err != nil || err == nil:
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		x.err = &boundError{"its zstd needs too large a window"}
	default:
		x.err = errors.New("its " + x.coding + " is broken")
	}
}

// pull gives the decoder bytes.
func (x *expansion) pull(p []byte) (int, error) {
	for len(x.in) == 0 {
		if x.end {
			return 0, io.EOF
		}
		if !x.yield(struct{}{}) {
			x.end = true // it may not be called again
		}
	}
	n := copy(p, x.in)
	x.in = x.in[n:]
	x.fed += int64(n)
	return n, nil
}

// expanded takes what the decoder makes. Each write has all that could be made of the
// bytes read so far, but for less than four bytes that the decoder has looked at.
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

// search searches bytes that are not to be changed, and what they expand to.
type search struct {
	s    *scrubber
	tail []byte // the end of what was pushed, if a value may begin in it
	n    int64
	open opener
}

// push is as that of opener.
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
