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

// direct is the way past the proxy, to compare with.
func (w *world) direct(port uint16) net.Conn {
	w.t.Helper()
	c, err := w.connect(w.ctx, addrPortOf("api.example.com", port))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func compare(b *testing.B, policyText string, port uint16, f func(b *testing.B, w *world, dial func() net.Conn, direct bool)) {
	for _, direct := range []bool{true, false} {
		b.Run(map[bool]string{true: "direct", false: "proxied"}[direct], func(b *testing.B) {
			w := newWorld(b, policyText)
			f(b, w, func() net.Conn {
				var c net.Conn
				if direct {
					c = w.direct(port)
				} else {
					c = w.tunnel(fmt.Sprintf("api.example.com:%d", port))
				}
				_ = c.SetDeadline(time.Time{})
				return c
			}, direct)
		})
	}
}

func (w *world) trusting(direct bool) *tls.Config {
	c := &tls.Config{ServerName: "api.example.com", RootCAs: w.roots}
	if direct {
		c.RootCAs = pool(w.upstream)
	}
	return c
}

var small = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello") })

func BenchmarkHTTP1(b *testing.B) {
	compare(b, endpoints(everything), 443, func(b *testing.B, w *world, dial func() net.Conn, direct bool) {
		w.both(small, "http/1.1")
		c := tls.Client(dial(), w.trusting(direct))
		br := bufio.NewReader(c)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
	})
}

func BenchmarkHTTP2(b *testing.B) {
	compare(b, endpoints(everything), 443, func(b *testing.B, w *world, dial func() net.Conn, direct bool) {
		w.both(small, "h2")
		c := w.client(func(string) (net.Conn, error) { return dial(), nil }, "h2")
		c.Transport.(*http.Transport).TLSClientConfig.RootCAs = w.trusting(direct).RootCAs
		b.ReportAllocs()
		for b.Loop() {
			resp, err := c.Get("https://api.example.com/a")
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

func BenchmarkSplice(b *testing.B) {
	compare(b, endpoints("host: api.example.com, port: 25, protocol: tcp"), 25, func(b *testing.B, w *world, dial func() net.Conn, _ bool) {
		chunk := make([]byte, 1<<20)
		w.raw("api.example.com", 25, func(c net.Conn) {
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		})
		c := dial()
		b.SetBytes(int64(len(chunk)))
		in := make([]byte, len(chunk))
		for b.Loop() {
			if _, err := io.ReadFull(c, in); err != nil {
				b.Fatal(err)
			}
		}
	})
}
