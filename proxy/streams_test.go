// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"openshell.dev/runtime/proxy/memory"
)

// gated is a gate without a connection, for tests that call received and sent.
func gated(t testing.TB) *streamGate {
	s := &Server{memory: memory.New(0), refusals: make(chan struct{}, maxRefusals)}
	g := &streamGate{ctx: t.Context(), s: s, a: s.memory.Open(func() {}), open: map[uint32]openStream{}, done: make(chan struct{}, 1)}
	t.Cleanup(func() {
		g.finish()
		if n := s.memory.Used(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
	})
	return g
}

// TestStreamGate: as much memory is held as there are open streams, and for each handler
// whose stream has ended.
func TestStreamGate(t *testing.T) {
	g := gated(t)
	streams := func(want int64) {
		t.Helper()
		if got := g.s.memory.Used(); got != want*streamCost {
			t.Errorf("%d bytes are held, want %d streams of %d", got, want, streamCost)
		}
	}
	head := func(stream uint32) {
		t.Helper()
		if err := g.received(http2.FrameHeaders, http2.FlagHeadersEndHeaders, stream); err != nil {
			t.Fatal(err)
		}
	}
	head(1)
	head(3)
	streams(2)
	_ = g.sent(http2.FrameRSTStream, 0, 3) // it was malformed and had no handler
	streams(1)
	hold, _ := g.begin()
	streams(1)
	_ = g.received(http2.FrameRSTStream, 0, 1) // the handler goes on
	streams(1)
	g.end(hold, false)
	streams(0)
	head(5)
	hold, _ = g.begin()
	g.end(hold, false) // the client has not taken the answer
	streams(1)
	head(7)
	streams(2)
	_ = g.sent(http2.FrameData, http2.FlagDataEndStream, 5)
	streams(1)
	_ = g.received(http2.FrameRSTStream, 0, 7) // before its handler has begun
	streams(0)
	hold, _ = g.begin()
	streams(1)
	g.end(hold, false)
	streams(0)
	head(9)
	if err := g.received(http2.FrameHeaders, http2.FlagHeadersEndStream, 9); err != nil || g.s.memory.Used() != streamCost+maxHeadCost {
		t.Errorf("with trailers %d bytes are held, %v", g.s.memory.Used(), err)
	}
	head(11) // both end with the connection
}

// TestBypass_B86_HTTP2Control: a client that does not read the answers to its control
// frames loses its connection, one that reads them does not.
func TestBypass_B86_HTTP2Control(t *testing.T) {
	for name, frame := range map[string]func(*streamGate, uint32) error{
		"PING":                  func(g *streamGate, _ uint32) error { return g.received(http2.FramePing, 0, 0) },
		"data of an old stream": func(g *streamGate, _ uint32) error { return g.received(http2.FrameData, 0, 1) },
		"head of an old stream": func(g *streamGate, _ uint32) error { return g.received(http2.FrameHeaders, 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			g := gated(t)
			g.last = 1
			for i := range uint32(10 * maxOwed) {
				if err := frame(g, i); err != nil {
					t.Fatal(err)
				}
				_ = g.sent(http2.FramePing, http2.FlagPingAck, 0)
			}
			var err error
			n := 0
			for ; err == nil && n < 10*maxOwed; n++ {
				err = frame(g, uint32(n))
			}
			if !errors.Is(err, errOwed) || n > maxOwed+1 {
				t.Errorf("%v after %d frames", err, n)
			}
		})
	}
}

// TestRapidReset: a stream that ends before its handler counts until the handler has
// ended.
func TestRapidReset(t *testing.T) {
	g := gated(t)
	var holds []*memory.Hold
	ctx, cancel := context.WithCancel(t.Context())
	g.ctx = ctx
	for i := range uint32(MaxStreams) {
		if err := g.received(http2.FrameHeaders, 0, 2*i+1); err != nil {
			t.Fatal(err)
		}
		hold, _ := g.begin()
		holds = append(holds, hold)
		_ = g.received(http2.FrameRSTStream, 0, 2*i+1)
	}
	cancel() // or it waits
	if err := g.received(http2.FrameHeaders, 0, 2*MaxStreams+1); !errors.Is(err, errResets) {
		t.Errorf("one more: %v", err)
	}
	for _, hold := range holds {
		g.end(hold, false)
	}
}

// FuzzFrameScanner: the scanner sees the frames that the library sees, however the
// bytes are cut.
func FuzzFrameScanner(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = fr.WriteData(1, true, []byte("hello"))
	_ = fr.WriteRSTStream(3, http2.ErrCodeCancel)
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 0xff, 0xff, 0x80, 0, 0, 1})
	f.Fuzz(func(t *testing.T, frames []byte) {
		type seen struct {
			kind   http2.FrameType
			flags  http2.Flags
			stream uint32
		}
		var want, got []seen
		for r := bytes.NewReader(frames); ; {
			h, err := http2.ReadFrameHeader(r)
			if err != nil {
				break
			}
			want = append(want, seen{h.Type, h.Flags, h.StreamID})
			if _, err := io.CopyN(io.Discard, r, int64(h.Length)); err != nil {
				break
			}
		}
		var s frameScanner
		r := iotest.OneByteReader(bytes.NewReader(frames))
		for buf := make([]byte, 16); ; {
			n, err := r.Read(buf)
			_ = s.scan(buf[:n], func(k http2.FrameType, flags http2.Flags, stream uint32) error {
				got = append(got, seen{k, flags, stream})
				return nil
			}, nil)
			if err != nil {
				break
			}
		}
		var whole []seen
		s = frameScanner{}
		_ = s.scan(frames, func(k http2.FrameType, flags http2.Flags, stream uint32) error {
			whole = append(whole, seen{k, flags, stream})
			return nil
		}, nil)
		if len(got) != len(want) || len(whole) != len(want) {
			t.Fatalf("%d and %d frames, want %d", len(got), len(whole), len(want))
		}
		for i := range want {
			if got[i] != want[i] || whole[i] != want[i] {
				t.Errorf("frame %d: %+v and %+v, want %+v", i, got[i], whole[i], want[i])
			}
		}
	})
}

// FuzzFieldCounter compares the number of fields with that of HPACK's decoder, for heads in
// frames of any length, padded or not.
func FuzzFieldCounter(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range fields("x-long", strings.Repeat("\xff", 5000), "cookie", "a=b", "cookie", "a=b", "x-empty", "") {
		_ = enc.WriteField(h)
	}
	f.Add(block.Bytes(), uint16(7), byte(3), true)
	f.Add(block.Bytes(), uint16(16384), byte(0), false)
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x82, 0x40, 1, 'a', 1, 'b', 0x10, 1, 'c', 0, 0xbe, 0x7f, 0x81, 0x01, 0x00}, uint16(1), byte(255), true)
	f.Fuzz(func(t *testing.T, block []byte, size uint16, pad byte, priority bool) {
		all, err := hpack.NewDecoder(4096, nil).DecodeFull(block)
		want := len(all)
		var c fieldCounter
		kind, rest := http2.FrameHeaders, block
		for first := true; first || len(rest) > 0; first = false {
			part := rest[:min(len(rest), int(size)+1)]
			rest = rest[len(part):]
			payload, flags := part, http2.Flags(0)
			if kind == http2.FrameHeaders {
				payload, flags = []byte{pad}, http2.FlagHeadersPadded
				if priority {
					payload, flags = append(payload, 0x80, 0x82, 1, 2, 3), flags|http2.FlagHeadersPriority
				}
				payload = append(append(payload, part...), bytes.Repeat([]byte{0x82}, int(pad))...)
			}
			c.frame(kind, flags, uint32(len(payload)))
			for len(payload) > 0 {
				n := min(len(payload), int(size%97)+1)
				c.scan(payload[:n])
				payload = payload[n:]
			}
			kind = http2.FrameContinuation
		}
		if err == nil && c.fields != want {
			t.Errorf("%d fields, want %d", c.fields, want)
		}
	})
}
