// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// coding is a way to compress, and to expand as much as possible.
type coding struct {
	header string
	pack   func(b []byte) []byte
	unpack func(b []byte) string
}

var codings = map[string]coding{
	"gzip":       {"gzip", gzipped, expand("gzip")},
	"x-gzip":     {"x-gzip", gzipped, expand("gzip")},
	"zlib":       {"deflate", zlibbed, expand("deflate")},
	"deflate":    {"deflate", deflated, expand("deflate")},
	"zstd":       {"zstd", zstdPacked, expand("zstd")},
	"gzip twice": {"gzip", func(b []byte) []byte { return gzipped(gzipped(b)) }, func(b []byte) string { return expand("gzip")([]byte(expand("gzip")(b))) }},
}

type flusher interface {
	io.WriteCloser
	Flush() error
}

// packWith compresses b in two pieces, each of which a receiver can expand.
func packWith(b []byte, compressor func(w io.Writer) flusher) []byte {
	var out bytes.Buffer
	w := compressor(&out)
	half := len(b) / 2
	_, _ = w.Write(b[:half])
	_ = w.Flush()
	_, _ = w.Write(b[half:])
	_ = w.Close()
	return out.Bytes()
}

func gzipped(b []byte) []byte {
	return packWith(b, func(w io.Writer) flusher { return gzip.NewWriter(w) })
}

func zlibbed(b []byte) []byte {
	return packWith(b, func(w io.Writer) flusher { return zlib.NewWriter(w) })
}

func deflated(b []byte) []byte {
	return packWith(b, func(w io.Writer) flusher { z, _ := flate.NewWriter(w, 6); return z })
}

func zstdPacked(b []byte) []byte {
	return packWith(b, func(w io.Writer) flusher { z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); return z })
}

// expand is all that a receiver can make of b.
func expand(coding string) func(b []byte) string {
	return func(b []byte) string {
		z, err := decompress(nil, coding, bufio.NewReader(bytes.NewReader(b)), func() error { return nil })
		if err != nil {
			return ""
		}
		defer z.Close()
		out, _ := io.ReadAll(z)
		return string(out)
	}
}

// answered is a request without a body to the target, whose answer is searched for the
// values of testSet.
func answered(t *testing.T, target Target) *Rewritten {
	t.Helper()
	r, err := testSet(t).Request(target, Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBypass_B80_CompressedContent: compressed content without a Content-Encoding is
// opened. Without a value it passes unchanged; with a value it ends before the value is
// complete, at any place.
func TestBypass_B80_CompressedContent(t *testing.T) {
	t.Parallel()
	bound := answered(t, anthropic())
	elsewhere := answered(t, to("other.example", 443))
	noise := make([]byte, 80<<10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32()) & 0x3f
	}
	for name, c := range codings {
		if name == "deflate" {
			continue // has no first bytes to be known by
		}
		for where, body := range map[string]string{
			"alone": "%s", "begin": "%s" + string(noise), "end": string(noise) + "%s", "middle": string(noise) + "%s" + string(noise), "much": strings.Repeat("a", 200<<10) + "%s",
		} {
			clean := c.pack([]byte(strings.ReplaceAll(body, "%s", plain[1:])))
			shows := c.pack([]byte(strings.ReplaceAll(body, "%s", plain)))
			for _, r := range []*Rewritten{bound, elsewhere} {
				for split, reader := range map[string]func(io.Reader) io.Reader{
					"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader,
				} {
					out, err := io.ReadAll(answerBody(t, r, "application/x-tar", "", reader(bytes.NewReader(clean))))
					if err != nil || !bytes.Equal(out, clean) {
						t.Fatalf("%s, %s, %s: %d bytes of %d, %v", name, where, split, len(out), len(clean), err)
					}
					out, err = io.ReadAll(answerBody(t, r, "application/x-tar", "", reader(bytes.NewReader(shows))))
					var e *EchoError
					if !errors.As(err, &e) || strings.Contains(c.unpack(out), plain[:len(plain)/2]) || !bytes.HasPrefix(shows, out) {
						t.Errorf("%s, %s, %s: %d bytes, %v", name, where, split, len(out), err)
					}
					if where == "end" && name == "gzip" && len(out) < len(noise)/2 {
						t.Errorf("%s, %s: only %d bytes passed", name, split, len(out))
					}
				}
			}
		}
	}
	// A third layer is not opened.
	deep := gzipped(gzipped(gzipped([]byte(plain))))
	if out, err := io.ReadAll(answerBody(t, bound, "", "", bytes.NewReader(deep))); err != nil || !bytes.Equal(out, deep) {
		t.Errorf("three layers: %v", err)
	}
}

// Compressed content that comes in pieces is passed on in pieces, as far as the sender
// has completed them.
func TestCompressedAnswersStream(t *testing.T) {
	t.Parallel()
	r := answered(t, to("other.example", 443))
	events := []string{"data: 1\n\n", "data: task sk-\n\n", "data: 3\n\n"}
	for name, writer := range map[string]func(w io.Writer) flusher{
		"gzip": func(w io.Writer) flusher { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) flusher { z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); return z },
	} {
		pr, pw := io.Pipe()
		next := make(chan bool)
		go func() {
			z := writer(pw)
			for _, e := range events {
				_, _ = io.WriteString(z, e)
				_ = z.Flush()
				<-next
			}
			_ = pw.Close()
		}()
		body, err := decompress(nil, name, bufio.NewReader(answerBody(t, r, "text/event-stream", name, pr)), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			buf := make([]byte, len(e))
			if _, err := io.ReadFull(body, buf); err != nil || string(buf) != e {
				t.Fatalf("%s: %q, %v", name, buf, err)
			}
			next <- true // it was there before more was sent
		}
	}
}

// TestBypass_B80_Bombs: content that expands to too much is refused at an endpoint of a
// provider, and passes unsearched elsewhere. The bytes that wait are bounded.
func TestBypass_B80_Bombs(t *testing.T) {
	t.Parallel()
	bound := answered(t, anthropic())
	elsewhere := answered(t, to("other.example", 443))
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	for range FreeExpansion>>20 + 8 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	var window bytes.Buffer
	zw, _ := zstd.NewWriter(&window, zstd.WithWindowSize(4*maxWindow), zstd.WithEncoderConcurrency(1))
	_, _ = zw.Write(make([]byte, 5*maxWindow))
	_ = zw.Close()
	nothing := bytes.Repeat(gzipped(nil), 2*MaxHeldAnswer/len(gzipped(nil)))
	for what, body := range map[string][]byte{"expands": bomb.Bytes(), "window": window.Bytes(), "nothing": nothing} {
		for _, coding := range []string{"", map[string]string{"expands": "", "window": "zstd", "nothing": "gzip"}[what]} {
			out, err := io.ReadAll(answerBody(t, bound, "", coding, bytes.NewReader(body)))
			var e *EchoError
			if !errors.As(err, &e) || len(out) == len(body) {
				t.Errorf("%s, %q: %d bytes of %d, %v", what, coding, len(out), len(body), err)
			}
			if out, err = io.ReadAll(answerBody(t, elsewhere, "", coding, bytes.NewReader(body))); err != nil || !bytes.Equal(out, body) {
				t.Errorf("%s, %q, elsewhere: %d bytes of %d, %v", what, coding, len(out), len(body), err)
			}
		}
	}
}

// FuzzExpand checks that compressed content without a value passes unchanged, that content
// with a value does not pass, and that neither depends on how the content arrives.
func FuzzExpand(f *testing.F) {
	f.Add([]byte("a"), uint8(0), []byte{1}, false)
	f.Add([]byte("some text of some length, some text"), uint8(1), []byte{3, 30}, true)
	f.Add(bytes.Repeat([]byte("ab"), 40<<10), uint8(3), []byte{200}, true)
	f.Add([]byte{}, uint8(4), []byte{}, true)
	const value = "s3cret-value-0123"
	s := newScrubber([]string{value})
	names := []string{"gzip", "x-gzip", "zlib", "zstd", "gzip twice"}
	f.Fuzz(func(t *testing.T, b []byte, kind uint8, steps []byte, raw bool) {
		if len(b) > 1<<17 {
			return
		}
		c := codings[names[int(kind)%len(names)]]
		run := func(content, steps []byte) ([]byte, error) {
			r := &scrubReader{s: s, src: &chunks{b: content, steps: steps}, close: func() error { return nil }, least: MinScrub, open: &opener{s: s, strict: true, layers: MaxLayers}}
			defer r.Close()
			return io.ReadAll(r)
		}
		if raw { // the bytes themselves, whatever they are
			whole, werr := run(b, nil)
			split, serr := run(b, steps)
			if !bytes.Equal(whole, split) && werr == nil || (werr == nil) != (serr == nil) {
				t.Errorf("whole %q, %v; split %q, %v", whole, werr, split, serr)
			}
			return
		}
		if shownAnyhow(string(b), s) {
			return
		}
		clean := c.pack(b)
		if out, err := run(clean, steps); !bytes.Equal(out, clean) && !shownAnyhow(string(clean), s) || err != nil {
			t.Errorf("%d bytes became %d: %v", len(clean), len(out), err)
		}
		shows := c.pack(append(append(bytes.Clone(b), value...), b...))
		out, err := run(shows, steps)
		var e *EchoError
		if !errors.As(err, &e) || strings.Contains(c.unpack(out), value) {
			t.Errorf("%q passed, %v", out, err)
		}
	})
}
