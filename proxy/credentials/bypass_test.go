// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// The tests take the attacker's side: a program in the sandbox that wants a value,
// or wants its own account used.

const foreignKey = "sk-ant-api03-ATTACKER"

func TestBypass_B63_ForeignCredential(t *testing.T) {
	t.Parallel()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	type request struct {
		query string
		h     http.Header
	}
	refused := map[string]request{
		"key":                    {h: http.Header{"X-Api-Key": {foreignKey}}},
		"bearer":                 {h: http.Header{"Authorization": {"Bearer " + foreignKey}}},
		"beside ours":            {h: http.Header{"X-Api-Key": {place1}, "Authorization": {"Bearer " + foreignKey}}},
		"two lines":              {h: http.Header{"X-Api-Key": {place1, foreignKey}}},
		"ours within":            {h: http.Header{"X-Api-Key": {foreignKey + " " + place1}}},
		"ours behind a comma":    {h: http.Header{"Authorization": {"Bearer " + foreignKey + ", Bearer " + place1}}},
		"as the scheme":          {h: http.Header{"Authorization": {foreignKey + " " + place1}}},
		"basic":                  {h: http.Header{"Authorization": {"Basic " + b64("u:"+foreignKey)}}},
		"basic name":             {h: http.Header{"Authorization": {"Basic " + b64(foreignKey+":"+place1)}}},
		"basic password":         {h: http.Header{"Authorization": {"Basic " + b64(place1+":"+foreignKey)}}},
		"basic, ours and more":   {h: http.Header{"Authorization": {"Basic " + b64("git:"+place1+":"+foreignKey)}}},
		"another API's header":   {h: http.Header{"X-Goog-Api-Key": {foreignKey}}},
		"provider's own header":  {h: http.Header{"X-Special": {foreignKey}}},
		"query":                  {query: "key=" + foreignKey},
		"query, encoded":         {query: "a=1&%6bE%79=" + foreignKey},
		"query beside ours":      {query: "key=" + place1 + "&key=" + foreignKey},
		"query behind semicolon": {query: "a=1;api_key=" + foreignKey},
		"provider's own query":   {query: "special=" + foreignKey},
		"subprotocol":            {h: http.Header{"Sec-Websocket-Protocol": {"realtime, openai-insecure-api-key." + foreignKey}}},
		"signature":              {h: http.Header{"Authorization": {"AWS4-HMAC-SHA256 Credential=" + foreignKey}}},
	}
	set := func(modelAPI bool) *Set {
		ps := providers()
		ps[0].ModelAPI, ps[0].AuthHeaders, ps[0].AuthQuery = modelAPI, []string{"x-special"}, []string{"special"}
		s, err := New(Config{AnyPlace: true}, ps[:1])
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range refused {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, _, err := sent(set(true), anthropic(), Options{}, "/v1/files", c.query, c.h, "", "")
			refusedWith(t, out, err, "foreign_credential")
			var f *ForeignCredentialError
			if !errors.As(err, &f) || strings.Contains(err.Error(), foreignKey) {
				t.Errorf("%v", err)
			}
			out, _, err = sent(set(false), anthropic(), Options{}, "/v1/files", c.query, c.h, "", "")
			if err != nil || !strings.Contains(out, "ATTACKER") && !strings.Contains(out, "Basic") {
				t.Errorf("allowed: %s, %v", out, err)
			}
		})
	}
	allowed := map[string]request{
		"ours":            {h: http.Header{"X-Api-Key": {place1}}},
		"ours as bearer":  {h: http.Header{"Authorization": {"Bearer  " + place1}}},
		"ours as alias":   {h: http.Header{"X-Api-Key": {"sk-ant-OPENSHELL-RESOLVE-ENV-ANTHROPIC_API_KEY"}}},
		"ours in a query": {query: "key=" + url.QueryEscape(place1)},
		"none":            {query: "model=x&keys=1", h: http.Header{"Accept": {"*/*"}, "X-Api-Key": {""}}},
	}
	for name, c := range allowed {
		if _, _, err := sent(set(true), anthropic(), Options{}, "/v1/files", c.query, c.h, "", ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Cookies go, silently; a host that is no model API takes what it is given.
	out, _, err := sent(set(true), anthropic(), Options{}, "/", "", http.Header{"Cookie": {"__cf_bm=x; sessionKey=" + foreignKey + "; s=" + place1}}, "", "")
	if err != nil || !strings.Contains(out, "Cookie: s="+plain+"\r\n") {
		t.Errorf("cookie: %s, %v", out, err)
	}
	if _, _, err := sent(testSet(t), github(), Options{}, "/", "", http.Header{"Authorization": {"Bearer " + foreignKey}}, "", ""); err != nil {
		t.Errorf("github: %v", err)
	}
}

// A provider bound to one path refuses foreign keys on every path of the host.
func TestBypass_B63_OtherPath(t *testing.T) {
	t.Parallel()
	ps := providers()[:1]
	ps[0].Endpoints[0].Path = "/v1/messages"
	s, err := New(Config{AnyPlace: true}, ps)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := sent(s, anthropic(), Options{}, "/v1/files", "", http.Header{"X-Api-Key": {foreignKey}}, "", "")
	refusedWith(t, out, err, "foreign_credential")
}

func TestBypass_B64_WrongEndpoint(t *testing.T) {
	t.Parallel()
	gh := Marker + "GITHUB_TOKEN"
	for name, c := range map[string]struct {
		t    Target
		path string
		ok   bool
	}{
		"bound":              {github(), "/user", true},
		"another host":       {to("evil.example", 443), "/", false},
		"suffix of the host": {to("api.github.com.evil.example", 443), "/", false},
		"another port":       {to("api.github.com", 8443), "/", false},
		"another provider":   {anthropic(), "/", false},
		"below the path":     {to("paths.example", 443), "/v1/x", true},
		"the path's sibling": {to("paths.example", 443), "/v10/x", false},
		"the path itself":    {to("paths.example", 443), "/v1", false},
		"another path":       {to("paths.example", 443), "/v2/x", false},
		"out of the path":    {to("paths.example", 443), "/v1/../v2/x", false},
		"out, encoded":       {to("paths.example", 443), "/v1/%2e%2e/v2/x", false},
		"out, slash encoded": {to("paths.example", 443), "/v1/..%2fv2/x", false},
		"out, twice encoded": {to("paths.example", 443), "/v1/%252e%252e/x", false},
		"out, backslash":     {to("paths.example", 443), `/v1/..\v2`, false},
		"out, parameter":     {to("paths.example", 443), "/v1/..;/v2", false},
		"no path's spelling": {to("paths.example", 443), "/v1//x", false},
		"spelt otherwise":    {to("paths.example", 443), "/%761/x%20y", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for where, try := range map[string]func() (string, *Rewritten, error){
				"header": func() (string, *Rewritten, error) {
					return sent(testSet(t), c.t, Options{}, c.path, "", http.Header{"X-Token": {gh}}, "", "")
				},
				"query": func() (string, *Rewritten, error) {
					return sent(testSet(t), c.t, Options{}, c.path, "a="+gh, nil, "", "")
				},
				"body": func() (string, *Rewritten, error) {
					return sent(testSet(t), c.t, Options{BodyRewrite: true}, c.path, "", nil, jsonCT, `"`+gh+`"`)
				},
			} {
				out, _, err := try()
				if c.ok && err != nil {
					t.Errorf("%s: %v", where, err)
				}
				if !c.ok {
					refusedWith(t, out, err, "credential_endpoint_mismatch")
				}
			}
		})
	}
}

// The judged path decides, not what a caller may have made of it.
func TestBypass_B64_JudgedPath(t *testing.T) {
	t.Parallel()
	target := to("paths.example", 443)
	target.Path = "/v2/x"
	out, _, err := sent(testSet(t), target, Options{}, "/v1/x", "", http.Header{"X-Token": {Marker + "GITHUB_TOKEN"}}, "", "")
	refusedWith(t, out, err, "credential_endpoint_mismatch")
}

// TestBypass_B66_HiddenInBody: where bodies are not rewritten, a placeholder that the sandbox
// was given passes unchanged, wherever it is bound, and is noted; any other one is refused,
// before a byte of its key leaves. Neither depends on how the placeholder is written or how
// the body arrives.
func TestBypass_B66_HiddenInBody(t *testing.T) {
	t.Parallel()
	every := func(format func(c byte) string) string {
		var b strings.Builder
		for i := range len(Marker) {
			b.WriteString(format(Marker[i]))
		}
		return b.String() + "KEY"
	}
	const hex = "0123456789abcdef"
	bodies := map[string]string{
		"plain":                Marker + "KEY",
		"alias":                "xoxb-OPENSHELL-RESOLVE-ENV-KEY.",
		"behind its beginning": "openshell:resolve:openshell:resolve:env" + Marker + "KEY",
		"percent":              every(func(c byte) string { return "%" + string(hex[c>>4]) + strings.ToUpper(string(hex[c&15])) }),
		"percent twice":        every(func(c byte) string { return "%25" + string(hex[c>>4]) + string(hex[c&15]) }),
		"unicode":              every(func(c byte) string { return `\u00` + string(hex[c>>4]) + string(hex[c&15]) }),
		"unicode in a string":  every(func(c byte) string { return `\\u00` + string(hex[c>>4]) + string(hex[c&15]) }),
		"mixed":                `o%70e\u006eshell:%72esolve\u003Aenv%3aKEY%0a\n`,
		"multipart":            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + Marker + "KEY\r\n--b--\r\n",
		"binary":               "\x00\xff\x80" + Marker + "KEY\x00",
		"twice":                Marker + "KEY " + Marker + "KEY",
		"far in":               strings.Repeat("filler %zz \\u00 opop ", 4000) + Marker + "KEY",
	}
	splits := map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "halves": iotest.HalfReader, "error with data": iotest.DataErrReader,
		"whole": func(r io.Reader) io.Reader { return r },
	}
	for name, body := range bodies {
		for split, reader := range splits {
			for key, ok := range map[string]bool{
				"GITHUB_TOKEN": true, "GITHUB%5fTOKEN": true, `GITHUB\u005fTOKEN`: true, "v2_ANTHROPIC_API_KEY": true, "s" + handle + "_ANTHROPIC_API_KEY": true, "TELEGRAM": true,
				"GITHUB_TOKENS": false, "GITHUB_TOKE": false, "NOBODY": false, "v9_ANTHROPIC_API_KEY": false, "": false, `GITHUB\u005fTOKEN\u005f`: false,
			} {
				body := strings.ReplaceAll(body, "KEY", key)
				r, err := testSet(t).Request(to("elsewhere.example", 80), Options{}, "/", "", nil, "application/octet-stream", int64(len(body)), reader(strings.NewReader(body)))
				if err != nil {
					t.Fatal(err)
				}
				out, err := io.ReadAll(iotest.HalfReader(r.Body))
				if !ok {
					var inBody *BodyError
					if !errors.As(err, &inBody) || !strings.HasPrefix(body, string(out)) || key != "" && strings.Contains(string(out), key) || len(out) == len(body) {
						t.Errorf("%s, %s, %s: error %v, sent %d bytes of %d", name, split, key, err, len(out), len(body))
					}
					if _, err := r.Body.Read(make([]byte, 8)); err == nil {
						t.Errorf("%s, %s, %s: read on after the error", name, split, key)
					}
					continue
				}
				noted := parseKey(strings.NewReplacer("%5f", "_", `\u005f`, "_").Replace(key)).name
				if err != nil || string(out) != body || !slices.Equal(r.Passed(), []string{noted}) || len(r.Used()) > 0 {
					t.Errorf("%s, %s, %s: error %v, passed %q, sent %d bytes of %d", name, split, key, err, r.Passed(), len(out), len(body))
				}
			}
		}
	}
}

// TestPlaceholderWaitsForNothing: a body that ends, for now, with a placeholder of the sandbox
// arrives to its last byte before the next one is sent: the sender may wait for an answer.
func TestPlaceholderWaitsForNothing(t *testing.T) {
	t.Parallel()
	src, w := io.Pipe()
	r, err := testSet(t).Request(github(), Options{}, "/", "", nil, jsonCT, -1, src)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"a" + Marker + "GITHUB_TOKEN", "\n" + Marker[:5], Marker[5:] + "TELEGRAM"} {
		go func() { _, _ = io.WriteString(w, part) }()
		got := make([]byte, len(part))
		if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != part {
			t.Fatalf("read %q, %v; want %q", got, err, part)
		}
	}
}

// TestBypass_B66_GoneProvider: the placeholders of a provider that was detached are not the
// sandbox's any more.
func TestBypass_B66_GoneProvider(t *testing.T) {
	t.Parallel()
	all := providers()
	for i := range all {
		all[i].Gone = "detached"
	}
	set, err := New(Config{AnyPlace: true}, all)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := sent(set, to("elsewhere.example", 443), Options{}, "/", "", nil, jsonCT, `"`+Marker+`GITHUB_TOKEN"`)
	refusedWith(t, out, err, "credential_placeholder_in_request_body")
}

func TestBypass_B66_Compressed(t *testing.T) {
	t.Parallel()
	pack := func(coding, s string) string {
		var b bytes.Buffer
		var w io.WriteCloser
		switch coding {
		case "gzip":
			w = gzip.NewWriter(&b)
		case "deflate":
			w = zlib.NewWriter(&b)
		default:
			z, err := zstd.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			w = z
		}
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	hiding := strings.Repeat("a", 40_000) + `openshell\u003Aresolve:env:NOBODY`
	bomb := strings.Repeat("a", MaxDecompressed+1)
	for name, c := range map[string]struct{ coding, body, code string }{
		"gzip":                  {"gzip", pack("gzip", hiding), "credential_placeholder_in_request_body"},
		"gzip, named oddly":     {" X-GZIP , ", pack("gzip", hiding), "credential_placeholder_in_request_body"},
		"gzip, second member":   {"gzip", pack("gzip", "a") + pack("gzip", hiding), "credential_placeholder_in_request_body"},
		"deflate":               {"deflate", pack("deflate", hiding), "credential_placeholder_in_request_body"},
		"zstd":                  {"zstd", pack("zstd", hiding), "credential_placeholder_in_request_body"},
		"zstd, second frame":    {"zstd", pack("zstd", "a") + pack("zstd", hiding), "credential_placeholder_in_request_body"},
		"gzip bomb":             {"gzip", pack("gzip", bomb), "uninspected_credentials"},
		"broken gzip":           {"gzip", pack("gzip", hiding)[:20], "uninspected_credentials"},
		"not gzip":              {"gzip", hiding, "uninspected_credentials"},
		"not zstd":              {"zstd", hiding, "uninspected_credentials"},
		"not deflate":           {"deflate", hiding, "uninspected_credentials"},
		"brotli":                {"br", "x", "uninspected_credentials"},
		"two codings":           {"gzip, gzip", pack("gzip", pack("gzip", hiding)), "uninspected_credentials"},
		"unknown":               {"x", hiding, "uninspected_credentials"},
		"not decoded here":      {"snappy", "x", "uninspected_credentials"},
		"not readable":          {"utf-8, base64", "x", "uninspected_credentials"},
		"charset":               {"utf-8", hiding, "credential_placeholder_in_request_body"},
		"AWS's chunks":          {"Aws-Chunked", hiding, "credential_placeholder_in_request_body"},
		"gzip in AWS's chunks":  {"gzip,aws-chunked", "1\r\n" + pack("gzip", "a"), "uninspected_credentials"},
		"too long":              {"gzip", pack("gzip", noise(MaxCompressedBody)), "uninspected_credentials"},
		"identity, not encoded": {"identity", hiding, "credential_placeholder_in_request_body"},
	} {
		h := http.Header{"Content-Encoding": {c.coding}}
		for _, length := range []int64{int64(len(c.body)), -1} {
			r, err := testSet(t).Request(github(), Options{}, "/", "", h, jsonCT, length, strings.NewReader(c.body))
			if err == nil {
				_, err = io.ReadAll(r.Body)
			}
			t.Run(name, func(t *testing.T) { refusedWith(t, "", err, c.code) })
			if name == "too long" && !strings.Contains(err.Error(), "longer than") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if c.coding == "br" {
			if out, _, err := sent(testSet(t), github(), Options{AllowUninspected: true}, "/", "", h, jsonCT, c.body); err != nil || !strings.HasSuffix(out, c.body) {
				t.Errorf("%s, allowed: %v", name, err)
			}
		}
	}
	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		body := pack(coding, `{"harmless":"`+Marker+`GITHUB_TOKEN"}`)
		h := http.Header{"Content-Encoding": {coding}}
		out, r, err := sent(testSet(t), github(), Options{}, "/", "", h, jsonCT, body)
		if err != nil || !strings.HasSuffix(out, body) || !slices.Equal(r.Passed(), []string{"GITHUB_TOKEN"}) {
			t.Errorf("%s with a placeholder of the sandbox: %v", coding, err)
		}
		out, _, err = sent(testSet(t), github(), Options{BodyRewrite: true}, "/", "", h, jsonCT, body)
		refusedWith(t, out, err, "credential_injection_failed")
	}
}

// TestBypass_B66_NamesOfCodings: a Content-Encoding that leaves the bytes as they are does
// not keep a body from the search, and a body without a placeholder passes. Placeholders in
// AWS's chunks are not rewritten, because the chunks have lengths and signatures.
func TestBypass_B66_NamesOfCodings(t *testing.T) {
	t.Parallel()
	const clean, names = `{"a":"b"}`, `{"a":"` + Marker + `GITHUB_TOKEN"}`
	for _, tc := range []struct {
		coding, body string
		rewrite      bool
		want, code   string
	}{
		{"utf-8", clean, false, clean, ""},
		{"UTF-8 , none", clean, false, clean, ""},
		{"aws-chunked", "9\r\n" + clean + "\r\n0\r\n\r\n", false, "9\r\n" + clean + "\r\n0\r\n\r\n", ""},
		{"utf-8", names, false, names, ""},
		{"utf-8", names, true, `{"a":"ghp_a/b+c d\"e\\fé-0123456789"}`, ""},
		{"aws-chunked", clean, true, clean, ""},
		{"aws-chunked", names, true, "", "credential_injection_failed"},
		{"identity, aws-chunked", names, true, "", "credential_injection_failed"},
		{"made-up", clean, false, "", "uninspected_credentials"},
	} {
		h := http.Header{"Content-Encoding": {tc.coding}}
		for _, length := range []int64{int64(len(tc.body)), -1} {
			r, err := testSet(t).Request(github(), Options{BodyRewrite: tc.rewrite}, "/", "", h, jsonCT, length, strings.NewReader(tc.body))
			var out []byte
			if err == nil {
				out, err = io.ReadAll(r.Body)
			}
			if tc.code != "" {
				refusedWith(t, string(out), err, tc.code)
				continue
			}
			if err != nil || string(out) != tc.want {
				t.Errorf("%s, rewrite %v: %q, %v", tc.coding, tc.rewrite, out, err)
			}
		}
	}
}

// noise does not compress.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestBypass_B66_Trailer(t *testing.T) {
	t.Parallel()
	r, err := testSet(t).Request(github(), Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	refusedWith(t, "", r.Trailer(http.Header{"X": {Marker + "GITHUB_TOKEN"}}), "credential_injection_failed")
	if err := r.Trailer(http.Header{"Grpc-Status": {"0"}}); err != nil {
		t.Error(err)
	}
}

func TestBypass_B67_UnverifiedConnection(t *testing.T) {
	t.Parallel()
	clear := github()
	clear.TLSVerified = false
	gh := Marker + "GITHUB_TOKEN"
	for _, o := range []Options{{}, {BodyRewrite: true}} {
		for _, c := range []struct {
			query, body string
			h           http.Header
		}{
			{h: http.Header{"Authorization": {"Bearer " + gh}}},
			{query: "a=" + gh},
			{body: "a=" + gh},
			{h: http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("git:"+gh))}}},
		} {
			out, r, err := sent(testSet(t), clear, o, "/", c.query, c.h, formCT, c.body)
			if c.body != "" && !o.BodyRewrite {
				if err != nil || !strings.HasSuffix(out, c.body) || len(r.Used()) > 0 {
					t.Errorf("the placeholder in a body became %q, %v", out, err)
				}
				continue
			}
			refusedWith(t, out, err, "credential_endpoint_mismatch")
		}
	}
}

// A base URL that a repository's configuration points elsewhere gets nothing.
func TestBypass_B68_OtherBaseURL(t *testing.T) {
	t.Parallel()
	out, _, err := sent(testSet(t), to("api.anthropic.com.evil.example", 443), Options{BodyRewrite: true}, "/v1/messages", "", http.Header{"X-Api-Key": {place1}}, jsonCT, `{}`)
	refusedWith(t, out, err, "credential_endpoint_mismatch")
}
