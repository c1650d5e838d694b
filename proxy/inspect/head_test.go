// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const get = "GET / HTTP/1.1\r\nHost: a.example\r\n"

// maxHead is the limit that the proxy has.
const maxHead = 64 << 10

func TestCheckHeadAccepts(t *testing.T) {
	for _, in := range []string{
		get + "\r\n",
		get + "Accept: */*\r\nX-Empty:\r\nX:\t a\tb \xc3\xbc \r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"PROPFIND /a?b=%20&c={d} HTTP/1.1\r\nhOST: a.example:8080\r\n\r\n",
		"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
		"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 0\r\n\r\n",
		"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
		"GET http://a.example/x HTTP/1.1\r\nHost: A.example\r\n\r\n",
		"GET http://a.example:80?q HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"GET https://a.example HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		get + "Connection: keep-alive, Upgrade,, TE\r\nUpgrade: websocket\r\n\r\n",
	} {
		br := slowly(t, in)
		if err := CheckHead(br, maxHead); err != nil {
			t.Errorf("CheckHead(%q) = %v", in, err)
		}
		if b, _ := br.Peek(br.Buffered()); string(b) != in {
			t.Errorf("CheckHead(%q) leaves %q", in, b)
		}
	}
}

// TestAcceptedHeads (issue 11, point 12): what RFC 9110 and 9112 let a recipient accept
// and has one reading is accepted, and net/http reads it so.
func TestAcceptedHeads(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, tc := range []struct {
		in, left string // left is the rest of the buffer; "" means that it equals in
		length   int64
	}{
		{"\r\n" + get + "\r\n", get + "\r\n", 0},
		{"GET / HTTP/1.0\r\n\r\n", "", 0},
		{"GET /\xc3\xa9?q=\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "", 0},
		{post + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "", -1},
		{post + "transfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n", "", -1},
		{post + "Content-Length: 2, 2\r\n\r\nab", post + "Content-Length: 2   \r\n\r\nab", 2},
		{post + "Content-Length:2,2 ,\t2\r\n\r\nab", post + "Content-Length:2      \r\n\r\nab", 2},
		{post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "", 2},
		{post + "Content-Length: 2, 2\r\ncontent-length: 2\r\n\r\nab", post + "Content-Length: 2   \r\ncontent-length: 2\r\n\r\nab", 2},
		{"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0, 0\r\n\r\n", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0   \r\n\r\n", 0},
	} {
		br := slowly(t, tc.in)
		if err := CheckHead(br, maxHead); err != nil {
			t.Errorf("CheckHead(%q) = %v", tc.in, err)
			continue
		}
		left, _ := br.Peek(br.Buffered())
		if want := cmp.Or(tc.left, tc.in); !strings.HasPrefix(want, string(left)) {
			t.Errorf("CheckHead(%q) leaves %q, want %q", tc.in, left, want)
		}
		if req, err := http.ReadRequest(br); err != nil || req.ContentLength != tc.length {
			t.Errorf("net/http reads %q as %v, %v", tc.in, req, err)
		}
	}
}

func TestBypass_B24_Smuggling(t *testing.T) {
	post := "POST / HTTP/1.1\r\nHost: a\r\n"
	for name, in := range map[string]string{
		"different lengths, list":  post + "Content-Length: 5, 6\r\n\r\n",
		"lengths 5 and 05":         post + "Content-Length: 5, 05\r\n\r\n",
		"list with an empty part":  post + "Content-Length: 5,,5\r\n\r\n",
		"list that begins empty":   post + "Content-Length: ,5\r\n\r\n",
		"list that ends empty":     post + "Content-Length: 5,\r\n\r\n",
		"list with a vertical tab": post + "Content-Length: 5,\x0b5\r\n\r\n",
		"lists that differ":        post + "Content-Length: 5, 5\r\nContent-Length: 6\r\n\r\n",
		"lists and chunked":        post + "Content-Length: 5, 5\r\nTransfer-Encoding: Chunked\r\n\r\n",
		"Chunked in 1.0":           "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
		"two empty lines first":    "\r\n\r\n" + post + "\r\n",
		"bare LF first":            "\n" + post + "\r\n",
		"bare CR first":            "\r" + post + "\r\n",
		"host not ASCII":           "GET http://\xc3\xbc/ HTTP/1.1\r\nHost: \xc3\xbc\r\n\r\n",
		"two lengths":              post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"negative length":          post + "Content-Length: -1\r\n\r\n",
		"signed length":            post + "Content-Length: +1\r\n\r\n",
		"hexadecimal length":       post + "Content-Length: 0x5\r\n\r\n",
		"octal length":             post + "Content-Length: 010\r\n\r\n",
		"length with a blank":      post + "Content-Length: 1 0\r\n\r\n",
		"no length":                post + "Content-Length:\r\n\r\n",
		"length over 63 bits":      post + "Content-Length: 9999999999999999999\r\n\r\n",
		"length and chunked":       post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"chunked and length":       post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
		"chunked twice":            post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"chunked, identity":        post + "Transfer-Encoding: chunked, identity\r\n\r\n",
		"gzip, chunked":            post + "Transfer-Encoding: gzip, chunked\r\n\r\n",
		"identity":                 post + "Transfer-Encoding: identity\r\n\r\n",
		"chunked, vertical tab":    post + "Transfer-Encoding: \x0bchunked\r\n\r\n",
		"quoted chunked":           post + "Transfer-Encoding: \"chunked\"\r\n\r\n",
		"folded chunked":           post + "Transfer-Encoding:\r\n chunked\r\n\r\n",
		"folded field":             post + "X: a\r\n\tb\r\n\r\n",
		"fold before all fields":   "POST / HTTP/1.1\r\n Host: a\r\n\r\n",
		"chunked in 1.0":           "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"space before colon":       post + "Transfer-Encoding : chunked\r\n\r\n",
		"tab before colon":         post + "Content-Length\t: 5\r\n\r\n",
		"NUL in a name":            post + "Content\x00-Length: 5\r\n\r\n",
		"no name":                  post + ": 5\r\n\r\n",
		"no colon":                 post + "chunked\r\n\r\n",
		"bare LF":                  "POST / HTTP/1.1\nHost: a\n\n",
		"bare LF in the fields":    post + "X: a\nTransfer-Encoding: chunked\r\n\r\n",
		"bare LF at the end":       post + "\n",
		"bare CR":                  post + "X: a\rTransfer-Encoding: chunked\r\n\r\n",
		"two CR":                   post + "X: a\r\r\n\r\n",
		"NUL":                      post + "X: a\x00b\r\n\r\n",
		"DEL":                      post + "X: a\x7f\r\n\r\n",
		"two hosts":                post + "Host: b\r\n\r\n",
		"the same host twice":      post + "Host: a\r\n\r\n",
		"two hosts in 1.0":         "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
		"no host":                  "GET / HTTP/1.1\r\n\r\n",
		"empty host":               "GET / HTTP/1.1\r\nHost: \r\n\r\n",
		"host with userinfo":       "GET / HTTP/1.1\r\nHost: good@evil\r\n\r\n",
		"host with a path":         "GET / HTTP/1.1\r\nHost: good/evil\r\n\r\n",
		"list of hosts":            "GET / HTTP/1.1\r\nHost: good, evil\r\n\r\n",
		"target of another host":   "GET http://evil.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n",
		"target of another port":   "GET http://a.example:443/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"target with userinfo":     "GET http://good@evil/ HTTP/1.1\r\nHost: good@evil\r\n\r\n",
		"target with a backslash":  "GET http://evil\\.good/ HTTP/1.1\r\nHost: evil\\.good\r\n\r\n",
		"target without a host":    "GET http:///a HTTP/1.0\r\n\r\n",
		"target of another scheme": "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"target without a slash":   "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
		"target * of GET":          "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
		"target with a blank":      "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
		"target with a fragment":   "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
		"target with a tab":        "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
		"no target":                "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
		"two blanks":               "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
		"blank at the end":         "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
		"blank before":             " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"no version":               "GET /\r\nHost: a\r\n\r\n",
		"HTTP/0.9":                 "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
		"HTTP/1.2":                 "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
		"HTTP/2":                   "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
		"http/1.1":                 "GET / http/1.1\r\nHost: a\r\n\r\n",
		"HTTP/1.01":                "GET / HTTP/1.01\r\nHost: a\r\n\r\n",
		"h2 preface":               preface + "\r\n",
		"PRI":                      "PRI / HTTP/1.1\r\nHost: a\r\n\r\n",
		"method in small letters":  "get / HTTP/1.1\r\nHost: a\r\n\r\n",
		"long method":              strings.Repeat("A", MaxMethod+1) + " / HTTP/1.1\r\nHost: a\r\n\r\n",
		"connection: length":       post + "Content-Length: 5\r\nConnection: close, Content-Length\r\n\r\n",
		"connection: chunked":      post + "Connection: transfer-encoding\r\n\r\n",
		"connection: host":         post + "Connection:HOST ,close\r\n\r\n",
		"connection: no list":      post + "Connection: close;x y\r\n\r\n",
		"CONNECT with a body":      "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\n\r\n",
		"CONNECT with chunks":      "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n",
		"CONNECT to a URL":         "CONNECT http://a:443/ HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"CONNECT to a path":        "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT with userinfo":    "CONNECT a@b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
	} {
		if err := CheckHead(ended(in), maxHead); !errors.Is(err, ErrHead) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBypass_B31_HeadLimits(t *testing.T) {
	field := "X: 1\r\n"
	for name, c := range map[string]struct {
		in    string
		limit int
		want  error
	}{
		"fits":               {get + "\r\n", len(get) + 2, nil},
		"one byte over":      {get + "\r\n", len(get) + 1, ErrHeadTooLarge},
		"no end of a line":   {"GET /" + strings.Repeat("a", 2*maxHead), maxHead, ErrHeadTooLarge},
		"no end of a field":  {get + "X: " + strings.Repeat("a", 2*maxHead), maxHead, ErrHeadTooLarge},
		"over the buffer":    {get + "X: " + strings.Repeat("a", 2*maxHead), 1 << 30, ErrHeadTooLarge},
		"many fields":        {get + strings.Repeat(field, MaxFields-1) + "\r\n", maxHead, nil},
		"one field too many": {get + strings.Repeat(field, MaxFields) + "\r\n", maxHead, ErrHeadTooLarge},
		"nothing":            {"", maxHead, io.EOF},
		"cut":                {get, maxHead, io.ErrUnexpectedEOF},
	} {
		if err := CheckHead(ended(c.in), c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestBypass_B25_EachPipelinedRequestIsRead(t *testing.T) {
	br := ended("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" + get + "\r\n" + "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	for i, want := range []error{nil, nil, ErrHead} {
		err := CheckHead(br, maxHead)
		if !errors.Is(err, want) {
			t.Fatalf("request %d: %v, want %v", i, err, want)
		}
		if err != nil {
			break
		}
		req, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Fatal(err)
		}
	}
}

// plainly reads a head that was accepted in the simplest way there is.
func plainly(head string) (method, target, proto string, h http.Header) {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	parts := strings.Split(lines[0], " ")
	h = http.Header{}
	for _, l := range lines[1:] {
		name, v, _ := strings.Cut(l, ":")
		name = textproto.CanonicalMIMEHeaderKey(name)
		h[name] = append(h[name], strings.Trim(v, " \t"))
	}
	return parts[0], parts[1], parts[2], h
}

// What is accepted has one reading: net/http's is the same as the plainest.
func FuzzCheckHead(f *testing.F) {
	for _, s := range []string{
		get + "X: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nPragma: no-cache\r\n\r\n0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\n\r\n",
		"\r\n" + get + "Content-Length: 2, 2\r\nContent-Length: 2\r\n\r\nab", "POST /\xc3\xa9?\xff HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		br := ended(in)
		if CheckHead(br, maxHead) != nil {
			return
		}
		left, _ := br.Peek(br.Buffered())
		head := string(left[:bytes.Index(left, []byte("\r\n\r\n"))+4])
		method, target, proto, want := plainly(head)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if req.Method != method || req.RequestURI != target || req.Proto != proto {
			t.Fatalf("net/http reads %q as %s %s %s", head, req.Method, req.RequestURI, req.Proto)
		}
		authority := want.Get("Host")
		if req.URL.Host != "" {
			if authority != "" && method != "CONNECT" && !sameAuthority([]byte(authority), []byte(req.URL.Host), req.URL.Scheme) {
				t.Fatalf("%q: URL host %q, Host %q", head, req.URL.Host, authority)
			}
			authority = req.URL.Host
		}
		if req.Host != authority {
			t.Fatalf("%q: host %q, want %q", head, req.Host, authority)
		}
		if chunked := strings.EqualFold(want.Get("Transfer-Encoding"), "chunked"); chunked != (len(req.TransferEncoding) == 1) || chunked && req.ContentLength != -1 {
			t.Fatalf("%q: transfer encoding %q, length %d", head, req.TransferEncoding, req.ContentLength)
		}
		// net/http keeps these elsewhere, and adds Cache-Control to an old Pragma.
		for _, name := range []string{"Host", "Transfer-Encoding", "Trailer"} {
			delete(want, name)
			delete(req.Header, name)
		}
		if same := want["Content-Length"]; len(same) > 1 {
			want["Content-Length"] = slices.Compact(same)
		}
		if len(want["Pragma"]) > 0 && want["Cache-Control"] == nil {
			delete(req.Header, "Cache-Control")
		}
		if !reflect.DeepEqual(req.Header, want) {
			t.Fatalf("%q: net/http reads %q, want %q", head, req.Header, want)
		}
	})
}

const usual = "POST http://api.example.com/v1/messages?beta=true HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: claude-cli/2.1\r\nAccept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\nContent-Type: application/json\r\nAuthorization: Bearer 0123456789012345678901234567890123456789\r\nConnection: keep-alive\r\nContent-Length: 1234\r\n\r\n"

func TestCheckHeadDoesNotAllocate(t *testing.T) {
	br := ended(usual)
	if n := testing.AllocsPerRun(100, func() { _ = CheckHead(br, maxHead) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheckHead(b *testing.B) {
	br := bufio.NewReader(strings.NewReader(usual))
	b.SetBytes(int64(len(usual)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckHead(br, maxHead); err != nil {
			b.Fatal(err)
		}
	}
}
