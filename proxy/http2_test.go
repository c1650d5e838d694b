// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"strconv"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framer is an HTTP/2 client that sends what it is told.
type framer struct {
	t      testing.TB
	conn   *tls.Conn
	fr     *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
	stream uint32
}

func newFramer(t testing.TB, w *world) *framer {
	t.Helper()
	c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", "h2")
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Fatalf("negotiated %q", p)
	}
	f := &framer{t: t, conn: c, fr: http2.NewFramer(c, c), stream: 1}
	f.fr.AllowIllegalWrites = true
	f.enc, f.dec = hpack.NewEncoder(&f.block), hpack.NewDecoder(4096, nil)
	f.fr.ReadMetaHeaders = f.dec
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = f.fr.WriteSettings()
	return f
}

// fields are those of a usual request with some put in the place of others, or at
// the end; an empty value takes one out.
func fields(change ...string) (list []hpack.HeaderField) {
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "api.example.com"}, {Name: ":path", Value: "/a"}} {
		for i := 0; i < len(change); i += 2 {
			if change[i] == f.Name {
				f.Value, change = change[i+1], append(change[:i:i], change[i+2:]...)
				break
			}
		}
		if f.Value != "" {
			list = append(list, f)
		}
	}
	for i := 0; i < len(change); i += 2 {
		list = append(list, hpack.HeaderField{Name: change[i], Value: change[i+1]})
	}
	return list
}

// get sends a request and returns the status; 0 is a stream or a connection that
// was ended.
func (f *framer) get(change ...string) int {
	f.t.Helper()
	f.block.Reset()
	for _, h := range fields(change...) {
		_ = f.enc.WriteField(h)
	}
	id := f.stream
	f.stream += 2
	if err := f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		return 0
	}
	return f.status(id)
}

func (f *framer) status(id uint32) int {
	for {
		frame, err := f.fr.ReadFrame()
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				n, _ := strconv.Atoi(frame.PseudoValue("status"))
				return n
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				return 0
			}
		case *http2.GoAwayFrame:
			return 0
		}
	}
}

func TestBypass_B26_HTTP2Requests(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	_, secure := w.both(nil, "h2")
	for _, tc := range []struct {
		name   string
		change []string
		status int
	}{
		{"usual", nil, 200},
		{"with the port", []string{":authority", "api.example.com:443"}, 200},
		{"Host instead of :authority", []string{":authority", "", "host", "api.example.com"}, 200},
		{"other :authority", []string{":authority", "evil.example.net"}, 421},
		{"other Host alone", []string{":authority", "", "host", "evil.example.net"}, 421},
		{"userinfo", []string{":authority", "api.example.com@evil.example.net"}, 0},
		{"other port", []string{":authority", "api.example.com:8443"}, 421},
		{"no authority", []string{":authority", ""}, 421},
		{"denied path", []string{":path", "/b"}, 403},
		{"absolute URL as path", []string{":path", "https://evil.example.net/a"}, 0},
		{"path without a slash", []string{":path", "a"}, 0},
		{"asterisk", []string{":method", "OPTIONS", ":path", "*"}, 400},
		{"space in the path", []string{":path", "/a HTTP/1.1"}, 400},
		{"lower-case method", []string{":method", "get"}, 400},
		{"space in the method", []string{":method", "GET /a"}, 400},
		{"CONNECT", []string{":method", "CONNECT", ":path", "", ":scheme", ""}, 400},
		{"no path", []string{":path", ""}, 0},
		{"no method", []string{":method", ""}, 0},
		{"duplicate :path", []string{":path", "/a", ":path", "/b"}, 0},
		{"duplicate :authority", []string{":authority", "api.example.com", ":authority", "evil.example.net"}, 0},
		{"unknown pseudo header", []string{":protocol", "websocket"}, 0},
		{"pseudo header after others", []string{"x", "y", ":path", "/b"}, 0},
		{"Connection", []string{"connection", "close"}, 0},
		{"Transfer-Encoding", []string{"transfer-encoding", "chunked"}, 0},
		{"Upgrade", []string{"upgrade", "h2c"}, 0},
		{"Te other than trailers", []string{"te", "gzip"}, 0},
		{"capital letters", []string{"X-Y", "z"}, 0},
		{"CRLF in a value", []string{"x", "y\r\nz: 1"}, 0},
		{"NUL in a value", []string{"x", "y\x00"}, 0},
		{"length without a body, which is not sent on", []string{"content-length", "5"}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(secure.got())
			if got := newFramer(t, w).get(tc.change...); got != tc.status && (tc.status != 0 || got == 200) {
				t.Errorf("status %d, want %d", got, tc.status)
			}
			arrived := secure.got()[before:]
			if want := map[bool]int{true: 1}[tc.status == 200]; len(arrived) != want {
				t.Errorf("arrived %v", arrived)
			}
			for _, r := range arrived {
				if r.Host != "api.example.com" || r.Header.Get("Content-Length") != "" {
					t.Errorf("the server was asked for %q", r.Host)
				}
			}
		})
	}
}

func TestBypass_B31_HTTP2Floods(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	_, secure := w.both(nil, "h2")
	t.Run("rapid reset", func(t *testing.T) {
		f := newFramer(t, w)
		for i := range uint32(5000) {
			f.block.Reset()
			for _, h := range fields() {
				_ = f.enc.WriteField(h)
			}
			if f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: f.block.Bytes(), EndStream: true, EndHeaders: true}) != nil ||
				f.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break
			}
		}
		f.conn.NetConn().Close()
	})
	t.Run("CONTINUATION flood", func(t *testing.T) {
		f := newFramer(t, w)
		f.block.Reset()
		_ = f.enc.WriteField(hpack.HeaderField{Name: "x", Value: string(bytes.Repeat([]byte("a"), 4000))})
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block.Bytes()})
		ended := false
		for range 10000 {
			if ended = f.fr.WriteContinuation(1, false, f.block.Bytes()) != nil; ended {
				break
			}
		}
		if !ended {
			t.Error("40 MB of fields were taken")
		}
	})
	if got := newFramer(t, w).get(); got != 200 {
		t.Errorf("afterwards: status %d", got)
	}
	if n := len(secure.got()); n > 5001 {
		t.Errorf("%d requests arrived", n)
	}
}
