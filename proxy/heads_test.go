// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestLargeHeads (issue 11, point 8): a head of up to MaxHead bytes arrives whole over
// both versions; a larger one is answered 431 and recorded.
func TestLargeHeads(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	plain, secure := w.both(nil, "h2")
	for _, tc := range []struct {
		name   string
		value  string // of one field
		fields int    // how many fields there are besides
		status int
	}{
		{"20 KiB", strings.Repeat("0", 20<<10), 0, 200},
		{"60 KiB", strings.Repeat("~", 60<<10), 0, 200}, // which HPACK does not shorten
		{"over 64 KiB", strings.Repeat("0", 65<<10), 0, 431},
		{"100 KiB", strings.Repeat("0", 100<<10), 0, 431},
		{"250 fields", "x", 245, 200},
		{"300 fields", "x", 300, 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, proto := range []string{"http/1.1", "h2"} {
				site, status, noted := plain, 0, len(w.log.all())
				before := len(plain.got()) + len(secure.got())
				if proto == "h2" {
					site = secure
					change := []string{"x-large", tc.value}
					for range tc.fields {
						change = append(change, "x", "y")
					}
					status = newFramer(t, w).large(change...)
				} else {
					resp, _ := ask(t, w.tunnel("api.example.com:80"), "GET /a HTTP/1.1\r\nHost: api.example.com\r\nX-Large: "+tc.value+"\r\n"+strings.Repeat("x: y\r\n", tc.fields)+"\r\n")
					status = resp.StatusCode
				}
				if status != tc.status {
					t.Errorf("%s: %d, want %d", proto, status, tc.status)
				}
				arrived := len(plain.got()) + len(secure.got()) - before
				rec := w.recorded(noted)
				if tc.status == 431 {
					if arrived != 0 || rec.Verdict != "deny" || rec.Status != 431 || !strings.Contains(rec.Reason, "too large") {
						t.Errorf("%s: %d arrived, recorded %+v", proto, arrived, rec)
					}
					continue
				}
				if arrived != 1 {
					t.Fatalf("%s: %d requests arrived", proto, arrived)
				}
				if got := site.got()[len(site.got())-1].Header; got.Get("X-Large") != tc.value || len(got["X"]) != tc.fields {
					t.Errorf("%s: the server got %d bytes and %d fields", proto, len(got.Get("X-Large")), len(got["X"]))
				}
			}
		})
	}
}

// large sends a request whose head may need several frames and returns the status, or 0.
func (f *framer) large(change ...string) int {
	f.block.Reset()
	for _, h := range fields(change...) {
		_ = f.enc.WriteField(h)
	}
	id, block := f.stream, f.block.Bytes()
	f.stream += 2
	first := block[:min(len(block), frameSize)]
	block = block[len(first):]
	_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: true, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		part := block[:min(len(block), frameSize)]
		if block = block[len(part):]; f.fr.WriteContinuation(id, len(block) == 0, part) != nil {
			break
		}
	}
	return f.status(id)
}

// TestBypass_B86_HeadsWithoutEnd: a head with more bytes or fields than are read ends its
// connection, and is recorded.
func TestBypass_B86_HeadsWithoutEnd(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	_, secure := w.both(nil, "h2")
	many := []string{}
	for range maxFields2 + 1 {
		many = append(many, "x", "y")
	}
	for name, change := range map[string][]string{
		"bytes":                     {"x-large", strings.Repeat("~", 2*maxHead2)},
		"bytes that HPACK shortens": {"x-large", strings.Repeat("0", 2*maxHead2)},
		"fields":                    many,
	} {
		noted := len(w.log.all())
		if status := newFramer(t, w).large(change...); status != 0 {
			t.Errorf("%s: status %d", name, status)
		}
		if rec := w.recorded(noted); rec.Verdict != "deny" || rec.Protocol != "h2" || rec.Reason == "" {
			t.Errorf("%s: recorded %+v", name, rec)
		}
	}
	if got := newFramer(t, w).get(); got != 200 || len(secure.got()) != 1 {
		t.Errorf("afterwards: status %d, %d requests arrived", got, len(secure.got()))
	}
}

// TestMalformedHTTP2 (issue 11, points 8 and 15): what the HTTP/2 library refuses by
// itself is answered 400, and recorded; the connection goes on.
func TestMalformedHTTP2(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	_, secure := w.both(nil, "h2")
	for name, change := range map[string][]string{
		"a bare %":             {":path", "/a/100%"},
		"no path":              {":path", ""},
		"absolute URL as path": {":path", "https://api.example.com/a"},
		"two hosts":            {"host", "api.example.com", "host", "api.example.com"},
		"userinfo":             {":authority", "a@api.example.com"},
		"capital letters":      {"X-Y", "z"},
		"NUL in a value":       {"x", "y\x00"},
		"lengths":              {"content-length", "1, 1"},
	} {
		noted, before := len(w.log.all()), len(secure.got())
		f := newFramer(t, w)
		if status := f.get(change...); status != 400 {
			t.Errorf("%s: status %d", name, status)
		}
		if rec := w.recorded(noted); rec.Verdict != "deny" || rec.Status != 400 || rec.Protocol != "h2" || rec.Reason == "" {
			t.Errorf("%s: recorded %+v", name, rec)
		}
		if rec := w.recorded(noted); strings.HasPrefix(change[0], ":") && strings.Contains(rec.Reason, "PROTOCOL_ERROR") {
			t.Errorf("%s: the reason is the library's name: %s", name, rec.Reason)
		}
		if status := f.get(); status != 200 || len(secure.got()) != before+1 {
			t.Errorf("%s: afterwards %d", name, status)
		}
	}
	t.Run("a client with a body", func(t *testing.T) {
		c := w.client(w.byConnect, "h2")
		u := url.URL{Scheme: "https", Host: "api.example.com", Opaque: "//api.example.com/a/100%"}
		pr, pw := io.Pipe()
		defer pw.Close()
		resp, err := c.Do(&http.Request{Method: "POST", URL: &u, Body: pr, ContentLength: -1})
		if err != nil || resp.StatusCode != 400 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		if resp, _ := get(t, c, "GET", "https://api.example.com/a", nil); resp.StatusCode != 200 {
			t.Errorf("afterwards %d", resp.StatusCode)
		}
	})
}

// TestHTTP2ConnectionErrors (issue 11, point 15): a connection that the library ends has
// a record.
func TestHTTP2ConnectionErrors(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	w.both(nil, "h2")
	f := newFramer(t, w)
	_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff}, EndStream: true, EndHeaders: true})
	if status := f.status(1); status != 0 {
		t.Errorf("status %d", status)
	}
	if rec := w.recorded(0); rec.Verdict != "deny" || !strings.Contains(rec.Reason, "COMPRESSION_ERROR") {
		t.Errorf("recorded %+v", rec)
	}
}

// TestHTTP2HeadTooLarge: the record of a head that ends its connection names the limit.
func TestHTTP2HeadTooLarge(t *testing.T) {
	for name, head := range map[string]int{"more than the library reads": maxHead2 + 8<<10, "more than the gate reads": 2 * maxHead2} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			_, secure := w.both(nil, "h2")
			f := newFramer(t, w)
			for _, h := range fields() {
				_ = f.enc.WriteField(h)
			}
			const value = 8 << 10
			for range head / value {
				_ = f.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("~", value), Sensitive: true}) // which HPACK does not compress
			}
			block := f.block.Bytes()
			_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:frameSize], EndStream: true})
			for block = block[frameSize:]; len(block) > 0; {
				n := min(len(block), frameSize)
				if f.fr.WriteContinuation(1, n == len(block), block[:n]) != nil {
					break
				}
				block = block[n:]
			}
			if status := f.status(1); status != 0 {
				t.Errorf("status %d", status)
			}
			if rec := w.recorded(0); rec.Verdict != "deny" || !strings.Contains(rec.Reason, errHead2TooLarge.Error()) || !strings.Contains(rec.Reason, "128 KiB") {
				t.Errorf("recorded %+v", rec)
			}
			if n := len(secure.got()); n > 0 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}

// BenchmarkStreamGate is the gate's work on a request and its answer.
func BenchmarkStreamGate(b *testing.B) {
	var frames strings.Builder
	fr := http2.NewFramer(&frames, nil)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x82\x87\x84\x41\x8a\xa0\xe4\x1d\x13\x9d\x09\xb8\xf0\x1e\x07"), EndStream: true, EndHeaders: true})
	in := []byte(frames.String())
	frames.Reset()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = fr.WriteData(1, true, []byte("hello"))
	out := []byte(frames.String())
	g := gated(b)
	b.ReportAllocs()
	for b.Loop() {
		g.last = 0
		if err := g.in.scan(in, g.received, g.payload); err != nil {
			b.Fatal(err)
		}
		hold, refused := g.begin()
		_ = g.out.scan(out, g.sent, nil)
		g.end(hold, refused)
	}
}
