// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestCutOffAnswersAreErrors(t *testing.T) {
	for _, tc := range []struct{ name, request, head string }{
		{"length", "GET / HTTP/1.1", "Content-Length: 10\r\n\r\nabc"},
		{"chunks", "GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
		{"until the end", "GET / HTTP/1.1", "\r\nabc"},
		{"until the end, HTTP/1.0", "GET / HTTP/1.0", "\r\nabc"},
		{"chunks to HTTP/1.0", "GET / HTTP/1.0", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", tc.name, secure), func(t *testing.T) {
				w := newWorld(t, endpoints(everything))
				begun := make(chan struct{}) // closed when the client has the head, or an error
				leaf, _ := w.upstream.Leaf("api.example.com")
				port := uint16(80)
				if secure {
					port = 443
				}
				w.raw("api.example.com", port, func(tcp net.Conn) {
					c := tcp
					if secure {
						c = tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{*leaf}})
					}
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+tc.head)
						<-begun
						reset(tcp)
					}
				})
				var c net.Conn = w.tunnel(fmt.Sprintf("api.example.com:%d", port))
				if secure {
					c = w.secure(c, "api.example.com")
				}
				_, _ = io.WriteString(c, tc.request+"\r\nHost: api.example.com\r\n\r\n")
				_ = c.SetReadDeadline(time.Now().Add(patience))
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				close(begun)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				if err == nil || timedOut(err) {
					t.Errorf("the answer ends with %v", err)
				}
			})
		}
	}
	t.Run("splice", func(t *testing.T) {
		w := newWorld(t, endpoints("host: api.example.com, port: 80, protocol: tcp"))
		begun := make(chan struct{}) // closed when the client has the first bytes, or an error
		w.raw("api.example.com", 80, func(c net.Conn) {
			_, _ = io.WriteString(c, "abc")
			<-begun
			reset(c)
		})
		c := w.tunnel("api.example.com:80")
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, err := io.ReadFull(c, make([]byte, 3))
		close(begun)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err == nil || timedOut(err) {
			t.Errorf("%q ends with %v", b, err)
		}
	})
}

func TestCutOffRequestsAreErrors(t *testing.T) {
	for _, text := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		w := newWorld(t, endpoints(everything))
		begun, ended := make(chan struct{}), make(chan error, 1)
		w.both(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 3))
			close(begun)
			_, err := io.ReadAll(r.Body)
			ended <- err
		}), "http/1.1")
		c := w.tunnel("api.example.com:80")
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: api.example.com\r\n"+text)
		select {
		case <-begun:
		case <-time.After(patience):
			t.Fatal("the request does not arrive")
		}
		c.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the request looks whole")
			}
		case <-time.After(patience):
			t.Error("the server still waits")
		}
	}
}
