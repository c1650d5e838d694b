// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const openHost = "host: api.example.com, ports: [80, 443, 8443], protocol: rest, enforcement: enforce, rules: [{allow: {method: '*', path: '/a/**'}}, {allow: {method: '*', path: /a}}]"

func TestBypass_B24_Smuggling(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	var got tap
	w.raw("api.example.com", 80, got.serve)
	const host = "Host: api.example.com\r\n"
	for _, tc := range []struct{ name, text string }{
		{"two lengths", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
		{"list of different lengths", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4, 3\r\n\r\nabcd"},
		{"length and Chunked", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"},
		{"two empty lines", "\r\n\r\nGET /a HTTP/1.1\r\n" + host + "\r\n"},
		{"length and chunks", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"chunks and length", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"},
		{"two encodings", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
		{"chunked, identity", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
		{"xchunked", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		{"vertical tab", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"},
		{"folded", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
		{"bare LF", "GET /a HTTP/1.1\n" + "Host: api.example.com\n\n"},
		{"bare LF in the head", "GET /a HTTP/1.1\r\n" + host + "X: y\nZ: z\r\n\r\n"},
		{"bare CR", "GET /a HTTP/1.1\r\n" + host + "X: y\rZ: z\r\n\r\n"},
		{"NUL", "GET /a HTTP/1.1\r\n" + host + "X: y\x00\r\n\r\n"},
		{"hexadecimal length", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 0x4\r\n\r\nabcd"},
		{"negative length", "POST /a HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\nabcd"},
		{"length with a plus", "POST /a HTTP/1.1\r\n" + host + "Content-Length: +4\r\n\r\nabcd"},
		{"space before the colon", "POST /a HTTP/1.1\r\n" + host + "Content-Length : 4\r\n\r\nabcd"},
		{"space before the name", "POST /a HTTP/1.1\r\n" + host + " Content-Length: 4\r\n\r\nabcd"},
		{"two Hosts", "GET /a HTTP/1.1\r\n" + host + host + "\r\n"},
		{"chunks in HTTP/1.0", "POST /a HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"HTTP/0.9", "GET /a\r\n\r\n"},
		{"HTTP/1.2", "GET /a HTTP/1.2\r\n" + host + "\r\n"},
		{"two spaces", "GET  /a HTTP/1.1\r\n" + host + "\r\n"},
		{"request line in the target", "GET /a HTTP/1.1\r\nGET /b HTTP/1.1\r\n" + host + "\r\n"},
		{"Connection names Host", "GET /a HTTP/1.1\r\n" + host + "Connection: host\r\n\r\n"},
		{"Connection names the length", "POST /a HTTP/1.1\r\n" + host + "Connection: content-length\r\nContent-Length: 4\r\n\r\nabcd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := w.tunnel("api.example.com:80")
			resp, body := ask(t, c, tc.text)
			if resp.StatusCode != 400 || !resp.Close {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	if s := got.got(); s != "" {
		t.Errorf("the server got %q", s)
	}
}

// What is inside a body that is malformed on its way never looks like a request.
func TestBypass_B24_BodiesAreWrittenAnew(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"chunk extension", "4;x=y\r\nabcd\r\n0\r\n\r\n", "4\r\nabcd\r\n0\r\n\r\n"},
		{"leading zeros", "0004\r\nabcd\r\n00\r\n\r\n", "4\r\nabcd\r\n0\r\n\r\n"},
		{"trailers", "4\r\nabcd\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n", "4\r\nabcd\r\n0\r\nX-Sum: 1\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			var got tap
			w.raw("api.example.com", 80, got.serve)
			c := w.tunnel("api.example.com:80")
			_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"+tc.text)
			if !settles(func() bool { return strings.HasSuffix(got.got(), tc.want) }) {
				t.Errorf("got %q", got.got())
			}
		})
	}
	for _, tc := range []struct{ name, text string }{
		{"bare LF after a size", "4\nabcd\r\n0\r\n\r\n"},
		{"LF in an extension", "4;a\nabcd\r\n0\r\n\r\n"},
		{"huge size", "fffffffffffffffff\r\nabcd\r\n0\r\n\r\n"},
		{"negative size", "-4\r\nabcd\r\n0\r\n\r\n"},
		{"size 0x4", "0x4\r\nabcd\r\n0\r\n\r\n"},
		{"no end of chunk", "4\r\nabcdXX0\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			var got tap
			w.raw("api.example.com", 80, got.serve)
			c := w.tunnel("api.example.com:80")
			_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"+tc.text+"GET /a/2 HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
			b, _ := io.ReadAll(c)
			if strings.Contains(string(b), "HTTP/1.1 200") {
				t.Errorf("%s", b)
			}
			if s := got.got(); strings.Contains(s, "0\r\n\r\n") || strings.Contains(s, "GET") {
				t.Errorf("the server got %q", s)
			}
		})
	}
}

func TestBypass_B25_EachPipelinedRequestIsJudged(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	plain, _ := w.both(nil, "http/1.1")
	const one, two = "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "GET /secret HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
	c := w.tunnel("api.example.com:80")
	_, _ = io.WriteString(c, one+two+one)
	br := bufio.NewReader(c)
	for i, want := range []int{200, 403} {
		if resp, body := answerOf(t, br, "GET"); resp.StatusCode != want {
			t.Errorf("answer %d: %d %s", i, resp.StatusCode, body)
		}
	}
	if _, err := br.ReadByte(); err == nil {
		t.Error("a third answer")
	}
	if got := plain.got(); len(got) != 1 || got[0].URI != "/a" {
		t.Errorf("arrived %v", got)
	}
}

func TestBypass_B25_BytesBeforeTheAnswerToCONNECT(t *testing.T) {
	for _, tc := range []struct {
		name, endpoint, early string
		arrives               bool
	}{
		{"denied host", "host: other.example.com, port: 80", "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n", false},
		{"denied request", openHost, "GET /secret HTTP/1.1\r\nHost: api.example.com\r\n\r\n", false},
		{"allowed request", openHost, "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n", true},
		{"raw", "host: api.example.com, port: 80, protocol: tcp", "\x01\x02\x03", true},
		{"raw where requests are judged", openHost, "\x01\x02\x03", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(tc.endpoint))
			got := tap{answer: "HTTP/1.1 204 No Content\r\n\r\n"}
			w.raw("api.example.com", 80, got.serve)
			c := w.dial()
			_, _ = io.WriteString(c, "CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\n"+tc.early)
			if tc.arrives {
				if !settles(func() bool { return got.got() != "" }) || tc.early[0] < ' ' && got.got() != tc.early {
					t.Errorf("the server got %q", got.got())
				}
				return
			}
			_, _ = io.ReadAll(c)
			if got.got() != "" {
				t.Errorf("the server got %q", got.got())
			}
		})
	}
}

func TestBypass_B27_HTTP2WithoutTLS(t *testing.T) {
	for _, endpoint := range []string{openHost, "host: api.example.com, ports: [80, 443, 8443]"} {
		w := newWorld(t, endpoints(endpoint))
		got := tap{answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"}
		w.raw("api.example.com", 80, got.serve)
		for _, c := range []net.Conn{w.tunnel("api.example.com:80"), w.to("198.18.0.1:80")} {
			_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			if err := gone(c); err != nil {
				t.Errorf("%s: %v", endpoint, err)
			}
		}
		if got.got() != "" {
			t.Errorf("the server got %q", got.got())
		}
		resp, _ := ask(t, w.tunnel("api.example.com:80"), "GET /a HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if resp.StatusCode != 502 {
			t.Errorf("%s: status %d", endpoint, resp.StatusCode)
		}
		if s := strings.ToLower(got.got()); strings.Contains(s, "upgrade") || strings.Contains(s, "http2-settings") {
			t.Errorf("%s: the server got %q", endpoint, s)
		}
	}
}

func TestBypass_B28_SwitchingProtocols(t *testing.T) {
	const ws = "GET /a HTTP/1.1\r\nHost: api.example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	const yes = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
	for _, tc := range []struct {
		name, endpoint, request, answer string
		status                          int
	}{
		{"asked for where requests are judged", openHost, ws, yes, 403},
		{"asked for where they are not", "host: api.example.com, port: 80", ws, yes, 101},
		{"unasked", "host: api.example.com, port: 80", "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n", yes, 502},
		{"another protocol than asked for", "host: api.example.com, port: 80", ws, strings.Replace(yes, "websocket", "h2c", 1), 502},
		{"with a body", "host: api.example.com, port: 80", strings.Replace(ws, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx", 1), yes, 502},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(tc.endpoint))
			got := tap{answer: tc.answer + "FRAME"}
			w.raw("api.example.com", 80, got.serve)
			c := w.tunnel("api.example.com:80")
			_, _ = io.WriteString(c, tc.request)
			br := bufio.NewReader(c)
			resp, err := http.ReadResponse(br, &http.Request{Method: "GET"})
			if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("%v %v", resp, err)
			}
			resp.Body.Close()
			if tc.status != 101 {
				_, _ = io.WriteString(c, "\x81\x00SMUGGLED")
				_, _ = io.ReadAll(br)
				if s := got.got(); strings.Contains(s, "SMUGGLED") {
					t.Errorf("the server got %q", s)
				}
				return
			}
			_, _ = io.WriteString(c, "\x81\x00ping")
			b := make([]byte, 5)
			if _, err := io.ReadFull(br, b); err != nil || string(b) != "FRAME" {
				t.Errorf("%q %v", b, err)
			}
			if !settles(func() bool { return strings.HasSuffix(got.got(), "\x81\x00ping") }) {
				t.Errorf("the server got %q", got.got())
			}
			// From then on nobody looks at it: rules end it.
			w.load(endpoints(openHost))
			if err := gone(c); err != nil {
				t.Errorf("after the reload: %v", err)
			}
		})
	}
}

func TestBypass_B29_WhatIsJudgedIsWhatIsSent(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443], protocol: rest, access: full, enforcement: enforce"))
	plain, secure := w.both(nil, "h2")
	for _, tc := range []struct{ sent, want string }{
		{"/public/../secret", "/secret"},
		{"/public/%2e%2e/secret", "/secret"},
		{"/a//b", "/a/b"},
		{"/a/./b", "/a/b"},
		{"/a;x=y/b", "/a/b"},
		{"/%61", "/a"},
		{"/%3a", "/:"},
		{"/%22%5b%7c", "/%22%5B%7C"},
		{"/\"[|", "/%22%5B%7C"},
		{"/a%3Bx=y/b", "/a/b"},
		{"/a%20b", "/a%20b"},
		{"/%252e%252e/x", "/%252e%252e/x"},
		{"/a?b=/../c", "/a?b=/../c"},
		{"/a?", "/a"},
		{"/a%3Fb", "/a%3Fb"},
		{"/a?x=%2e%2e%2f", "/a?x=%2e%2e%2f"},
		{"/%C3%A9", "/%C3%A9"},
		{"/a?x?y", "/a?x?y"},
		{"//evil.example.net/x", "/evil.example.net/x"},
		{"/:80/x", "/:80/x"},
		{"/a%2fb", ""},
		{"/a%5cb", ""},
		{"/a\\b", ""},
		{"/../a", ""},
		{"/%c0%ae", "/%C0%AE"}, // no rule reads the path: see TestAcceptedRequests
		{"/a%00", ""},
		{"/a%", ""},
		{"/a%zz", ""},
		{"/a%0d%0aX:y", ""},
		{"/a?x=\x7f", ""},
		{"/\xc3\xa9", "/%C3%A9"},
		{"/\xff", ""},
		{"/a?\xc3\xa9", "/a?%C3%A9"},
		{"/a?\xff", ""},
	} {
		t.Run(tc.sent, func(t *testing.T) {
			for _, proto := range []string{"http/1.1", "h2"} {
				before, noted := len(plain.got())+len(secure.got()), len(w.log.all())
				status, site := 0, plain
				if proto == "h2" {
					site = secure
					status = newFramer(t, w).get(":path", tc.sent)
				} else {
					resp, _ := ask(t, w.tunnel("api.example.com:80"), "GET "+tc.sent+" HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
					status = resp.StatusCode
				}
				arrived := len(plain.got()) + len(secure.got()) - before
				if tc.want == "" {
					if status == 200 || arrived != 0 {
						t.Errorf("%s: %d, %d requests arrived", proto, status, arrived)
					}
					continue
				}
				if status != 200 || arrived != 1 {
					t.Fatalf("%s: %d, %d requests arrived", proto, status, arrived)
				}
				got := site.got()[len(site.got())-1].URI
				path, _, _ := strings.Cut(tc.want, "?")
				if rec := w.recorded(noted); got != tc.want || rec.Path != path {
					t.Errorf("%s: the server got %q, judged was %q, want %q", proto, got, rec.Path, tc.want)
				}
			}
		})
	}
}

func TestBypass_B31_Limits(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	plain, _ := w.both(nil, "http/1.1")
	head := func(s string) string { return "GET /a HTTP/1.1\r\nHost: api.example.com\r\n" + s + "\r\n" }
	for _, tc := range []struct {
		name, text string
		status     int
	}{
		{"large head", head("X: " + strings.Repeat("a", MaxHead) + "\r\n"), 431},
		{"many fields", head(strings.Repeat("X: y\r\n", 300)), 431},
		{"endless request line", "GET /" + strings.Repeat("a", 2*MaxHead), 431},
		{"long path", "GET /a/" + strings.Repeat("a", 5000) + " HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 400},
		{"slow head", "GET /a HTTP/1.1\r\nHost: api.exa", 408},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			if resp, body := ask(t, w.tunnel("api.example.com:80"), tc.text); resp.StatusCode != tc.status {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if d := time.Since(start); d > 3*w.s.timeouts.head {
				t.Errorf("took %s", d)
			}
		})
	}
	t.Run("byte by byte", func(t *testing.T) {
		c, start := w.tunnel("api.example.com:80"), time.Now()
		for time.Since(start) < patience {
			if _, err := fmt.Fprint(c, "G"); err != nil {
				break
			}
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // a slow client
		}
		if d := time.Since(start); d > 3*w.s.timeouts.head {
			t.Errorf("still open after %s", d)
		}
	})
	if n := len(plain.got()); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestAcceptedRequests (issue 11, point 12): what RFC 9110 and 9112 let a recipient
// accept goes on in one spelling, which is the one that was judged.
func TestAcceptedRequests(t *testing.T) {
	const host = "Host: api.example.com\r\n"
	for _, tc := range []struct{ name, text, want string }{
		{"an empty line before the request", "\r\nGET /a HTTP/1.1\r\n" + host + "\r\n", "GET /a HTTP/1.1\r\n" + host + "\r\n"},
		{"HTTP/1.0 without Host", "GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\n" + host + "\r\n"},
		{"Chunked", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n", "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"},
		{"a list of equal lengths", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4, 4\r\n\r\nabcd", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\nabcd"},
		{"equal lengths", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\nabcd"},
		{"UTF-8 in the query", "GET /a?q=é&x HTTP/1.1\r\n" + host + "\r\n", "GET /a?q=%C3%A9&x HTTP/1.1\r\n" + host + "\r\n"},
		{"UTF-8 in the path", "GET /a/é HTTP/1.1\r\n" + host + "\r\n", "GET /a/%C3%A9 HTTP/1.1\r\n" + host + "\r\n"},
	} {
		for name, endpoint := range map[string]string{"rules": openHost, "plain": "host: api.example.com, ports: [80, 443]"} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				w := newWorld(t, endpoints(endpoint))
				got := tap{answer: "HTTP/1.1 204 No Content\r\n\r\n"}
				w.raw("api.example.com", 80, got.serve)
				for _, c := range []net.Conn{w.tunnel("api.example.com:80"), w.to("198.18.0.1:80")} {
					before := got.got()
					_, _ = io.WriteString(c, tc.text)
					if resp, body := answerOf(t, bufio.NewReader(c), "GET"); resp.StatusCode != 204 {
						t.Errorf("%d %s", resp.StatusCode, body)
					}
					if !settles(func() bool { return strings.TrimPrefix(got.got(), before) == tc.want }) {
						t.Errorf("the server got %q, want %q", strings.TrimPrefix(got.got(), before), tc.want)
					}
				}
			})
		}
	}
}

// TestLatin1Escapes (issue 11, point 12): escapes of another encoding than UTF-8 pass
// where no rule reads the path or the query, and nowhere else: a server may read them as
// letters that a deny rule names.
func TestLatin1Escapes(t *testing.T) {
	spelled(t, "access: full", []spelling{
		{"GET", "/caf%e9?q=caf%E9", "", "/caf%E9?q=caf%E9"},
		{"GET", "/%c0%ae%c0%ae/x", "", "/%C0%AE%C0%AE/x"},
		{"GET", "/caf%c3%a9", "", "/caf%C3%A9"},
	})
	spelled(t, "access: full, deny_rules: [{method: DELETE, path: '**'}]", []spelling{
		{"GET", "/caf%e9", "", "/caf%E9"},
		{"DELETE", "/caf%e9", "", ""},
	})
	for _, rules := range []string{
		"access: full, deny_rules: [{method: '*', path: /café}]",
		"rules: [{allow: {method: '*', path: '/*'}}]",
		"access: full, path: '/**'",
		"access: full, deny_rules: [{method: '*', path: /, query: {q: 'é'}}]",
	} {
		spelled(t, rules, []spelling{
			{"GET", "/caf%e9", "", ""},
			{"GET", "/caf%c3%a8", "", "/caf%C3%A8"},
			{"GET", "/caf%C3%A8/..%e9", "", ""},
		})
	}
	spelled(t, "access: full, deny_rules: [{method: '*', query: {q: 'é'}}]", []spelling{
		{"GET", "/caf?q=%e9", "", ""},
		{"GET", "/caf%e9", "", "/caf%E9"},
	})
}
