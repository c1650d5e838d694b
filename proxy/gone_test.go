// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestClientGoneOnKeptConnections: the proxy notices a client that leaves while the server
// works on a request without a body, over a connection to the server that was opened early
// or has served a request before.
func TestClientGoneOnKeptConnections(t *testing.T) {
	for _, tc := range []struct {
		name   string
		secure bool
		// before is the number of requests on the connection before the one that the
		// client gives up.
		before int
	}{
		{"plain, first", false, 0},
		{"plain, second", false, 1},
		{"TLS, first", true, 0},
		{"TLS, second", true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			arrived, cancelled := make(chan struct{}, 1), make(chan bool, 1)
			serve := func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery == "" {
					_, _ = io.WriteString(rw, "hello")
					return
				}
				arrived <- struct{}{}
				select {
				case <-r.Context().Done():
					cancelled <- true
				case <-time.After(patience):
					cancelled <- false
				}
			}
			port, protocols := uint16(80), []string(nil)
			if tc.secure {
				port, protocols = 443, []string{"http/1.1"}
			}
			w.site("api.example.com", port, http.HandlerFunc(serve), protocols...)
			var c net.Conn = w.tunnel(fmt.Sprintf("api.example.com:%d", port))
			if tc.secure {
				c = w.secure(c, "api.example.com", "http/1.1")
			}
			br := bufio.NewReader(c)
			for range tc.before {
				_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
				if resp, body := answerOf(t, br, "GET"); resp.StatusCode != 200 || body != "hello" {
					t.Fatalf("%d %s", resp.StatusCode, body)
				}
			}
			_, _ = io.WriteString(c, "GET /a?wait HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
			<-arrived
			c.Close()
			if !<-cancelled {
				t.Error("the server still works on the request")
			}
			rec := w.recorded(tc.before)
			if rec.Verdict != "allow" || rec.Ended != "client" || rec.Status != 0 || rec.Reason != errClientGone.Error() {
				t.Errorf("recorded %+v", rec)
			}
			if n := w.accepts.Load(); n != 1 {
				t.Errorf("%d connections to the server, want 1", n)
			}
			if n := len(w.log.all()); n != tc.before+1 {
				t.Errorf("%d records, want %d", n, tc.before+1)
			}
		})
	}
}

// TestClientGoneWhileConnecting: a client that leaves while the proxy connects to the server
// is noticed, and the server gets no request.
func TestClientGoneWhileConnecting(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	began, ended := make(chan struct{}), make(chan bool, 1)
	w.raw("api.example.com", 443, func(c net.Conn) { // never answers the ClientHello
		close(began)
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := io.Copy(io.Discard, c)
		ended <- !timedOut(err)
	})
	c := w.dial()
	_, _ = io.WriteString(c, "GET https://api.example.com/a HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
	<-began
	c.Close()
	if !<-ended {
		t.Error("the proxy still connects")
	}
	if rec := w.recorded(0); rec.Verdict != "allow" || rec.Ended != "client" || rec.Status != 0 {
		t.Errorf("recorded %+v", rec)
	}
}

// TestRecordsWhenTheSandboxEnds: each request that is in flight when the sandbox ends has one
// record, which is there when Wait returns and blames no server.
func TestRecordsWhenTheSandboxEnds(t *testing.T) {
	const (
		get  = "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
		post = "POST /a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 10\r\n\r\nx"
		ws   = "GET /a HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	)
	for _, tc := range []struct {
		name, proto, text, answer string
		status                    int
	}{
		{"HTTP/1", "", get, "", 0},
		{"HTTP/1 in its body", "", post, "", 0},
		{"HTTP/1 in the answer", "", get, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", 200},
		{"TLS", "http/1.1", get, "", 0},
		{"HTTP/2", "h2", "", "", 0},
		{"WebSocket", "", ws, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 101},
		{"relay", "raw", "hello", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443]", "host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce", "host: raw.example.com, port: 7000, protocol: tcp"))
			const requests = 2
			arrived := make(chan struct{}, requests)
			switch tc.proto {
			case "", "raw":
				serve := func(c net.Conn) {
					_, _ = c.Read(make([]byte, 1))
					_, _ = io.WriteString(c, tc.answer)
					arrived <- struct{}{}
					_, _ = io.Copy(io.Discard, c)
				}
				w.raw("api.example.com", 80, serve)
				w.raw("raw.example.com", 7000, serve)
			default:
				w.site("api.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					arrived <- struct{}{}
					<-r.Context().Done()
				}), tc.proto)
			}
			for range requests {
				switch tc.proto {
				case "raw":
					_, _ = io.WriteString(w.tunnel("raw.example.com:7000"), tc.text)
				case "":
					c := w.tunnel("api.example.com:80")
					_, _ = io.WriteString(c, tc.text)
					_, _ = io.ReadFull(c, make([]byte, min(len(tc.answer), 1)))
				case "h2":
					f := newFramer(t, w)
					go f.get()
				default:
					c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", tc.proto)
					_, _ = io.WriteString(c, tc.text)
				}
			}
			for range requests {
				<-arrived
			}
			w.end()
			w.serving.Wait()
			w.s.Wait()
			all := w.log.all()
			if len(all) != requests {
				t.Errorf("%d records, want %d", len(all), requests)
			}
			for _, rec := range all {
				if rec.Verdict != "allow" || rec.Ended != "client" || rec.Status != tc.status || rec.Reason != errSandboxEnded.Error() {
					t.Errorf("recorded %+v", rec)
				}
			}
		})
	}
}
