// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const everything = "host: api.example.com, ports: [80, 443], protocol: rest, access: full, enforcement: enforce"

func each(t *testing.T, f func(t *testing.T, w *world, e entry)) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) { f(t, newWorld(t, endpoints(everything)), e) })
	}
}

func TestAnswersStream(t *testing.T) {
	each(t, func(t *testing.T, w *world, e entry) {
		next := make(chan struct{})
		w.both(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(rw, "data: %d\n\n", i)
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-next:
				case <-time.After(patience):
				}
			}
		}), "h2", "http/1.1")
		resp, err := e.client(w).Get(e.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		br := bufio.NewReader(resp.Body)
		for i := range 3 {
			if s, err := br.ReadString('\n'); err != nil || s != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q %v", s, err)
			}
			_, _ = br.ReadString('\n')
			next <- struct{}{}
		}
	})
}

func TestUploadsStream(t *testing.T) {
	each(t, func(t *testing.T, w *world, e entry) {
		got := make(chan string)
		w.both(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			b := make([]byte, 3)
			for {
				n, err := io.ReadFull(r.Body, b)
				if n > 0 {
					got <- string(b[:n])
				}
				if err != nil {
					return
				}
			}
		}), "h2", "http/1.1")
		pr, pw := io.Pipe()
		go func() {
			defer pw.Close()
			for _, s := range []string{"one", "two"} {
				_, _ = io.WriteString(pw, s)
				select {
				case arrived := <-got:
					if arrived != s {
						t.Errorf("got %q", arrived)
					}
				case <-time.After(patience):
					t.Errorf("%s is held back", s)
				}
			}
		}()
		if resp, _ := get(t, e.client(w), "POST", e.url("/"), pr); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}

func TestLargeBodies(t *testing.T) {
	each(t, func(t *testing.T, w *world, e entry) {
		const size = 64 << 20
		w.both(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, _ := io.Copy(h, r.Body)
			rw.Header().Set("X-Sum", fmt.Sprintf("%d %x", n, h.Sum(nil)))
			chunk := make([]byte, 1<<20)
			for i := range size >> 20 {
				chunk[0] = byte(i)
				_, _ = rw.Write(chunk)
			}
		}), "h2", "http/1.1")
		sent := sha256.New()
		body := io.TeeReader(io.LimitReader(rand.Reader, size), sent)
		req, _ := http.NewRequest("POST", e.url("/"), io.NopCloser(body))
		resp, err := e.client(w).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, want := resp.Header.Get("X-Sum"), fmt.Sprintf("%d %x", size, sent.Sum(nil)); got != want {
			t.Errorf("the server got %s, want %s", got, want)
		}
		got, want := sha256.New(), sha256.New()
		if n, err := io.Copy(got, resp.Body); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		chunk := make([]byte, 1<<20)
		for i := range size >> 20 {
			chunk[0] = byte(i)
			want.Write(chunk)
		}
		if string(got.Sum(nil)) != string(want.Sum(nil)) {
			t.Error("the answer is another")
		}
	})
}

func TestTrailersAsInGRPC(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	_, secure := w.both(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		_ = http.NewResponseController(rw).Flush()
		b := make([]byte, 4)
		for { // bidirectional: an answer to each message
			if _, err := io.ReadFull(r.Body, b); err != nil {
				break
			}
			_, _ = rw.Write(b)
			_ = http.NewResponseController(rw).Flush()
		}
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", "7")
	}), "h2")
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "https://api.example.com/pkg.Service/Method", pr)
	req.Header.Set("Te", "trailers")
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := w.client(w.byConnect, "h2").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 4)
	for _, s := range []string{"ping", "pong"} {
		_, _ = io.WriteString(pw, s)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != s {
			t.Fatalf("%q %v", b, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
	if got := resp.Trailer.Get("Grpc-Status"); got != "7" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	if r := secure.got()[0]; r.Header.Get("Te") != "trailers" || r.Method != "POST" {
		t.Errorf("the server got %v", r)
	}
}

// HTTP/1 answers as a server writes them and as the client gets them.
func TestHTTP1Answers(t *testing.T) {
	for _, tc := range []struct{ name, request, answer, want string }{
		{"chunks and trailers", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"no content", "GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"not modified, with a length", "GET / HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"},
		{"HEAD", "HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"},
		{"early hints", "GET / HTTP/1.1", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"},
		{"until the end", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"until the end, HTTP/1.0", "GET / HTTP/1.0", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"chunks to HTTP/1.0", "GET / HTTP/1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"length, HTTP/1.0", "GET / HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"},
		{"kept, HTTP/1.0", "GET / HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"},
		{"fields of the hop", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"two requests in one answer", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(everything))
			got := tap{answer: tc.answer}
			w.raw("api.example.com", 80, func(c net.Conn) {
				if !strings.Contains(tc.answer, "Connection: close") {
					got.serve(c)
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, tc.answer)
			})
			c := w.tunnel("api.example.com:80")
			_, _ = io.WriteString(c, tc.request+"\r\nHost: api.example.com\r\n\r\n")
			b := make([]byte, len(tc.want))
			if n, err := io.ReadFull(c, b); err != nil || string(b) != tc.want {
				t.Errorf("%v\n got %q\nwant %q", err, b[:n], tc.want)
			}
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if rest, _ := io.ReadAll(c); len(rest) > 0 {
				t.Errorf("then %q", rest)
			}
		})
	}
}

// An answer that nobody asked for is not the next request's, wherever it waits:
// before TLS, in it as a record that is still to be opened, or behind it.
func TestBypass_B25_UnaskedAnswerIsDropped(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
	for _, tc := range []struct {
		name string
		port uint16
		// filling makes the answer longer than a buffer.
		filling     int
		unasked     []string
		connections int64
	}{
		{"plain", 80, 0, []string{evil}, 2},
		{"in the same record", 443, 0, []string{evil}, 2},
		{"in the same record, behind a buffer", 443, 2 * upstreamBuffer, []string{evil}, 2},
		{"in the next record", 443, 0, []string{"", evil}, 2},
		{"no answer but one byte", 443, 0, []string{"", "x"}, 2},
		{"control: nothing", 443, 2 * upstreamBuffer, nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(everything))
			leaf, err := w.upstream.Leaf("api.example.com")
			if err != nil {
				t.Fatal(err)
			}
			body := func(path string) string { return path + strings.Repeat(".", tc.filling) }
			w.raw("api.example.com", tc.port, func(c net.Conn) {
				held := &heldConn{Conn: c}
				c = held
				if tc.port == 443 {
					c = tls.Server(held, &tls.Config{Certificates: []tls.Certificate{*leaf}, DynamicRecordSizingDisabled: true})
				}
				br := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					answer := body(req.URL.Path)
					records := []string{fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)}
					if req.URL.Path == "/1" && len(tc.unasked) > 0 {
						records[0] += tc.unasked[0]
						records = append(records, tc.unasked[1:]...)
					}
					held.hold()
					for _, r := range records {
						_, _ = io.WriteString(c, r)
					}
					held.release()
				}
			})
			var c net.Conn = w.tunnel(fmt.Sprintf("api.example.com:%d", tc.port))
			if tc.port == 443 {
				c = w.secure(c, "api.example.com")
			}
			for _, path := range []string{"/1", "/2"} {
				if _, got := ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); got != body(path) {
					t.Errorf("%s: got %.20q", path, got)
				}
			}
			if n := w.accepts.Load(); n != tc.connections {
				t.Errorf("%d connections, want %d", n, tc.connections)
			}
		})
	}
}

// heldConn sends what is written while it is held in one piece.
type heldConn struct {
	net.Conn
	holds bool
	held  []byte
}

func (c *heldConn) Write(b []byte) (int, error) {
	if !c.holds {
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *heldConn) hold() { c.holds = true }

func (c *heldConn) release() {
	_, _ = c.Conn.Write(c.held)
	c.holds, c.held = false, nil
}

func TestExpectContinue(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	plain, _ := w.both(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			rw.WriteHeader(417)
			return
		}
		_, _ = io.Copy(rw, r.Body)
	}), "http/1.1")
	const head = " HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
	c := w.tunnel("api.example.com:80")
	_, _ = io.WriteString(c, "PUT /yes"+head)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 100 {
		t.Fatalf("%v %v", resp, err)
	}
	_, _ = io.WriteString(c, "body")
	if resp, body := answerOf(t, br, "PUT"); resp.StatusCode != 200 || body != "body" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, _ := ask(t, w.tunnel("api.example.com:80"), "PUT /no"+head); resp.StatusCode != 417 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if len(plain.got()) != 2 {
		t.Errorf("arrived %v", plain.got())
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world, e entry) {
		plain, secure := w.both(nil, "h2", "http/1.1")
		c := e.client(w)
		for range 100 {
			get(t, c, "GET", e.url("/"), nil)
			get(t, c, "POST", e.url("/"), strings.NewReader("x"))
		}
		if n := w.accepts.Load(); n != 1 {
			t.Errorf("%d connections were made", n)
		}
		if n := len(plain.got()) + len(secure.got()); n != 200 {
			t.Errorf("%d requests arrived", n)
		}
	})
}

func TestIdleConnectionThatEndedIsMadeAgain(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	closed := make(chan struct{}, 5)
	w.raw("api.example.com", 80, func(c net.Conn) { // serves one request
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		c.Close()
		closed <- struct{}{}
	})
	c := w.tunnel("api.example.com:80")
	for i := range 5 {
		if resp, body := ask(t, c, "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 1\r\n\r\nx"); resp.StatusCode != 200 {
			t.Fatalf("request %d: %d %s", i, resp.StatusCode, body)
		}
		<-closed
	}
	if n := w.accepts.Load(); n != 5 {
		t.Errorf("%d connections", n)
	}
}

// What may have been done already is not done again.
func TestRequestsThatChangeThingsAreSentOnce(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	var got tap
	w.raw("api.example.com", 80, func(c net.Conn) {
		br := bufio.NewReader(c)
		for range 2 {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			got.mu.Lock()
			got.all.WriteString(req.Method + " ")
			got.mu.Unlock()
			if req.Method == "POST" {
				return // without an answer
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := w.tunnel("api.example.com:80")
	ask(t, c, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
	if resp, _ := ask(t, c, "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n\r\n"); resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if s := got.got(); s != "GET POST " {
		t.Errorf("the server got %q", s)
	}
}

func TestClientGoneCancelsTheRequest(t *testing.T) {
	each(t, func(t *testing.T, w *world, e entry) {
		came, cancelled := make(chan bool, 1), make(chan bool, 1)
		w.both(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			came <- true
			select {
			case <-r.Context().Done():
				cancelled <- true
			case <-time.After(patience):
				cancelled <- false
			}
		}), "h2", "http/1.1")
		for _, body := range []io.Reader{nil, strings.NewReader("x")} {
			ctx, cancel := context.WithCancel(context.Background())
			go func() { <-came; cancel() }()
			req, _ := http.NewRequestWithContext(ctx, "POST", e.url("/"), body)
			if resp, err := e.client(w).Do(req); !errors.Is(err, context.Canceled) {
				t.Errorf("%v %v", resp, err)
			}
			if !<-cancelled {
				t.Error("the server still works on it")
			}
		}
	})
}

// The answer to a request that is still being sent arrives.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	w.raw("api.example.com", 80, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			_, _ = io.Copy(io.Discard, c)
		}
	})
	c := w.tunnel("api.example.com:80")
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100000\r\n\r\nabc")
	if resp, body := answerOf(t, bufio.NewReader(c), "POST"); resp.StatusCode != 413 || body != "no" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestHalfClosedSplice(t *testing.T) {
	for _, endpoint := range []string{"host: api.example.com, port: 25, protocol: tcp", "host: api.example.com, port: 25"} {
		w := newWorld(t, endpoints(endpoint))
		w.raw("api.example.com", 25, func(c net.Conn) {
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d", len(b))
		})
		for _, c := range []*net.TCPConn{w.tunnel("api.example.com:25"), w.to("198.18.0.1:25")} {
			_, _ = c.Write(make([]byte, 100000))
			_ = c.CloseWrite()
			if b, err := io.ReadAll(c); err != nil || string(b) != "100000" {
				t.Errorf("%q %v", b, err)
			}
		}
	}
}

func TestBadCertificateOfTheServer(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		w := newWorld(t, endpoints(everything))
		other, _ := w.upstream.Leaf("other.example.com")
		got := make(chan int, 10)
		w.raw("api.example.com", 443, func(c net.Conn) {
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*other}, NextProtos: []string{proto}})
			n, _ := io.Copy(io.Discard, tc)
			got <- int(n)
		})
		resp, body := get(t, w.client(w.byConnect, proto), "GET", "https://api.example.com/", nil)
		if resp.StatusCode != 502 || !strings.Contains(body, "upstream_unreachable") {
			t.Errorf("%s: %d %s", proto, resp.StatusCode, body)
		}
		if n := <-got; n > 0 {
			t.Errorf("%s: %d bytes were sent", proto, n)
		}
	}
}

func TestSessionsAreResumed(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	resumed := make(chan bool, 10)
	w.both(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { resumed <- r.TLS.DidResume }), "http/1.1")
	cache := tls.NewLRUClientSessionCache(1)
	for i := range 3 {
		c := tls.Client(w.tunnel("api.example.com:443"), &tls.Config{ServerName: "api.example.com", RootCAs: w.roots, ClientSessionCache: cache})
		ask(t, c, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
		if got := c.ConnectionState().DidResume; got != (i > 0) {
			t.Errorf("connection %d: the client resumed: %v", i, got)
		}
		if got := <-resumed; got != (i > 0) {
			t.Errorf("connection %d: the proxy resumed: %v", i, got)
		}
		c.Close()
	}
}

func TestConnectionsFitTheDescriptors(t *testing.T) {
	for limit, want := range map[uint64]int{0: 4, 100: 4, 1024: 266, 20000: 6592, 1 << 20: MaxConnections, 1<<64 - 1: MaxConnections} {
		if got := connectionsWithin(limit); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", limit, got, want)
		}
		if limit > 1000 && uint64(connectionsWithin(limit))*descriptors+reservedDescriptors > limit {
			t.Errorf("%d descriptors are too few", limit)
		}
	}
}
