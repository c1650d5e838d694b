// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"openshell.dev/runtime/proxy/memory"
)

// incompressible returns n bytes that cannot be compressed.
func incompressible(n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(7, 8))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// frame is one zstd frame with b in it, as an encoder makes it that has all of b.
func frame(b []byte) []byte {
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return z.EncodeAll(b, nil)
}

// skippable is a zstd frame that a decoder skips.
func skippable(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{0x5a, 0x2a, 0x4d, 0x18}, uint32(len(b))), b...)
}

// TestBypass_B80_Members: a file of several compressed members is searched to its end,
// whatever stands between them, and passes byte by byte if no member holds a value.
func TestBypass_B80_Members(t *testing.T) {
	t.Parallel()
	bound := answered(t, anthropic())
	elsewhere := answered(t, to("other.example", 443))
	large := incompressible(900 << 10)
	for name, tc := range map[string]struct {
		coding string
		file   func(last []byte) []byte
	}{
		"chunked image": {"zstd", func(last []byte) []byte {
			return bytes.Join([][]byte{frame(large[:512]), frame(large[:3000]), frame(large[:512]), frame(large), frame(last), skippable(large[:700<<10])}, nil)
		}},
		"windows that grow": {"zstd", func(last []byte) []byte {
			return append(zstdPacked(large[:10]), zstdPacked(append(bytes.Clone(large), last...))...)
		}},
		"skippable first":  {"zstd", func(last []byte) []byte { return append(skippable(large[:5]), frame(last)...) }},
		"skippable, large": {"zstd", func(last []byte) []byte { return append(skippable(large), zstdPacked(last)...) }},
		"skippable between": {"zstd", func(last []byte) []byte {
			return bytes.Join([][]byte{frame(large[:9]), skippable(nil), frame(last)}, nil)
		}},
		"members of gzip": {"gzip", func(last []byte) []byte { return append(gzipped(large), gzipped(last)...) }},
		"gzip, zeros, gzip": {"gzip", func(last []byte) []byte {
			return bytes.Join([][]byte{gzipped(large), make([]byte, 512), gzipped(last)}, nil)
		}},
		"gzip, zeros": {"gzip", func(last []byte) []byte { return append(gzipped(last), make([]byte, 2*MaxHeldAnswer)...) }},
		"gzip of much, zero": {"gzip", func(last []byte) []byte {
			return bytes.Join([][]byte{gzipped(nil), {0}, gzipped(append(bytes.Clone(large), last...))}, nil)
		}},
	} {
		clean, shows := tc.file([]byte(plain[1:])), tc.file([]byte(plain))
		for _, r := range []*Rewritten{bound, elsewhere} {
			for _, coding := range []string{"", tc.coding} {
				for _, reader := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.HalfReader} {
					if out, err := io.ReadAll(answerBody(t, r, "", coding, reader(bytes.NewReader(clean)))); err != nil || !bytes.Equal(out, clean) {
						t.Errorf("%s, %q: %d bytes of %d, %v", name, coding, len(out), len(clean), err)
					}
					out, err := io.ReadAll(answerBody(t, r, "", coding, reader(bytes.NewReader(shows))))
					var e *EchoError
					if !errors.As(err, &e) || bytes.Contains([]byte(expand(tc.coding)(out)), []byte(plain[:len(plain)/2])) || !bytes.HasPrefix(shows, out) {
						t.Errorf("%s, %q: %d bytes of %d passed, %v", name, coding, len(out), len(shows), err)
					}
				}
			}
		}
	}
}

// TestBypass_B86_FramesTakeMemory: a later frame with a larger window takes its memory as
// well, and the end of the search gives all of it back.
func TestBypass_B86_FramesTakeMemory(t *testing.T) {
	t.Parallel()
	var large bytes.Buffer
	z, _ := zstd.NewWriter(&large, zstd.WithWindowSize(maxWindow), zstd.WithEncoderConcurrency(1))
	_, _ = z.Write(incompressible(1 << 10))
	_ = z.Flush()
	_, _ = z.Write(incompressible(1 << 10))
	_ = z.Close()
	budget := memory.New(memory.Default)
	hold := budget.Open(func() {}).Hold(0)
	z2, err := decompress(hold, "zstd", bufio.NewReader(bytes.NewReader(append(frame([]byte("small")), large.Bytes()...))), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if used := budget.Used(); used > 1<<20 {
		t.Errorf("before the frames: %d bytes are taken", used)
	}
	if _, err := io.Copy(io.Discard, z2); err != nil || budget.Used() < maxWindow {
		t.Errorf("%d bytes are taken, %v", budget.Used(), err)
	}
	_ = z2.Close()
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes stay taken", used)
	}
}

// TestBypass_B86_CutStopsDecoders: the search of compressed content stops once its
// connection was cut for its memory. Otherwise it holds the memory as long as a busy machine
// takes for the rest.
func TestBypass_B86_CutStopsDecoders(t *testing.T) {
	t.Parallel()
	packed := gzipped(make([]byte, 16<<20))
	for _, cut := range []bool{false, true} {
		budget := memory.New(memory.Default)
		account := budget.Open(func() {})
		cutter := readerFunc(func([]byte) (int, error) {
			if cut {
				account.Close()
			}
			return 0, io.EOF
		})
		hold := account.Hold(0)
		h := http.Header{"Content-Encoding": {"gzip"}}
		r, err := testSet(t).Request(anthropic(), Options{Hold: hold}, "/", "", h, jsonCT, -1, io.MultiReader(bytes.NewReader(packed), cutter))
		var busy *BusyError
		if errors.As(err, &busy) != cut || !cut && (err != nil || r.Length != int64(len(packed))) {
			t.Errorf("request, cut %v: %v", cut, err)
		}
		// An answer is searched with WriteTo.
		z, err := decompress(hold, "gzip", bufio.NewReader(bytes.NewReader(packed)), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, z)
		if errors.Is(err, memory.ErrExhausted) != cut || (n == 16<<20) == cut {
			t.Errorf("answer, cut %v: %d bytes, %v", cut, n, err)
		}
		_ = z.Close()
		hold.Release()
		if used := budget.Used(); used != 0 {
			t.Errorf("cut %v: %d bytes stay taken", cut, used)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBypass_B80_NamesOfCodings: a name that is no registered content coding says nothing
// about an answer, which is searched as it is and by its first bytes.
func TestBypass_B80_NamesOfCodings(t *testing.T) {
	t.Parallel()
	r := answered(t, anthropic())
	for _, coding := range []string{"utf-8", "base64", "aws-chunked", "none", "binary", "identity", "Identity, utf-8", "identity, gzip", "gzip, identity", "aws-chunked,gzip"} {
		packed := gzipped([]byte("echo " + plain[1:]))
		if out, err := io.ReadAll(answerBody(t, r, "", coding, bytes.NewReader(packed))); err != nil || !bytes.Equal(out, packed) {
			t.Errorf("%s: %d bytes of %d, %v", coding, len(out), len(packed), err)
		}
		var e *EchoError
		if out, err := io.ReadAll(answerBody(t, r, "", coding, bytes.NewReader(gzipped([]byte("echo "+plain))))); !errors.As(err, &e) {
			t.Errorf("%s: %d bytes passed, %v", coding, len(out), err)
		}
		if codingOf(coding) != "" {
			continue
		}
		if out, err := io.ReadAll(answerBody(t, r, "", coding, bytes.NewReader([]byte("a "+plain)))); err != nil || bytes.Contains(out, []byte(plain)) || len(out) != 2+len(plain) {
			t.Errorf("%s: %q, %v", coding, out, err)
		}
	}
	for _, coding := range []string{"br", "compress", "dcb", "dcz", "gzip, gzip", "identity, br"} {
		var e *EchoError
		if out, err := io.ReadAll(answerBody(t, r, "", coding, bytes.NewReader([]byte("a text")))); !errors.As(err, &e) || len(out) > 0 {
			t.Errorf("%s: %q, %v", coding, out, err)
		}
	}
}
