// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/proxy/credentials"
)

const (
	judgedAPI = "host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"
	judgedRaw = "host: raw.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"
)

// shownIn reports whether text shows the secret, in any case of letters.
func shownIn(text string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(secretValue))
}

// masked is a world in which api.example.com takes a credential and raw.example.com
// none, and both are answered by handler.
func masked(t *testing.T, proto string, handler http.HandlerFunc, endpoint ...string) *world {
	t.Helper()
	w := withSecret(t)
	if len(endpoint) == 0 {
		endpoint = []string{judgedAPI, judgedRaw}
	}
	w.load(endpoints(endpoint...))
	w.site("api.example.com", 443, handler, proto)
	w.site("raw.example.com", 443, handler, proto)
	return w
}

// askWith sends a request with the placeholder and reads as much of the answer as
// there is.
func (w *world) askWith(method, host, path, proto string, header ...string) (*http.Response, string, error) {
	w.t.Helper()
	req, err := http.NewRequest(method, "https://"+host+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.client(w.byConnect, proto).Do(req)
	if err != nil {
		return &http.Response{Header: http.Header{}}, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

const bearer = "Bearer " + secretKey

// all is all that the client was sent.
func all(resp *http.Response, body string) string {
	var b strings.Builder
	_ = resp.Header.Write(&b)
	_ = resp.Trailer.Write(&b)
	return b.String() + body
}

// TestBypass_B80_LiveTypes: the client does not get the key that an answer echoes, for
// all types that the answer may name and all known ways to compress it.
func TestBypass_B80_LiveTypes(t *testing.T) {
	pack := map[string]func(w io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zlib": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
	}
	unpack := map[string]func(r io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zlib": func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
	}
	for _, proto := range []string{"http/1.1", "h2"} {
		echo := func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", r.URL.Query().Get("response-content-type"))
			text := "before " + r.Header.Get("Authorization") + " behind"
			if f := pack[r.URL.Query().Get("pack")]; f != nil {
				z := f(rw)
				defer z.Close()
				_, _ = io.WriteString(z, text)
				return
			}
			_, _ = io.WriteString(rw, text)
		}
		w := masked(t, proto, echo)
		for _, kind := range []string{
			"text/plain", "image/png", "audio/ogg", "video/mp4", "font/woff2", "application/octet-stream", "application/pdf", "application/zip", "application/wasm",
			"application/grpc", "application/x-protobuf", "application/x-git-upload-pack-result", "multipart/byteranges",
		} {
			resp, body, err := w.askWith("GET", "api.example.com", "/?response-content-type="+kind, proto, "Authorization", bearer)
			if err != nil || resp.StatusCode != 200 || body != "before Bearer "+strings.Repeat("*", len(secretValue))+" behind" {
				t.Errorf("%s, %s: %d %q, %v", proto, kind, resp.StatusCode, body, err)
			}
		}
		for name := range pack {
			records := len(w.log.all())
			_, body, err := w.askWith("GET", "api.example.com", "/?response-content-type=application/octet-stream&pack="+name, proto, "Authorization", bearer)
			plain := ""
			if z, zerr := unpack[name](strings.NewReader(body)); zerr == nil {
				b, _ := io.ReadAll(z)
				plain = string(b)
			}
			if err == nil || shownIn(plain) {
				t.Errorf("%s, %s: %q, %v", proto, name, plain, err)
			}
			// A record of the request before may come as late as this one's.
			refused := func(r decisionlog.Record) bool {
				return r.Verdict == "deny" && strings.Contains(r.Reason, "compressed")
			}
			if !settles(func() bool { return slices.ContainsFunc(w.log.all()[records:], refused) }) {
				t.Errorf("%s, %s: recorded %+v", proto, name, w.log.all()[records:])
			}
		}
		// The control: an endpoint that opts out by name shows what it is sent.
		w.load(endpoints(judgedAPI + ", allow_unsearched_answers: true"))
		if _, body, err := w.askWith("GET", "api.example.com", "/?response-content-type=image/png", proto, "Authorization", bearer); err != nil || !shownIn(body) {
			t.Errorf("%s: the control is %q, %v", proto, body, err)
		}
	}
}

// TestBypass_B80_LiveNames: the client does not get the key in the name of a field, of a
// trailer, or of a field of an interim answer.
func TestBypass_B80_LiveNames(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		w := masked(t, proto, func(rw http.ResponseWriter, r *http.Request) {
			key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			if key == "" {
				key = "none"
			}
			h := rw.Header()
			h.Set("X-"+key, "1")
			h[strings.ToUpper(key)] = []string{"2"}
			h.Set("X-Kept", "3")
			h.Set("Location", "/a?key="+key)
			h.Set("Www-Authenticate", `Bearer realm="`+key+`"`)
			h.Add("Set-Cookie", key+"="+key)
			h.Set("Link", "<https://"+key+".example>")
			rw.WriteHeader(http.StatusEarlyHints)
			h.Set("Trailer", "T-"+key+", T-Kept")
			_, _ = io.WriteString(rw, "x")
			h.Set("T-"+key, key)
			h.Set("T-Kept", "4")
			h.Set(http.TrailerPrefix+"U-"+key, "5")
		})
		records := len(w.log.all())
		resp, body, err := w.askWith("GET", "api.example.com", "/", proto, "Authorization", bearer)
		if got := all(resp, body); err != nil || shownIn(got) || resp.Header.Get("X-Kept") != "3" || resp.Trailer.Get("T-Kept") != "4" || body != "x" {
			t.Errorf("%s: %v, %q", proto, err, got)
		}
		if r := w.recorded(records); !strings.Contains(r.Reason, "name holds a credential") {
			t.Errorf("%s: recorded %+v", proto, r)
		}
		if proto == "http/1.1" { // as it is written, with the interim answer
			c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", proto)
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: %s\r\nConnection: close\r\n\r\n", bearer)
			raw, err := io.ReadAll(c)
			if err != nil || !bytes.Contains(raw, []byte("103 Early Hints")) || shownIn(string(raw)) {
				t.Errorf("%v: %q", err, raw)
			}
		}
		// The control: names without a key pass.
		resp, _, _ = w.askWith("GET", "api.example.com", "/", proto)
		if resp.Header.Get("X-None") != "1" || resp.Trailer.Get("T-None") != "none" {
			t.Errorf("%s: the control is %v, %v", proto, resp.Header, resp.Trailer)
		}
	}
}

// TestBypass_B80_NamesIn101: the client does not get the key in the field names of the
// answer that begins a WebSocket.
func TestBypass_B80_NamesIn101(t *testing.T) {
	w := withSecret(t)
	w.load(endpoints(restWS + wsRewrite))
	s := newChat()
	s.more = "X-" + secretValue + ": 1\r\nX-Kept: " + secretValue + "\r\n"
	w.site("api.example.com", 443, s, "http/1.1")
	c, resp := w.begin(t, "/open", "")
	defer c.conn.Close()
	if resp.StatusCode != 101 || shownIn(all(resp, "")) || resp.Header.Get("X-Kept") != strings.Repeat("*", len(secretValue)) {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

// TestBypass_B81_Slices: answers in parts do not show the key piece by piece, neither at
// an endpoint where a value is put in nor at one that returns a stored value.
func TestBypass_B81_Slices(t *testing.T) {
	const size = 3 * credentials.MinPart
	content := []byte(strings.Repeat("0123456789abcdef", size/16))
	at := credentials.MinPart + 5000
	copy(content[at:], secretValue)
	for _, proto := range []string{"http/1.1", "h2"} {
		w := masked(t, proto, func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Request-Range") != "" {
				t.Error("Request-Range arrived")
			}
			if r.URL.Path == "/always" {
				rw.Header().Set("Content-Range", fmt.Sprintf("bytes 0-6/%d", size))
				rw.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(rw, secretValue[1:8])
				return
			}
			if r.URL.Path == "/page" {
				rw.Header().Set("Content-Range", "0-9/100")
				rw.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(rw, "[{}]"+secretValue[:len(secretValue)-7])
				return
			}
			if v := r.Header.Get("X-Ms-Range"); v != "" {
				r.Header.Set("Range", v)
			}
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(content))
		})
		// piece is the most that is known of the key after some answer.
		piece := func(from int, body string) int {
			known := 0
			for i := range secretValue {
				if k := at + i - from; k >= 0 && k < len(body) && body[k] == secretValue[i] {
					known++
				}
			}
			return known
		}
		for _, host := range []string{"api.example.com", "raw.example.com"} {
			auth := []string{"Authorization", bearer}
			if host == "raw.example.com" {
				auth = []string{"X-None", ""}
			}
			for _, tc := range []struct {
				field, asked string
				status       int
				from         int
			}{
				{"Range", fmt.Sprintf("bytes=%d-%d", at, at+6), 200, 0},
				{"X-Ms-Range", fmt.Sprintf("bytes=%d-%d", at, at+6), 200, 0},
				{"Range", fmt.Sprintf("bytes=1-%d", credentials.MinPart-1), 200, 0},
				{"Range", "bytes=0-0", 206, -1},
				{"Range", "bytes=-1", 206, -1},
				{"Range", "bytes=9-8", 200, 0},
				{"Range", "bytes=0-18446744073709551616", 200, 0},
				{"Range", "lines=0-1", 200, 0},
				{"Request-Range", "bytes=0-0", 200, 0},
				{"Range", fmt.Sprintf("bytes=%d-%d,%d-%d", at, at+3, at+4, at+9), 200, 0},
				{"Range", fmt.Sprintf("Bytes=%d-%d, 0-1", at, at+credentials.MinPart), 200, 0},
				{"Range", fmt.Sprintf("bytes=%d-", at+7), 206, at + 7},
				{"Range", fmt.Sprintf("bytes=-%d", size-at-7), 206, at + 7},
				{"Range", fmt.Sprintf("bytes=%d-%d", at+7, at+7+credentials.MinPart-1), 206, at + 7},
				{"Range", fmt.Sprintf("bytes=%d-%d", at+7-credentials.MinPart, at+6), 206, at + 7 - credentials.MinPart},
				{"Range", fmt.Sprintf("bytes=0-%d", at+6), 206, 0},
				{"Range", fmt.Sprintf("bytes=%d-%d", 0, 2*credentials.MinPart-1), 206, 0},
			} {
				resp, body, err := w.askWith("GET", host, "/", proto, append(auth, tc.field, tc.asked)...)
				if err != nil || resp.StatusCode != tc.status || resp.ContentLength != int64(len(body)) {
					t.Errorf("%s, %s, %s: %d, %v", proto, host, tc.asked, resp.StatusCode, err)
				}
				if n := piece(tc.from, body); n >= credentials.MinEdge {
					t.Errorf("%s, %s, %s: shows %d bytes", proto, host, tc.asked, n)
				}
				if tc.from == 0 && !strings.HasPrefix(body, "0123456789abcdef") {
					t.Errorf("%s, %s, %s: %.20q", proto, host, tc.asked, body)
				}
			}
			// A page of records passes, a part that nobody asked for only where no
			// provider is bound and without the key's edges.
			if resp, body, err := w.askWith("GET", host, "/page", proto, auth...); err != nil || resp.StatusCode != 206 || body != "[{}]"+strings.Repeat("*", len(secretValue)-7) {
				t.Errorf("%s, %s: a page: %d %q, %v", proto, host, resp.StatusCode, body, err)
			}
			for _, asked := range []string{"", "bytes=1-6", "bytes=7-", "bytes=0-5"} {
				resp, body, err := w.askWith("GET", host, "/always", proto, append(auth, "Range", asked)...)
				if host == "raw.example.com" {
					if err != nil || resp.StatusCode != 206 || body != "*******" {
						t.Errorf("%s, %s, %q: %d %q, %v", proto, host, asked, resp.StatusCode, body, err)
					}
				} else if err != nil || resp.StatusCode != 502 || !strings.Contains(body, "uninspected_response") {
					t.Errorf("%s, %s, %q: %d %q, %v", proto, host, asked, resp.StatusCode, body, err)
				}
			}
		}
		w.load(endpoints(judgedAPI + ", allow_unsearched_answers: true"))
		if resp, body, err := w.askWith("GET", "api.example.com", "/", proto, "Authorization", bearer, "Range", fmt.Sprintf("bytes=%d-%d", at, at+6)); err != nil || resp.StatusCode != 206 || body != secretValue[:7] {
			t.Errorf("%s: the control is %d %q, %v", proto, resp.StatusCode, body, err)
		}
	}
}

// TestBypass_B82_StoredThere: a key that one host has stored cannot be read through
// another one, also once the provider is gone.
func TestBypass_B82_StoredThere(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		var stored string
		w := masked(t, proto, func(rw http.ResponseWriter, r *http.Request) {
			if k := r.Header.Get("Authorization"); k != "" {
				stored = k
			}
			if r.URL.Path == "/packed" {
				z := gzip.NewWriter(rw)
				_, _ = io.WriteString(z, stored)
				_ = z.Close()
				return
			}
			_, _ = io.WriteString(rw, stored)
		}, judgedAPI, judgedRaw, "host: other.example.com, port: 80")
		w.site("other.example.com", 80, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, stored) }))
		if _, _, err := w.askWith("PUT", "api.example.com", "/", proto, "Authorization", bearer); err != nil || stored != "Bearer "+secretValue {
			t.Fatalf("%s: stored %q, %v", proto, stored, err)
		}
		check := func(when string) {
			t.Helper()
			if _, body, err := w.askWith("GET", "raw.example.com", "/", proto); err != nil || body != "Bearer "+strings.Repeat("*", len(secretValue)) {
				t.Errorf("%s, %s: %q, %v", proto, when, body, err)
			}
			if _, body, err := w.askWith("GET", "raw.example.com", "/packed", proto); err == nil {
				t.Errorf("%s, %s: packed: %q", proto, when, body)
			}
			_, body := get(t, w.client(w.byConnect), "GET", "http://other.example.com/", nil)
			if shownIn(body) {
				t.Errorf("%s, %s: without TLS: %q", proto, when, body)
			}
		}
		check("attached")
		set, err := credentials.New(credentials.Config{AnyPlace: true, Before: w.sandbox.keys()}, []credentials.Provider{{Name: "api", Gone: "detached"}})
		if err != nil {
			t.Fatal(err)
		}
		w.sandbox.SetCredentials(set)
		check("detached")
		w.sandbox.SetCredentials(nil)
		if _, body, err := w.askWith("GET", "raw.example.com", "/", proto); err != nil || !shownIn(body) {
			t.Errorf("%s: the control is %q, %v", proto, body, err)
		}
	}
}

// TestBypass_B83_TraceAndOptions: no value is put into a TRACE request, and into an
// OPTIONS request only where a rule names that method.
func TestBypass_B83_TraceAndOptions(t *testing.T) {
	named := strings.Replace(judgedAPI, "access: full", "rules: [{allow: {method: '*', path: '/**'}}, {allow: {method: OPTIONS, path: /named}}]", 1)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct {
			endpoint, method, path string
			put                    bool
		}{
			{judgedAPI, "GET", "/", true}, // the control
			{judgedAPI, "TRACE", "/", false},
			{judgedAPI, "OPTIONS", "/", false},
			{judgedAPI, "POST", "/?_method=GET", true},
			{judgedAPI, "POST", "/?_method=TRACE", false},
			{judgedAPI, "POST", "/?_method=options", false},
			{strings.Replace(judgedAPI, "full", "read-only", 1), "OPTIONS", "/", false},
			{strings.Replace(judgedAPI, "full", "read-only", 1), "GET", "/", true},
			{"host: api.example.com, port: 443", "OPTIONS", "/", false},
			{"host: api.example.com, port: 443", "TRACE", "/", false},
			{named, "OPTIONS", "/named", true},
			{named, "OPTIONS", "/", false},
			{named, "TRACE", "/named", false},
		} {
			w := withSecret(t)
			w.load(endpoints(tc.endpoint))
			got := w.site("api.example.com", 443, nil, proto)
			resp, body, err := w.askWith(tc.method, "api.example.com", tc.path, proto, "Authorization", bearer)
			arrived := fmt.Sprint(got.got())
			if err != nil || shownIn(arrived) != tc.put || (resp.StatusCode == 200) != tc.put || !tc.put && !strings.Contains(body, "credential_injection_failed") {
				t.Errorf("%s, %s %s at %q: %d %q, %v; arrived %s", proto, tc.method, tc.path, tc.endpoint, resp.StatusCode, body, err, arrived)
			}
			// Without a placeholder the request goes.
			if resp, _, err := w.askWith(tc.method, "api.example.com", tc.path, proto); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s, %s %s at %q, without: %d, %v", proto, tc.method, tc.path, tc.endpoint, resp.StatusCode, err)
			}
		}
	}
}

// TestDownloadsAreExact: archives and large files pass byte by byte, with the fields that
// describe them, and can be resumed.
func TestDownloadsAreExact(t *testing.T) {
	noise := make([]byte, 2<<20)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	_, _ = z.Write(bytes.Repeat([]byte("package sk-c2Vj; "), 10_000))
	_, _ = z.Write(noise[:500_000])
	_ = z.Close()
	files := map[string][]byte{"/noise": noise, "/archive.tgz": archive.Bytes(), "/padded.tgz": append(bytes.Clone(archive.Bytes()), make([]byte, 4096)...), "/cut.tgz": archive.Bytes()[:400_000]}
	for _, proto := range []string{"http/1.1", "h2"} {
		w := masked(t, proto, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Etag", `"x"`)
			rw.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(files[r.URL.Path]))
		})
		for path, want := range files {
			for _, host := range []string{"api.example.com", "raw.example.com"} {
				resp, body, err := w.askWith("GET", host, path, proto)
				if err != nil || body != string(want) || resp.Header.Get("Content-Length") != strconv.Itoa(len(want)) || resp.Header.Get("Etag") != `"x"` || resp.Header.Get("Accept-Ranges") != "bytes" {
					t.Errorf("%s, %s%s: %d bytes of %d, %v, %v", proto, host, path, len(body), len(want), err, resp.Header)
				}
				resumed := ""
				for _, asked := range []string{"bytes=0-199999", "bytes=200000-"} {
					resp, body, err := w.askWith("GET", host, path, proto, "Range", asked, "If-Range", `"x"`)
					if err != nil || resp.StatusCode != 206 {
						t.Fatalf("%s, %s%s, %s: %d, %v", proto, host, path, asked, resp.StatusCode, err)
					}
					resumed += body
				}
				if resumed != string(want) {
					t.Errorf("%s, %s%s: in parts it is another", proto, host, path)
				}
			}
		}
		// Where a value cannot be put in, an answer may be compressed on the way.
		resp, _, err := w.askWith("GET", "raw.example.com", "/noise", proto, "Accept-Encoding", "gzip, br")
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%d, %v", resp.StatusCode, err)
		}
	}
}
