// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
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
	var units, hex strings.Builder
	for _, r := range v {
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
			if set, err = New(Config{}, []Provider{{Name: "p", Endpoints: []Endpoint{{Host: target.Host, Ports: []uint16{443}}}, Credentials: []Credential{{Key: "K", Value: NewSecret(v)}}}}); err != nil {
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
					out, err := io.ReadAll(r.ResponseBody(ct, "", reader(strings.NewReader(body))))
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

// A value stored by an earlier request is masked in the answer to a later one that
// used none.
func TestBypass_B65_StoredBefore(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(github(), Options{}, "/gist/1", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r.ResponseBody("text/plain", "", strings.NewReader("gist: "+token)))
	if err != nil || strings.Contains(string(out), token) {
		t.Errorf("%q, %v", out, err)
	}
}

// Compression that was not asked for hides nothing.
func TestBypass_B65_CompressedEcho(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(anthropic(), Options{}, "/", "", http.Header{"Accept-Encoding": {"gzip, br"}}, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("asked for %q", got)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, "echo "+plain+".")
	_ = w.Close()
	h := http.Header{"Content-Encoding": {"gzip"}, "Content-Length": {"99"}, "Content-Type": {"text/plain"}}
	r.ResponseHeader(h)
	if diff := cmp.Diff(http.Header{"Content-Type": {"text/plain"}}, h); diff != "" {
		t.Error(diff)
	}
	out, err := io.ReadAll(r.ResponseBody("text/plain", "gzip", &b))
	if want := "echo " + strings.Repeat("*", len(plain)) + "."; err != nil || string(out) != want {
		t.Errorf("%q, %v", out, err)
	}
	for _, coding := range []string{"br", "gzip", "gzip, br"} {
		out, err := io.ReadAll(r.ResponseBody("text/plain", coding, strings.NewReader("not that "+plain)))
		var e *EchoError
		if !errors.As(err, &e) || len(out) > 0 {
			t.Errorf("%s: %q, %v", coding, out, err)
		}
	}
}

// An answer that is cut off in the middle of a value shows no half of it.
func TestBypass_B65_CutOff(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(anthropic(), Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	half := "key: " + plain[:len(plain)-1]
	for name, body := range map[string]io.Reader{
		"end": strings.NewReader(half), "reset": io.MultiReader(strings.NewReader(half), iotest.ErrReader(io.ErrUnexpectedEOF)),
	} {
		out, err := io.ReadAll(r.ResponseBody("text/plain", "", body))
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
	for name, c := range map[string]struct{ ct, body string }{
		"almost":  {"text/plain", plain[:len(plain)-1] + "X " + plain[1:] + " sk-ant sk- s %73 \\u0073 %7 \\u00"},
		"image":   {"image/png", "\x89PNG" + plain},
		"archive": {"application/zip", plain},
		"binary":  {"application/octet-stream", plain},
		"grpc":    {"application/grpc+proto", plain},
		"empty":   {"text/plain", ""},
	} {
		out, err := io.ReadAll(r.ResponseBody(c.ct, "", strings.NewReader(c.body)))
		if err != nil || string(out) != c.body {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if out, err := io.ReadAll(r.ResponseBody("image/svg+xml", "", strings.NewReader(plain))); err != nil || strings.Contains(string(out), plain) {
		t.Errorf("svg: %q, %v", out, err)
	}
	// A host without credentials is left alone.
	r, err = s.Request(to("other.example", 443), Options{}, "/", "", http.Header{"Accept-Encoding": {"br"}}, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := strings.NewReader("x")
	h := http.Header{"Content-Encoding": {"br"}}
	r.ResponseHeader(h)
	if r.ResponseBody("text/plain", "br", body) != io.Reader(body) || r.Header.Get("Accept-Encoding") != "br" || h.Get("Content-Encoding") != "br" {
		t.Error("a response without credentials was touched")
	}
}

// What cannot be the beginning of a value is there at once.
func TestScrubDoesNotHoldBack(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(anthropic(), Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	defer pw.Close()
	body := r.ResponseBody("text/event-stream", "", pr)
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
		s, err := New(Config{}, []Provider{{Name: "p", Endpoints: []Endpoint{{Host: "h", Ports: []uint16{443}}}, Credentials: []Credential{{Key: "K", Value: NewSecret(c.value)}}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Request(to("h", 443), Options{}, "/", "", nil, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{c.value, base64.StdEncoding.EncodeToString([]byte(c.value)), strings.ReplaceAll(url.QueryEscape(c.value), "+", "%20")} {
			out, err := io.ReadAll(r.ResponseBody("text/plain", "", strings.NewReader("a "+form+" b")))
			if err != nil || strings.Contains(string(out), form) == c.hides && !(form == c.value && c.value == "********") {
				t.Errorf("%s: %.60q, %v", name, out, err)
			}
		}
	}
}
