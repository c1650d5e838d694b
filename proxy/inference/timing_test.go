// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/policy"
)

// Each part of a stream reaches the caller before the backend makes the next one.
func TestEachPartArrivesBeforeTheNextIsMade(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			next := make(chan struct{})
			b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				for _, p := range tt.parts {
					select {
					case <-next:
					case <-req.Context().Done():
						return
					}
					_, _ = io.WriteString(w, p)
					w.(http.Flusher).Flush()
				}
			})
			rt := b.route(t, tt.dialect)
			rt.Model = "real"
			s := serve(t, Config{Routes: []Route{rt}})
			resp := s.do(t, "POST", tt.path, tt.body) // the head comes before the first part
			for i, p := range tt.parts {
				next <- struct{}{}
				got := make([]byte, len(p))
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != p {
					t.Fatalf("part %d: %q, %v", i, got, err)
				}
			}
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
				t.Errorf("after the end: %q, %v", rest, err)
			}
		})
	}
}

// The same on HTTP/2, on which a cut stream is reset.
func TestHTTP2(t *testing.T) {
	parts := messageParts
	cut := make(chan bool, 2)
	cut <- false
	cut <- true
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		if <-cut {
			streaming(sseType, parts[:3]...)(w, req)
			panic(http.ErrAbortHandler)
		}
		streaming(sseType, parts...)(w, req)
	})
	r, err := New(Config{Routes: []Route{b.route(t, Anthropic)}, Do: do(t)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(r)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	tr := &http2.Transport{DialTLSContext: func(ctx context.Context, _, _ string, cfg *tls.Config) (net.Conn, error) {
		cfg.InsecureSkipVerify = true // the test's own server, under another name
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
	defer tr.CloseIdleConnections()
	ask := func() (string, error) {
		req, _ := http.NewRequest("POST", "https://"+policy.RouterHost+"/v1/messages", strings.NewReader(`{"model":"m","stream":true}`))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, err := io.ReadAll(resp.Body)
		return string(out), err
	}
	if got, err := ask(); err != nil || got != strings.Join(parts, "") {
		t.Errorf("%q, %v", got, err)
	}
	got, err := ask()
	if err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
		t.Errorf("the cut stream ended with %v", err)
	}
	mustContain(t, "the cut stream", got, "event: error\n")
}

// A stream may be longer than any timeout, but not idle for longer than its own.
func TestIdleLimitIsBetweenParts(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", sseType)
		for range 8 {
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the whole stream takes longer than each timeout
			_, _ = io.WriteString(w, chatParts[0])
			w.(http.Flusher).Flush()
		}
		select {
		case <-stop:
		case <-req.Context().Done():
		}
	})
	rt := b.route(t, OpenAI)
	rt.Timeout, rt.IdleTimeout = 100*time.Millisecond, 250*time.Millisecond
	s := serve(t, Config{Routes: []Route{rt}})
	began := time.Now()
	got, err := io.ReadAll(s.do(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true}`).Body)
	if err == nil || strings.Count(string(got), chatParts[0]) != 8 {
		t.Errorf("%q, %v", got, err)
	}
	mustContain(t, "the end", string(got), "the backend stopped answering")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if u := s.record(t, 1); u.Error != "the backend stopped answering" {
		t.Errorf("record %+v", u)
	}
}

func TestTimeoutOfAWholeAnswer(t *testing.T) {
	for name, begin := range map[string]string{"no head": "", "no body": `{"a":`} {
		b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
			if begin != "" {
				_, _ = io.WriteString(w, begin)
				w.(http.Flusher).Flush()
			}
			<-req.Context().Done()
		})
		rt := b.route(t, OpenAI)
		rt.Timeout = 100 * time.Millisecond
		s := serve(t, Config{Routes: []Route{rt}})
		if status, body := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m"}`); status != 503 {
			t.Errorf("%s: %d %s", name, status, body)
		}
		mustContain(t, name, s.record(t, 1).Error, "too long")
	}
}

func TestTooLargeAnswers(t *testing.T) {
	chunk := []byte(`data: "` + strings.Repeat("x", 1<<20) + "\"\n\n")
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v1/chat/completions" {
			w.Header().Set("Content-Type", sseType)
		}
		for range 40 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
	if n, err := io.Copy(io.Discard, s.do(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true}`).Body); err == nil || n > MaxStream+1<<20 {
		t.Errorf("stream: %d bytes, %v", n, err)
	}
	if status, body := s.ask(t, "POST", "/v1/embeddings", `{"model":"m"}`); status != 502 || len(body) > 1000 {
		t.Errorf("whole: %d %.100s", status, body)
	}
}

// What is held of bodies is given back, however their exchange ends.
func TestBodiesAreGivenBack(t *testing.T) {
	status := atomic.Int64{}
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		switch n := int(status.Load()); n {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			streaming(sseType, chatParts[0])(w, req)
		case 2:
			streaming(sseType, chatParts...)(w, req)
		default:
			replying(n, `{"x":"`+strings.Repeat("y", 100_000)+`"}`)(w, req)
		}
	})
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
	n := 0
	for _, st := range []int64{0, 1, 2, 200, 400, 401, 500, 302} {
		status.Store(st)
		resp := s.do(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true,"x":"`+strings.Repeat("z", 50_000)+`"}`)
		_, _ = io.Copy(io.Discard, resp.Body)
		n++
		s.record(t, n)
	}
	for _, body := range []string{`{`, `{"x":"` + strings.Repeat("z", MaxRequest) + `"}`} {
		s.ask(t, "POST", "/v1/chat/completions", body)
		n++
		s.record(t, n)
	}
	m := s.router.Meter()
	if !testenv.Eventually(5*time.Second, func() bool { return s.memory.Used() == 0 }) {
		t.Fatalf("%d bytes are still held", s.memory.Used())
	}
	s.account.Force(s.memory.Limit())
	if status, body := s.ask(t, "POST", "/v1/embeddings", `{"model":"m"}`); status != 503 {
		t.Errorf("with no room: %d %s", status, body)
	}
	s.record(t, n+1)
	if n, _, _ := counted(m, "refused"); n != 3 || m.active != 0 {
		t.Errorf("%d refused, %d active", n, m.active)
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	const n = 200
	var open sync.WaitGroup
	open.Add(n)
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		streaming(sseType, chatParts[0])(w, req)
		open.Done()
		open.Wait() // all are open at a time
		streaming(sseType, chatParts[1:]...)(w, req)
	})
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
	want := strings.Join(chatParts, "")
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			req, _ := http.NewRequest("POST", "http://"+policy.RouterHost+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
			resp, err := s.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != want {
				t.Errorf("%.200q, %v", got, err)
			}
		})
	}
	all.Wait()
	s.record(t, n)
	if calls, _, out := counted(s.router.Meter(), "answered"); calls != n || out != 7*n {
		t.Errorf("%d calls with %d tokens are counted", calls, out)
	}
}

// HTTP/1.0 and HTTP/1.1 callers see a cut stream as a broken connection.
func TestCutStreamClosesTheConnection(t *testing.T) {
	b := newBackend(t, streaming(sseType, chatParts[0]))
	r, err := New(Config{Routes: []Route{b.route(t, OpenAI)}, Do: do(t)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := `{"model":"m","stream":true}`
	_, _ = io.WriteString(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: inference.local\r\nContent-Length: 27\r\n\r\n"+body)
	raw, _ := io.ReadAll(bufio.NewReader(c)) // until the router closes
	mustContain(t, "the answer", string(raw), "Transfer-Encoding: chunked", "the answer was cut off")
	mustNotContain(t, "the answer", string(raw), "\r\n0\r\n")
}
