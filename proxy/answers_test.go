// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"openshell.dev/runtime/proxy/memory"
)

// answerWorld has HTTP/2 connections to a server, and no clients or handlers.
type answerWorld struct {
	t testing.TB
	s *Server
	// settings are those of the server.
	settings []http2.Setting
	// answer is called for each request that arrives.
	answer func(fr *http2.Framer, stream uint32)
}

// connect returns a connection to the server, which ends with the test.
func (w *answerWorld) connect() *h2Conn {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		fr := http2.NewFramer(c, c)
		fr.AllowIllegalWrites = true
		_ = fr.WriteSettings(append(w.settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})...)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.HeadersFrame); ok {
				w.answer(fr, f.StreamID)
			}
		}
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	a := w.s.memory.Open(func() {})
	u := &upstreamHTTP{c: &connection{server: w.s, ctx: w.t.Context(), account: a}}
	h2, err := u.newHTTP2(conn, len(downloadWindows)-1)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = h2.Close()
		serving.Wait()
		a.Close()
	})
	return h2
}

// get sends a request over c. It returns the answer, or the reason for which there is none.
// The caller ends the request.
func (w *answerWorld) get(c *h2Conn) (*exchange, *http.Response, error) { return w.send(c, nil) }

// send is get with a body.
func (w *answerWorld) send(c *h2Conn, body io.Reader) (*exchange, *http.Response, error) {
	ctx, cancel := context.WithCancelCause(w.t.Context())
	w.t.Cleanup(func() { cancel(nil) })
	x := newExchange(c, cancel)
	req, err := http.NewRequestWithContext(x.context(ctx), "GET", "https://api.example.com/a", body)
	if err != nil {
		w.t.Error(err)
		return x, nil, err
	}
	resp, err := x.RoundTrip(req)
	return x, resp, failure(ctx, err)
}

// exhaust takes the memory that is free until the function that it returns is called.
func (w *answerWorld) exhaust() (release func()) {
	a := w.s.memory.Open(func() {})
	n := w.s.memory.Limit() - w.s.memory.Used()
	a.Force(n)
	return func() {
		a.Release(n)
		a.Close()
	}
}

func newAnswerWorld(t testing.TB, answer func(fr *http2.Framer, stream uint32)) *answerWorld {
	w := &answerWorld{t: t, s: &Server{memory: memory.New(memory.Min)}, answer: answer}
	t.Cleanup(func() {
		if n := w.s.memory.Used(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
	})
	return w
}

// answerBlock returns a header block with a status, or trailers without one, and more
// fields. It changes nothing in the decoder's table.
func answerBlock(status string, more int) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	if status != "" {
		_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: status, Sensitive: true})
	}
	for i := range more {
		_ = enc.WriteField(hpack.HeaderField{Name: string([]byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676)}), Sensitive: true})
	}
	return b.Bytes()
}

// writeHead2 writes a head in frames of at most size bytes.
func writeHead2(fr *http2.Framer, stream uint32, block []byte, size int, end bool) {
	part := block[:min(size, len(block))]
	block = block[len(part):]
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		part = block[:min(size, len(block))]
		block = block[len(part):]
		_ = fr.WriteContinuation(stream, len(block) == 0, part)
	}
}

// TestBypass_B86_AnswersWithoutHandlers: the heads of answers stay within the budget even
// if no handler goes on after they have arrived.
func TestBypass_B86_AnswersWithoutHandlers(t *testing.T) {
	head := answerBlock("200", 1800)
	w := newAnswerWorld(t, func(fr *http2.Framer, stream uint32) { writeHead2(fr, stream, head, frameSize, false) })
	const connections, streams = 8, 40
	var mu sync.Mutex
	var answered, refused int
	var held []*exchange
	var answers []*http.Response
	grown := peak()
	var asking sync.WaitGroup
	for range connections {
		c := w.connect()
		for range streams {
			asking.Go(func() {
				x, resp, err := w.get(c)
				mu.Lock()
				defer mu.Unlock()
				held, answers = append(held, x), append(answers, resp)
				switch {
				case err == nil:
					answered++
				case errors.Is(err, memory.ErrExhausted):
					refused++
				default:
					t.Error(err)
				}
			})
		}
	}
	asking.Wait()
	used := w.s.memory.Used()
	if got := grown(); got > maxPeak {
		t.Errorf("memory grew by %d MiB", got>>20)
	} else {
		t.Logf("memory grew by %d MiB, %d of the budget used; %d answered, %d refused", got>>20, used>>20, answered, refused)
	}
	cost, _ := headCost(answers[0].Header)
	if answered == 0 || refused == 0 || used > memory.Min || used < int64(answered)*(cost-usualHeadCost) {
		t.Errorf("%d answered, %d refused, %d bytes are used", answered, refused, used)
	}
	for _, x := range held {
		x.end()
	}
}

// TestAnswerMemory: the memory of each head is held from before the library reads it until
// the request ends.
func TestAnswerMemory(t *testing.T) {
	const many = 500
	const least = (many - usualFields) * fieldCost / 2
	for name, tc := range map[string]struct {
		answer func(fr *http2.Framer, stream uint32)
		heads  int64
	}{
		"usual": {func(fr *http2.Framer, stream uint32) {
			writeHead2(fr, stream, answerBlock("200", usualFields/2), frameSize, true)
		}, 0},
		"large": {func(fr *http2.Framer, stream uint32) {
			writeHead2(fr, stream, answerBlock("200", many), frameSize, true)
		}, 1},
		"in several frames": {func(fr *http2.Framer, stream uint32) {
			writeHead2(fr, stream, answerBlock("200", many), 100, true)
		}, 1},
		"interim": {func(fr *http2.Framer, stream uint32) {
			for range 3 {
				writeHead2(fr, stream, answerBlock("103", many), frameSize, false)
			}
			writeHead2(fr, stream, answerBlock("200", 1), frameSize, true)
		}, 1},
		"trailers": {func(fr *http2.Framer, stream uint32) {
			writeHead2(fr, stream, answerBlock("200", many), frameSize, false)
			writeHead2(fr, stream, answerBlock("", many), frameSize, true)
		}, 2},
		"of no request": {func(fr *http2.Framer, stream uint32) {
			writeHead2(fr, stream+1000, answerBlock("200", many), 100, true)
			writeHead2(fr, stream, answerBlock("200", 1), frameSize, true)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newAnswerWorld(t, tc.answer)
			c := w.connect()
			for range 3 {
				x, resp, err := w.get(c)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
				if used := w.s.memory.Used(); used < tc.heads*least || used > 3*tc.heads*least {
					t.Errorf("%d bytes are held, want %d heads of at least %d", used, tc.heads, least)
				}
				x.end()
				if used := w.s.memory.Used(); used != 0 {
					t.Errorf("%d bytes are held after the end", used)
				}
			}
		})
	}
}

// TestAnswersWithoutMemory: a request for whose answer there is no memory ends; the others
// on its connection go on, unless the head is in several frames.
func TestAnswersWithoutMemory(t *testing.T) {
	const many = 500
	var size int
	var trailers bool
	w := newAnswerWorld(t, func(fr *http2.Framer, stream uint32) {
		switch {
		case stream == 1: // is answered later
		case trailers:
			writeHead2(fr, stream, answerBlock("200", 1), frameSize, false)
			writeHead2(fr, stream, answerBlock("", many), size, true)
		default:
			writeHead2(fr, stream, answerBlock("200", many), size, true)
		}
		if stream == 5 {
			writeHead2(fr, 1, answerBlock("200", 1), frameSize, true)
		}
	})
	for _, tc := range []struct {
		name     string
		size     int
		trailers bool
	}{
		{"a head", frameSize, false},
		{"trailers", frameSize, true},
		{"a head in frames", 100, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			size, trailers = tc.size, tc.trailers
			c := w.connect()
			first := make(chan error, 1)
			begun := make(chan struct{})
			go func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				x := newExchange(c, cancel)
				defer x.end()
				claimed := x.trace.WroteHeaders
				x.trace.WroteHeaders = func() {
					claimed()
					close(begun)
				}
				req, err := http.NewRequestWithContext(x.context(ctx), "GET", "https://api.example.com/a", nil)
				if err == nil {
					_, err = x.RoundTrip(req)
				}
				first <- err
			}()
			<-begun
			release := w.exhaust()
			began := time.Now()
			x, resp, err := w.get(c)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				if errors.Is(err, context.Canceled) { // the cause is that of the request
					err = memory.ErrExhausted
				}
			}
			if !errors.Is(err, memory.ErrExhausted) {
				t.Errorf("without memory: %v", err)
			}
			x.end()
			release()
			if tc.size < frameSize {
				if err := <-first; !errors.Is(err, memory.ErrExhausted) {
					t.Errorf("the other request: %v", err)
				}
				return
			}
			if x, _, err := w.get(c); err != nil {
				t.Errorf("the next request: %v", err)
			} else {
				x.end()
			}
			if err := <-first; err != nil {
				t.Errorf("the other request: %v", err)
			}
			if took := time.Since(began); took >= refusalTime {
				t.Errorf("the refusal took %s", took)
			}
		})
	}
}

// TestAnswerRefusalTime: the reader waits at most refusalTime until the library gives up a
// stream, and not at all for one that has ended.
func TestAnswerRefusalTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Min)
		full := b.Open(func() {})
		full.Force(memory.Min)
		head := func(prepare func(g *answerGate, x *exchange)) (time.Duration, error) {
			_, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			g := newAnswerGate(t.Context(), nil, b.Open(func() {}))
			x := newExchange(&h2Conn{gate: g}, cancel)
			_ = g.sent(http2.FrameHeaders, 0, 1)
			x.claim()
			prepare(g, x)
			block := answerBlock("200", 500)
			g.in.left = uint32(len(block))
			began := time.Now()
			err := g.received(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1)
			if err == nil {
				err = g.payload(block)
			}
			return time.Since(began), err
		}
		if took, err := head(func(*answerGate, *exchange) {}); !errors.Is(err, memory.ErrExhausted) || took != refusalTime {
			t.Errorf("a stream that goes on: %v after %s", err, took)
		}
		if took, err := head(func(_ *answerGate, x *exchange) { x.end() }); err != nil || took != 0 {
			t.Errorf("a request that has ended: %v after %s", err, took)
		}
		if took, err := head(func(g *answerGate, _ *exchange) {
			time.AfterFunc(time.Second, func() { _ = g.sent(http2.FrameRSTStream, 0, 1) })
		}); err != nil || took != time.Second {
			t.Errorf("a stream that is reset: %v after %s", err, took)
		}
		full.Release(memory.Min)
	})
}

// TestNoMemoryForAnswer: a request for whose answer there is no memory is answered 503 and
// recorded.
func TestNoMemoryForAnswer(t *testing.T) {
	for name, size := range map[string]int{"one frame": frameSize, "several": 500} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			w.frames(func(fr *http2.Framer, stream uint32) {
				w.fill()
				writeHead2(fr, stream, answerBlock("200", 500), size, true)
			})
			c := w.client(w.byConnect, "h2")
			resp, body := get(t, c, "POST", "https://api.example.com/a", nil)
			if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"error":"memory_exhausted"`) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if r := w.recorded(0); r.Verdict != "deny" || r.Status != 503 || r.Reason != memory.ErrExhausted.Error() {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

// TestBypass_B86_FrameSize: a server that accepts large frames does not make the proxy use
// large buffers for the bodies of requests.
func TestBypass_B86_FrameSize(t *testing.T) {
	ok := answerBlock("200", 1)
	var arrived sync.WaitGroup
	w := newAnswerWorld(t, func(fr *http2.Framer, stream uint32) {
		writeHead2(fr, stream, ok, frameSize, false)
	})
	w.settings = []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, {ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1}}
	c := w.connect()
	x, _, err := w.get(c) // the settings have arrived
	if err != nil {
		t.Fatal(err)
	}
	x.end()
	grown := peak()
	const requests = 120
	for range requests {
		arrived.Go(func() {
			body, sending := io.Pipe()
			t.Cleanup(func() { sending.Close() })
			x, _, err := w.send(c, body)
			if err != nil {
				t.Error(err)
			}
			x.end()
		})
	}
	arrived.Wait()
	if got := grown(); got > maxPeak {
		t.Errorf("memory grew by %d MiB", got>>20)
	} else {
		t.Logf("memory grew by %d MiB", got>>20)
	}
}

// TestSettingScanner: only the largest frame is changed, however the bytes are cut.
func TestSettingScanner(t *testing.T) {
	settings := []byte{0, 4, 0, 5, 0, 5, 0, 5, 1, 2, 3, 4, 5, 5, 9, 9, 9, 9, 0, 5, 0, 0, 0x40, 0}
	want := []byte{0, 4, 0, 5, 0, 5, 0, 5, 0, 0, 0x40, 0, 5, 5, 9, 9, 9, 9, 0, 5, 0, 0, 0x40, 0}
	for size := range len(settings) {
		var s settingScanner
		got := bytes.Clone(settings)
		for rest := got; len(rest) > 0; {
			n := min(size+1, len(rest))
			s.limit(rest[:n])
			rest = rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("in parts of %d bytes: %x, want %x", size+1, got, want)
		}
	}
}
