// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/memory"
)

// blockOf is a header block of a request with more fields. Nothing of it goes into the
// decoder's table, so that each connection can be sent the same bytes.
func blockOf(path string, more ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range append(fields(":path", path), more...) {
		f.Sensitive = true
		_ = enc.WriteField(f)
	}
	return b.Bytes()
}

// flood opens connections that send heads and never read an answer.
func (w *world) flood(connections, streams int, head []byte, settings ...http2.Setting) {
	w.t.Helper()
	var opening sync.WaitGroup
	for range connections {
		opening.Go(func() {
			c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", "h2")
			if err := c.Handshake(); err != nil {
				return
			}
			_ = c.SetWriteDeadline(time.Now().Add(3 * time.Second))
			_, _ = io.WriteString(c, http2.ClientPreface)
			fr := http2.NewFramer(c, nil)
			err := fr.WriteSettings(settings...)
			for i := 0; i < streams && err == nil; i++ {
				first := head[:min(len(head), 16<<10)]
				err = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: first, EndStream: true, EndHeaders: len(first) == len(head)})
				if rest := head[len(first):]; len(rest) > 0 {
					_ = fr.WriteContinuation(uint32(2*i+1), true, rest)
				}
			}
		})
	}
	opening.Wait()
}

// fill takes the memory that is free, until the test ends.
func (w *world) fill() {
	a := w.s.memory.Open(func() {})
	n := w.s.memory.Limit() - w.s.memory.Used()
	a.Force(n)
	w.t.Cleanup(func() {
		a.Release(n)
		a.Close()
	})
}

// peak samples the memory that is in use. The function that it returns ends that and
// returns by how many bytes the memory grew at most.
func peak() func() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	now := func() (n int64) {
		metrics.Read(samples)
		for _, s := range samples {
			n += int64(s.Value.Uint64())
		}
		return n
	}
	runtime.GC()
	before, most := now(), int64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, now()-before)
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		runtime.GC()
		return max(most, now()-before)
	}
}

// serves fails the test unless an ordinary client is answered. The budget may cut its
// connection, which has a large window, so it may ask three times.
func (w *world) serves() {
	w.t.Helper()
	got := 0
	for range 3 {
		f := newFramer(w.t, w)
		got = f.get(":path", "/a")
		f.conn.NetConn().Close()
		if got == 200 {
			return
		}
	}
	w.t.Errorf("another connection is answered %d; %d of %d MiB of the budget are used", got, w.s.memory.Used()>>20, w.s.memory.Limit()>>20)
}

// maxPeak is what an attack may make a test grow by, in bytes: the smallest budget, and
// the test's own clients and servers. Without a budget most attacks here take several
// times that.
const maxPeak = memory.Min + 16<<20

// TestBypass_B86_HTTP2Heads: the heads of requests whose answers nobody reads stay
// within the budget, and another connection is answered meanwhile.
func TestBypass_B86_HTTP2Heads(t *testing.T) {
	long := hpack.HeaderField{Name: "x-long", Value: strings.Repeat("a", 14<<10)}
	crumb := make([]hpack.HeaderField, 400)
	for i := range crumb {
		crumb[i] = hpack.HeaderField{Name: "cookie", Value: "a"}
	}
	var tiny []hpack.HeaderField
	for i := range 480 {
		tiny = append(tiny, hpack.HeaderField{Name: string([]byte{byte('a' + i%26), byte('a' + i/26)})})
	}
	noWindow := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	for _, tc := range []struct {
		name        string
		connections int
		head        []byte
	}{
		{"refused", 60, blockOf("/b", long)},
		{"cookie crumbs", 60, blockOf("/b", crumb...)},
		{"tiny fields", 40, blockOf("/b", tiny...)},
		{"too long", 60, blockOf("/b", long, long)},
		{"malformed", 60, blockOf("/b", long, hpack.HeaderField{Name: "connection", Value: "x"})},
		{"unanswered", 60, blockOf("/slow", long)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a}}, {allow: {method: GET, path: /slow}}]"), memory.Min)
			w.site("api.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-r.Context().Done()
				}
			}), "h2")
			grown := peak()
			w.flood(tc.connections, MaxStreams-1, tc.head, noWindow)
			w.serves()
			if got := grown(); got > maxPeak {
				t.Errorf("memory grew by %d MiB", got>>20)
			} else {
				t.Logf("memory grew by %d MiB, %d of the budget used", got>>20, w.s.memory.Used()>>20)
			}
		})
	}
}

// TestBypass_B86_KeptBodies: bodies that are kept until they were searched, and the
// decoders that search them, stay within the budget.
func TestBypass_B86_KeptBodies(t *testing.T) {
	var expands bytes.Buffer
	z, err := zstd.NewWriter(&expands, zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 31 {
		_, _ = z.Write(zeros)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	kept := make([]byte, credentials.MaxCompressedBody)
	for _, tc := range []struct {
		name, coding string
		connections  int
		body         []byte
		length       int
		budget       int64
	}{
		// The connections and their requests alone leave some of the budget.
		{"unfinished", "gzip", 280, kept[:len(kept)-1], len(kept), 2 * memory.Min},
		{"expanding", "zstd", 40, expands.Bytes(), expands.Len(), memory.Min},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), tc.budget)
			w.sandbox.SetCredentials(provides(t, "api.example.com", 443, secretValue, ""))
			w.site("api.example.com", 443, nil, "h2", "http/1.1")
			grown := peak()
			var sending sync.WaitGroup
			for range tc.connections {
				sending.Go(func() {
					c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1")
					if c.Handshake() != nil {
						return
					}
					_ = c.SetDeadline(time.Now().Add(4 * time.Second))
					fmt.Fprintf(c, "POST /a HTTP/1.1\r\nHost: api.example.com\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n", tc.coding, tc.length)
					_, _ = c.Write(tc.body)
					_, _ = io.Copy(io.Discard, c)
				})
			}
			w.serves()
			sending.Wait()
			if got := grown(); got > tc.budget+maxPeak-memory.Min {
				t.Errorf("memory grew by %d MiB", got>>20)
			} else {
				t.Logf("memory grew by %d MiB", got>>20)
			}
		})
	}
}

// frames serves HTTP/2 at api.example.com: each request is answered with the frames that
// answer writes.
func (w *world) frames(answer func(fr *http2.Framer, stream uint32)) {
	w.t.Helper()
	w.framesAndWindows(func(uint32) {}, answer)
}

// framesAndWindows is frames, and calls offered with the window for each stream that a
// connection begins with.
func (w *world) framesAndWindows(offered func(window uint32), answer func(fr *http2.Framer, stream uint32)) {
	w.t.Helper()
	leaf, err := w.upstream.Leaf("api.example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	w.raw("api.example.com", 443, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: []string{"h2"}})
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(s, s)
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if window, ok := f.Value(http2.SettingInitialWindowSize); ok {
					offered(window)
				}
				if !f.IsAck() {
					_ = fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				answer(fr, f.StreamID)
			}
		}
	})
}

// TestBypass_B86_Answers: answers that the client does not read stay within the budget.
func TestBypass_B86_Answers(t *testing.T) {
	var tiny []hpack.HeaderField
	for i := range 1800 {
		tiny = append(tiny, hpack.HeaderField{Name: string([]byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676)}), Sensitive: true})
	}
	var head, ok bytes.Buffer
	_ = hpack.NewEncoder(&ok).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	head.Write(ok.Bytes())
	for enc, i := hpack.NewEncoder(&head), 0; i < len(tiny); i++ {
		_ = enc.WriteField(tiny[i])
	}
	zeros := make([]byte, 16<<10)
	for _, tc := range []struct {
		name    string
		streams int
		answer  func(fr *http2.Framer, stream uint32)
	}{
		{"heads", 40, func(fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true})
		}},
		{"bodies", 8, func(fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: ok.Bytes(), EndHeaders: true})
			for range 4 << 20 / len(zeros) { // as much as one stream's window allowed
				_ = fr.WriteData(stream, false, zeros)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), memory.Min)
			w.frames(tc.answer)
			grown := peak()
			w.flood(30, tc.streams, blockOf("/a"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			if !settles(func() bool { return w.s.memory.Used() > memory.Min/2 }) {
				t.Error("the attack has no effect")
			}
			if got := newFramer(t, w).get(); got != 200 && (got != 503 || tc.name != "heads") {
				t.Errorf("another connection is answered %d", got)
			}
			if got := grown(); got > maxPeak {
				t.Errorf("memory grew by %d MiB", got>>20)
			} else {
				t.Logf("memory grew by %d MiB, %d of the budget used", got>>20, w.s.memory.Used()>>20)
			}
		})
	}
}

// TestBypass_B86_HTTP1Answers: the head of an answer that never ends stays within the
// budget, however small its fields are.
func TestBypass_B86_HTTP1Answers(t *testing.T) {
	w := newWorldOf(t, endpoints("host: api.example.com, port: 80, protocol: rest, enforcement: enforce, access: full"), memory.Min)
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	for i := range 8000 {
		head.Write([]byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676), ':', '\r', '\n'})
	}
	w.raw("api.example.com", 80, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1<<10)); err == nil {
			_, _ = c.Write(head.Bytes())
			_, _ = io.Copy(io.Discard, c)
		}
	})
	grown := peak()
	var asking sync.WaitGroup
	for range 120 {
		c := w.dial()
		asking.Go(func() {
			_ = c.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.WriteString(c, "GET http://api.example.com/a HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
	}
	asking.Wait()
	if got := grown(); got > maxPeak {
		t.Errorf("memory grew by %d MiB", got>>20)
	} else {
		t.Logf("memory grew by %d MiB", got>>20)
	}
}

// TestBypass_B86_IdleWindows: a connection without a request holds no window, so that
// idle clients do not slow down another one.
func TestBypass_B86_IdleWindows(t *testing.T) {
	w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), memory.Min)
	windows := make(chan uint32, 100)
	var ok bytes.Buffer
	_ = hpack.NewEncoder(&ok).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	var waits atomic.Bool
	w.framesAndWindows(func(window uint32) { windows <- window }, func(fr *http2.Framer, stream uint32) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: ok.Bytes(), EndHeaders: true, EndStream: !waits.Load()})
	})
	offered := func(want int) {
		t.Helper()
		select {
		case got := <-windows:
			if want := uint32(downloadWindows[want].size / 2); got != want {
				t.Errorf("the server has a window of %d bytes for a stream, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no new connection to the server")
		}
	}
	begin := func(want int) *framer {
		t.Helper()
		f := newFramer(t, w)
		if got := f.get(); got != 200 {
			t.Fatalf("answered %d", got)
		}
		offered(want)
		return f
	}
	used := func(least, most int64) {
		t.Helper()
		if !settles(func() bool { n := w.s.memory.Used(); return least <= n && n <= most }) {
			t.Errorf("%d bytes are used, want %d to %d", w.s.memory.Used(), least, most)
		}
	}
	var idle *framer
	for range 12 {
		idle = begin(0)
		used(0, memory.Min/4)
	}
	waits.Store(true)
	begin(0) // and its answer does not end
	used(downloadWindows[0].size, memory.Min/2)
	rest := w.s.memory.Open(func() {})
	defer rest.Close()
	force := func(upTo int64) {
		n := upTo - w.s.memory.Used()
		rest.Force(n)
		t.Cleanup(func() { rest.Release(n) })
	}
	force(memory.Min / 2)
	// The steps: half of the budget is used, then three quarters.
	if got := idle.get(); got != 200 {
		t.Errorf("answered %d", got)
	}
	offered(1)
	begin(1)
	force(memory.Min * 3 / 4)
	begin(2)
}
