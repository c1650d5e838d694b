// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/runtime/internal/secret"
)

// renderings are the ways a server may echo a value.
func renderings(v string) map[string]string {
	quoted, _ := json.Marshal(v)
	var ascii strings.Builder
	for _, r := range strings.Trim(string(quoted), `"`) {
		if r > 0x7e {
			ascii.WriteString(`\u00` + string("0123456789abcdef"[r>>4&15]) + string("0123456789abcdef"[r&15]))
		} else {
			ascii.WriteRune(r)
		}
	}
	var units, hex, decimal, references strings.Builder
	for _, r := range v {
		fmt.Fprintf(&decimal, "&#%d;", r)
		fmt.Fprintf(&references, "&#x%X;", r)
		fmt.Fprintf(&units, `\u%04x`, r)
	}
	for i := range len(v) {
		hex.WriteString("%" + string("0123456789abcdef"[v[i]>>4]) + string("0123456789abcdef"[v[i]&15]))
	}
	b64 := base64.StdEncoding.EncodeToString
	return map[string]string{
		"raw":                 v,
		"query":               url.QueryEscape(v),
		"path":                url.PathEscape(v),
		"query, lower case":   strings.ToLower(url.QueryEscape(strings.ToLower(v))),
		"every byte":          hex.String(),
		"json":                strings.Trim(string(quoted), `"`),
		"json, ASCII":         ascii.String(),
		"json, slashes":       strings.ReplaceAll(strings.Trim(string(quoted), `"`), "/", `\/`),
		"json, every letter":  units.String(),
		"html":                strings.NewReplacer("/", "&#x2F;", "+", "&#43;", "=", "&#61;").Replace(html.EscapeString(v)),
		"html, decimal":       decimal.String(),
		"html, hexadecimal":   references.String(),
		"html of base64":      strings.NewReplacer("/", "&#x2f;", "+", "&#43;", "=", "&#61;").Replace(b64([]byte("??>" + v))),
		"base64":              b64([]byte(v)),
		"base64, URL":         base64.RawURLEncoding.EncodeToString([]byte(v)),
		"basic":               b64([]byte("x-access-token:" + v)),
		"basic, other name":   b64([]byte("u:" + v)),
		"basic, user":         b64([]byte(v + ":")),
		"base64 of json":      b64([]byte(`{"authorization":"Bearer ` + v + `"}`)),
		"base64 in a URL":     url.QueryEscape(b64([]byte(v + "\xff\xfe"))),
		"base64, PHP's slash": strings.ReplaceAll(b64([]byte("?>"+v)), "/", `\/`),
	}
}

// shown is the longest part of v that text shows, decoded in every way it may be.
func shown(text, v string) bool {
	if strings.Contains(text, v) {
		return true
	}
	if u, err := url.QueryUnescape(text); err == nil && strings.Contains(u, v) {
		return true
	}
	if strings.Contains(html.UnescapeString(text), v) {
		return true
	}
	var s string
	if json.Unmarshal([]byte(`"`+text+`"`), &s) == nil && strings.Contains(s, v) {
		return true
	}
	for _, fragment := range base64Inside(v) {
		if strings.Contains(text, fragment) || strings.Contains(s, fragment) {
			return true
		}
	}
	return false
}

// answerBody is the body of an answer as the sandbox gets it.
func answerBody(t testing.TB, r *Rewritten, contentType, coding string, body io.Reader) io.Reader {
	t.Helper()
	h := http.Header{}
	for name, value := range map[string]string{"Content-Type": contentType, "Content-Encoding": coding} {
		if value != "" {
			h.Set(name, value)
		}
	}
	out, err := r.ResponseBody(http.StatusOK, h, io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

func TestBypass_B65_Echo(t *testing.T) {
	t.Parallel()
	for _, v := range []string{" leading space", token, plain, old, "123:AAtele-gram_token", "../../admin-token"} {
		target := github()
		set := testSet(t)
		switch v {
		case plain, old:
			target = anthropic()
		case " leading space":
			var err error
			if set, err = New(Config{AnyPlace: true}, []Provider{{Name: "p", Endpoints: []Endpoint{{Host: target.Host, Ports: []uint16{443}}}, Credentials: []Credential{{Key: "K", Value: secret.New(v)}}}}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := set.Request(target, Options{}, "/", "", nil, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, form := range renderings(v) {
			if strings.HasPrefix(name, "query, lower") && v != strings.ToLower(v) {
				continue // another value
			}
			for _, ct := range []string{"application/json", "text/html", "text/event-stream", "", "application/problem+json", "x/unknown", "application/graphql-response+json"} {
				for split, reader := range map[string]func(io.Reader) io.Reader{
					"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
				} {
					body := `{"a":"` + form + `","b":1}`
					out, err := io.ReadAll(answerBody(t, r, ct, "", reader(strings.NewReader(body))))
					if err != nil {
						t.Fatal(err)
					}
					if len(out) != len(body) || !strings.HasPrefix(string(out), `{"a":"`) || !strings.HasSuffix(string(out), `","b":1}`) {
						t.Errorf("%s, %s: the text around it changed: %q", name, split, out)
					}
					if inner := string(out[6 : len(out)-8]); shown(inner, v) || !strings.Contains(inner, "****") {
						t.Errorf("%s, %q, %s: %q shows %q", name, ct, split, out, v)
					}
				}
			}
			h := http.Header{"X-Echo": {"before " + form + " behind", "other"}}
			r.ResponseHeader(h)
			if got := h["X-Echo"][0]; shown(strings.TrimSuffix(strings.TrimPrefix(got, "before "), " behind"), v) || !strings.HasPrefix(got, "before ") || h["X-Echo"][1] != "other" {
				t.Errorf("header, %s: %q", name, h)
			}
			if got := r.ResponseText([]byte(form)); shown(string(got), v) {
				t.Errorf("message, %s: %q", name, got)
			}
		}
	}
}

// An echo that is written in lines, as base64 often is, is found wherever they end. The
// control is a text that is not the value.
func TestBypass_B65_EchoInLines(t *testing.T) {
	t.Parallel()
	r := answered(t, anthropic())
	for _, end := range []string{"\n", "\r\n", `\n`, `\r\n`, "%0A", "%0d%0a"} {
		for form, want := range map[string]bool{
			plain: true, base64.StdEncoding.EncodeToString([]byte("user:" + plain + "\xff")): true, plain[:len(plain)-1] + "X": false,
		} {
			for i := range form {
				if i == 0 {
					continue
				}
				body := "a " + form[:i] + end + form[i:] + " b"
				out, err := io.ReadAll(answerBody(t, r, "", "", iotest.HalfReader(strings.NewReader(body))))
				if got := strings.ReplaceAll(string(out), end, ""); err != nil || shown(got, plain) || (string(out) != body) != want {
					t.Errorf("%q after %d: %q, %v", end, i, out, err)
				}
			}
		}
	}
	lines := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("some text before ", 7) + plain + "behind"))
	var wrapped strings.Builder
	for ; len(lines) > 60; lines = lines[60:] {
		wrapped.WriteString(lines[:60] + `\n`) // as GitHub's API gives the content of a file
	}
	out, err := io.ReadAll(answerBody(t, r, "", "", strings.NewReader(`{"content":"`+wrapped.String()+lines+`"}`)))
	if got := strings.ReplaceAll(string(out), `\n`, ""); err != nil || shown(got, plain) || !strings.Contains(got, strings.Repeat("*", len(plain))) {
		t.Errorf("%q, %v", out, err)
	}
}

// A value stored by an earlier request is masked in the answer to a later one that
// used none.
func TestBypass_B65_StoredBefore(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(github(), Options{}, "/gist/1", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(answerBody(t, r, "text/plain", "", strings.NewReader("gist: "+token)))
	if err != nil || strings.Contains(string(out), token) {
		t.Errorf("%q, %v", out, err)
	}
}

// Compression that was not asked for hides nothing. The answer ends before the value is
// complete; one without a value passes as it is, with the fields that describe it.
func TestBypass_B65_CompressedEcho(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(anthropic(), Options{}, "/", "", http.Header{"Accept-Encoding": {"gzip, br"}}, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("asked for %q", got)
	}
	h := http.Header{"Content-Encoding": {"gzip"}, "Content-Length": {"99"}, "Content-Type": {"text/plain"}}
	want := h.Clone()
	if r.ResponseHeader(h) {
		t.Error("a field was left out")
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
	for coding, c := range codings {
		if coding == "gzip twice" {
			continue
		}
		clean := c.pack([]byte("echo " + plain[1:] + "."))
		if out, err := io.ReadAll(answerBody(t, r, "text/plain", c.header, bytes.NewReader(clean))); err != nil || !bytes.Equal(out, clean) {
			t.Errorf("%s: %q became %q, %v", coding, clean, out, err)
		}
		out, err := io.ReadAll(answerBody(t, r, "text/plain", c.header, bytes.NewReader(c.pack([]byte("echo "+plain+".")))))
		var e *EchoError
		if !errors.As(err, &e) || strings.Contains(c.unpack(out), plain) {
			t.Errorf("%s: %q, %v", coding, out, err)
		}
	}
	for _, coding := range []string{"br", "gzip", "gzip, br"} {
		out, err := io.ReadAll(answerBody(t, r, "text/plain", coding, strings.NewReader("not that "+plain)))
		var e *EchoError
		if !errors.As(err, &e) || len(out) > 0 {
			t.Errorf("%s: %q, %v", coding, out, err)
		}
	}
}

// An answer that is cut off in the middle of a value shows no half of it.
func TestBypass_B65_CutOff(t *testing.T) {
	t.Parallel()
	r := answered(t, anthropic())
	half := "key: " + plain[:len(plain)-1]
	for name, body := range map[string]io.Reader{
		"end": strings.NewReader(half), "reset": io.MultiReader(strings.NewReader(half), iotest.ErrReader(io.ErrUnexpectedEOF)),
	} {
		out, err := io.ReadAll(answerBody(t, r, "text/plain", "", body))
		if want := "key: " + strings.Repeat("*", len(plain)-1); string(out) != want || (err != nil) != (name == "reset") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestScrubLeavesTheRest(t *testing.T) {
	t.Parallel()
	s := testSet(t)
	r, err := s.Request(anthropic(), Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"almost": plain[:len(plain)-1] + "X " + plain[1:] + " sk-ant sk- s %73 \\u0073 %7 \\u00",
		"empty":  "", "one byte": "x", "zip": "PK\x03\x04 whatever", "png": "\x89PNG\r\n", "not gzip": "\x1f\x8b\x08 whatever", "not zstd": "(\xb5/\xfd(",
	} {
		out, err := io.ReadAll(answerBody(t, r, "text/plain", "", strings.NewReader(body)))
		if err != nil || string(out) != body {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	// At a host without credentials nothing is refused, and the answer may be compressed.
	r, err = s.Request(to("other.example", 443), Options{}, "/", "", http.Header{"Accept-Encoding": {"br, gzip;q=0.5"}}, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Accept-Encoding"); got != " gzip;q=0.5" {
		t.Errorf("asked for %q", got)
	}
	if out, err := io.ReadAll(answerBody(t, r, "text/plain", "br", strings.NewReader("x"))); err != nil || string(out) != "x" {
		t.Errorf("%q, %v", out, err)
	}
	// Where nothing was ever given, nothing is touched.
	none := &Set{}
	if r, err = none.Request(to("other.example", 443), Options{}, "/", "", http.Header{"Accept-Encoding": {"br"}, "Range": {"bytes=0-1"}}, "", 0, nil); err != nil {
		t.Fatal(err)
	}
	body := io.NopCloser(strings.NewReader("x"))
	if out, err := r.ResponseBody(http.StatusPartialContent, http.Header{}, body); err != nil || out != body || r.Header.Get("Accept-Encoding") != "br" || r.Header.Get("Range") == "" {
		t.Errorf("a response without credentials was touched: %v, %v", err, r.Header)
	}
}

// TestBypass_B80_TypesAreNotBelieved: an answer is searched whatever its type says.
func TestBypass_B80_TypesAreNotBelieved(t *testing.T) {
	t.Parallel()
	r := answered(t, anthropic())
	open, err := testSet(t).Request(anthropic(), Options{AllowUnsearched: true}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ct := range []string{
		"image/png", "image/svg+xml", "audio/ogg", "font/woff2", "application/octet-stream", "application/pdf", "application/zip", "application/wasm",
		"application/grpc+proto", "application/x-protobuf", "application/x-git-upload-pack-result", "application/vnd.amazon.eventstream", "no type",
	} {
		body := "\x89PNG\x00" + plain + "\xff\x00"
		out, err := io.ReadAll(answerBody(t, r, ct, "", strings.NewReader(body)))
		if want := strings.ReplaceAll(body, plain, strings.Repeat("*", len(plain))); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", ct, out, err)
		}
		if out, err := io.ReadAll(answerBody(t, open, ct, "", strings.NewReader(body))); err != nil || string(out) != body {
			t.Errorf("%s, allow_unsearched_answers: %q, %v", ct, out, err)
		}
	}
}

// What cannot be the beginning of a value is there at once.
func TestScrubDoesNotHoldBack(t *testing.T) {
	t.Parallel()
	r := answered(t, anthropic())
	pr, pw := io.Pipe()
	defer pw.Close()
	body := answerBody(t, r, "text/event-stream", "", pr)
	event := "data: {\"text\":\"task sk\"}\n\n"
	go func() { _, _ = io.WriteString(pw, event) }()
	buf := make([]byte, 100)
	n, err := body.Read(buf)
	if err != nil || string(buf[:n]) != event {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestScrubLengths(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value string
		hides bool
	}{
		"short": {"1234567", false}, "long enough": {"12345678", true}, "huge": {strings.Repeat("0123456789abcdef", MaxValue/16), true},
		"binary": {"\x00\x01\x02\x80\x81\x82\xff\xfe\xfd", true}, "stars": {"********", true}, "periodic": {strings.Repeat("a", 4000) + "b", true},
	} {
		s, err := New(Config{AnyPlace: true}, []Provider{{Name: "p", Endpoints: []Endpoint{{Host: "h", Ports: []uint16{443}}}, Credentials: []Credential{{Key: "K", Value: secret.New(c.value)}}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Request(to("h", 443), Options{}, "/", "", nil, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{c.value, base64.StdEncoding.EncodeToString([]byte(c.value)), strings.ReplaceAll(url.QueryEscape(c.value), "+", "%20")} {
			out, err := io.ReadAll(answerBody(t, r, "text/plain", "", strings.NewReader("a "+form+" b")))
			if err != nil || strings.Contains(string(out), form) == c.hides && !(form == c.value && c.value == "********") {
				t.Errorf("%s: %.60q, %v", name, out, err)
			}
		}
	}
}
