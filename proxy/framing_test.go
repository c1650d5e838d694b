// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestBypass_B84_HTTP2HostBesideAuthority: of an HTTP/2 request that names two hosts the
// server gets the one that was judged, or nothing.
func TestBypass_B84_HTTP2HostBesideAuthority(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	_, secure := w.both(nil, "h2")
	for _, tc := range []struct {
		name   string
		change []string
		passes bool
	}{
		{"the same", []string{"host", "api.example.com"}, true},
		{"another host", []string{"host", "evil.example.net"}, false},
		{"another host first", []string{":authority", "", "host", "evil.example.net", ":authority", "api.example.com"}, false},
		{"the other way round", []string{":authority", "evil.example.net", "host", "api.example.com"}, false},
		{"two of the allowed and another", []string{":authority", "", "host", "api.example.com", "host", "evil.example.net"}, false},
		{"userinfo in host", []string{"host", "api.example.com:x@evil.example.net"}, false},
		{"a list", []string{"host", "api.example.com, evil.example.net"}, false},
		{"x-forwarded-host does not count", []string{"x-forwarded-host", "evil.example.net"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(secure.got())
			status := newFramer(t, w).get(tc.change...)
			arrived := secure.got()[before:]
			if tc.passes != (status == 200) || tc.passes != (len(arrived) == 1) {
				t.Errorf("status %d, arrived %v", status, arrived)
			}
			for _, r := range arrived {
				if r.Host != "api.example.com" || r.Header.Get("Host") != "" {
					t.Errorf("the server was asked for %q, %v", r.Host, r.Header)
				}
			}
		})
	}
}

// TestBypass_B84_AbsoluteFormAndHost: inside a connection that was judged for one host,
// a request in absolute form or with an odd Host reaches no other host, and the server
// gets one spelling.
func TestBypass_B84_AbsoluteFormAndHost(t *testing.T) {
	const get = "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n"
	for _, tc := range []struct {
		name, target, host string
		passes             bool
	}{
		{"a path", "/a", "api.example.com", true},
		{"the same host", "SCHEME://api.example.com/a", "api.example.com", true},
		{"the same host in capitals", "SCHEME://API.example.COM/a", "api.EXAMPLE.com", true},
		{"another target", "SCHEME://evil.example.net/a", "api.example.com", false},
		{"another target and Host", "SCHEME://evil.example.net/a", "evil.example.net", false},
		{"another Host", "/a", "evil.example.net", false},
		{"another Host than the target's", "SCHEME://api.example.com/a", "evil.example.net", false},
		{"userinfo in the target", "SCHEME://api.example.com:x@evil.example.net/a", "evil.example.net", false},
		{"userinfo in the target, Host allowed", "SCHEME://api.example.com:x@evil.example.net/a", "api.example.com", false},
		{"userinfo in Host", "/a", "api.example.com:x@evil.example.net", false},
		{"userinfo in Host, reversed", "/a", "evil.example.net@api.example.com", false},
		{"another scheme", "ftp://api.example.com/a", "api.example.com", false},
		{"another port", "SCHEME://api.example.com:8443/a", "api.example.com:8443", false},
		{"a path in Host", "/a", "api.example.com/evil", false},
		{"two hosts in Host", "/a", "api.example.com,evil.example.net", false},
		{"a denied path in absolute form", "SCHEME://api.example.com/secret", "api.example.com", false},
		{"a fragment before userinfo", "SCHEME://api.example.com#@evil.example.net/a", "api.example.com", false},
		{"a backslash before userinfo", "SCHEME://evil.example.net\\@api.example.com/a", "api.example.com", false},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(tc.name+", "+scheme, func(t *testing.T) {
				w := newWorld(t, endpoints(openHost))
				plain, secure := w.both(nil, "http/1.1")
				evil := []*site{w.site("evil.example.net", 80, nil), w.site("evil.example.net", 443, nil, "http/1.1")}
				text := fmt.Sprintf(get, strings.Replace(tc.target, "SCHEME", scheme, 1), tc.host)
				site, status := plain, 0
				if scheme == "http" {
					resp, _ := ask(t, w.tunnel("api.example.com:80"), text)
					status = resp.StatusCode
				} else {
					site = secure
					resp, _ := ask(t, w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1"), text)
					status = resp.StatusCode
				}
				arrived := site.got()
				if tc.passes != (status == 200) || tc.passes != (len(arrived) == 1) {
					t.Errorf("status %d, arrived %v", status, arrived)
				}
				for _, r := range arrived {
					if r.Host != "api.example.com" || r.URI != "/a" {
						t.Errorf("the server was asked for %q at %q", r.URI, r.Host)
					}
				}
				if n := len(evil[0].got()) + len(evil[1].got()); n > 0 {
					t.Errorf("%d requests arrived at the other host", n)
				}
			})
		}
	}
}

// TestBypass_B87_TransferCodings: a transfer coding is chunked, spelled so, or the
// request is refused and nothing of it reaches the server, whatever its method is.
func TestBypass_B87_TransferCodings(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	var plain tap
	w.raw("api.example.com", 80, plain.serve)
	secure := w.site("api.example.com", 443, nil, "http/1.1")
	const inside = "0\r\n\r\nGET /a/smuggled HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
	for _, method := range []string{"POST", "DELETE", "OPTIONS", "GET", "HEAD", "PUT"} {
		for name, fields := range map[string]string{
			"chunked ,x":                 "Transfer-Encoding: chunked ,x\r\n",
			"x, chunked":                 "Transfer-Encoding: x, chunked\r\n",
			"chunked, chunked":           "Transfer-Encoding: chunked, chunked\r\n",
			"xchunked":                   "Transfer-Encoding: xchunked\r\n",
			"chunkedx":                   "Transfer-Encoding: chunkedx\r\n",
			"chunked;q=1":                "Transfer-Encoding: chunked;q=1\r\n",
			"a comma after":              "Transfer-Encoding: chunked,\r\n",
			"a comma before":             "Transfer-Encoding: ,chunked\r\n",
			"quoted":                     "Transfer-Encoding: \"chunked\"\r\n",
			"identity":                   "Transfer-Encoding: identity\r\n",
			"gzip, chunked":              "Transfer-Encoding: gzip, chunked\r\n",
			"empty":                      "Transfer-Encoding:\r\n",
			"a tab inside":               "Transfer-Encoding: chun\tked\r\n",
			"a tab before the colon":     "Transfer-Encoding\t: chunked\r\n",
			"a vertical tab":             "Transfer-Encoding: \x0bchunked\r\n",
			"a form feed":                "Transfer-Encoding: chunked\x0c\r\n",
			"a no-break space":           "Transfer-Encoding: chunked\xa0\r\n",
			"folded":                     "Transfer-Encoding: chunked\r\n , x\r\n",
			"two fields":                 "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
			"two fields, reversed":       "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
			"two equal fields":           "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n",
			"length and coding":          "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
			"length 0 and coding":        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
			"length and identity":        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
			"named in Connection":        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
			"length named in Connection": "Connection: Content-Length\r\nContent-Length: 5\r\n",
			"two lengths":                "Content-Length: 5\r\nContent-Length: 50\r\n",
		} {
			head := method + " /a HTTP/1.1\r\nHost: api.example.com\r\n" + fields + "\r\n" + inside
			for scheme, c := range map[string]io.ReadWriter{
				"http":  w.tunnel("api.example.com:80"),
				"https": w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1"),
			} {
				_, _ = io.WriteString(c, head)
				b, _ := io.ReadAll(c)
				if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
					t.Errorf("%s %s, %s: answered %q", method, name, scheme, b)
				}
			}
		}
	}
	if text, requests := plain.got(), secure.got(); text != "" || len(requests) > 0 {
		t.Errorf("the servers got %q and %v", text, requests)
	}
}

// TestBypass_B87_BodiesOfAnyMethod: a body of DELETE, OPTIONS, GET or HEAD is the body of
// that request on the other side as well: what it holds is never the next request, over
// HTTP/1 and HTTP/2.
func TestBypass_B87_BodiesOfAnyMethod(t *testing.T) {
	const smuggled = "GET /a/smuggled HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
	framing := map[string]string{
		"length":                    fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
		"chunks":                    fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
		"tab before the coding":     fmt.Sprintf("Transfer-Encoding:\tchunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
		"chunks with an extension":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%s\r\n0;c\r\n\r\n", len(smuggled), smuggled),
		"chunks with quoted text":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x;a=\"b;c\"\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
		"chunks with trailer names": fmt.Sprintf("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n", len(smuggled), smuggled),
	}
	for _, method := range []string{"POST", "DELETE", "OPTIONS", "GET", "HEAD", "PUT", "PATCH"} {
		w := newWorld(t, endpoints(openHost))
		plain, secure := w.both(nil, "h2", "http/1.1")
		for name, rest := range framing {
			before := len(plain.got())
			c := w.tunnel("api.example.com:80")
			resp, body := ask(t, c, method+" /a HTTP/1.1\r\nHost: api.example.com\r\n"+rest)
			arrived := plain.got()[before:]
			if resp.StatusCode == 400 && len(arrived) == 0 {
				continue // refused whole
			}
			if resp.StatusCode != 200 || len(arrived) != 1 || arrived[0].Method != method || arrived[0].URI != "/a" || arrived[0].Body != smuggled {
				t.Errorf("%s, %s: %d %s, arrived %+v", method, name, resp.StatusCode, body, arrived)
			}
		}
		if method == "POST" && len(plain.got()) != len(framing) {
			t.Errorf("the control: %d of %d bodies arrived", len(plain.got()), len(framing))
		}
		f := newFramer(t, w)
		f.block.Reset()
		for _, h := range fields(":method", method) {
			_ = f.enc.WriteField(h)
		}
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block.Bytes(), EndHeaders: true})
		_ = f.fr.WriteData(1, true, []byte(smuggled))
		status := f.status(1)
		if arrived := secure.got(); status != 200 || len(arrived) != 1 || arrived[0].Method != method || arrived[0].URI != "/a" || arrived[0].Body != smuggled {
			t.Errorf("%s over HTTP/2: %d, arrived %+v", method, status, arrived)
		}
	}
}
