// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// FuzzForward sends bytes to an endpoint that allows everything: what arrives is
// exactly the requests that were judged, as they were judged.
func FuzzForward(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
		"GET /a/../b?x=y HTTP/1.1\r\nHost: api.example.com\r\n\r\nGET /%61 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\nPUT /b HTTP/1.0\r\nHost: api.example.com\r\n\r\n",
		"GET http://api.example.com?x HTTP/1.1\r\nHost: api.example.com\r\nConnection: x, close\r\nX: \xff\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	w := newWorld(f, endpoints(everything))
	w.s.timeouts.head, w.s.timeouts.idle = 100*time.Millisecond, 100*time.Millisecond
	var mu sync.Mutex
	var got bytes.Buffer
	ended := 0 // connections of the server
	w.raw("api.example.com", 80, func(c net.Conn) {
		var all bytes.Buffer
		br := bufio.NewReader(io.TeeReader(c, &all))
		for {
			req, err := http.ReadRequest(br)
			if err == nil {
				_, err = io.Copy(io.Discard, req.Body)
			}
			if err != nil {
				break
			}
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		_, _ = io.Copy(io.Discard, br)
		mu.Lock()
		got.Write(all.Bytes())
		ended++
		mu.Unlock()
	})
	addr := w.redirect("198.18.0.1:80")
	f.Fuzz(func(t *testing.T, text []byte) {
		mu.Lock()
		got.Reset()
		mu.Unlock()
		w.log.mu.Lock()
		w.log.list = nil
		w.log.mu.Unlock()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Skip(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write(text)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
		if !settles(func() bool { return w.sandbox.Connections() == 0 }) {
			t.Fatal("the connection does not end")
		}
		if !settles(func() bool {
			w.mu.Lock()
			dialled := len(w.dialled)
			w.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			return ended == dialled
		}) {
			t.Fatal("the server's connection does not end")
		}
		var judged []string
		for _, r := range w.log.all() {
			if r.Layer == "l7" && r.Verdict == "allow" && r.Method != "" {
				judged = append(judged, r.Method+" "+r.Path)
			}
		}
		mu.Lock()
		arrived := bytes.Clone(got.Bytes())
		mu.Unlock()
		br := bufio.NewReader(bytes.NewReader(arrived))
		for i := 0; ; i++ {
			req, err := http.ReadRequest(br)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%q: what arrived is no request: %v\n%q", text, err, arrived)
			}
			path, _, _ := strings.Cut(req.RequestURI, "?")
			if i >= len(judged) || judged[i] != req.Method+" "+path || req.Host != "api.example.com" {
				t.Fatalf("%q: request %d arrived as %s %s on %s, judged were %q", text, i, req.Method, req.RequestURI, req.Host, judged)
			}
			if !bytes.Contains(arrived, []byte(req.Method+" "+req.RequestURI+" HTTP/1.1\r\nHost: api.example.com\r\n")) {
				t.Fatalf("%q: arrived %q", text, arrived)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				break // cut off
			}
		}
	})
}
