// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

const (
	token   = "ghp_a/b+c d\"e\\f\u00e9-0123456789"
	plain   = "sk-ant-api03-Zq8_0123456789-abcdef"
	old     = "sk-ant-old-Revision-Value-1"
	place1  = Marker + "ANTHROPIC_API_KEY"
	handle  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	jsonCT  = "application/json; charset=utf-8"
	formCT  = "application/x-www-form-urlencoded"
	anthHST = "api.anthropic.com"
)

// secrets are what no output may hold.
var secrets = []string{token, plain, old, "123:AAtele-gram_token", "line\nbreak-value", "../../admin-token"}

func providers() []Provider {
	return []Provider{
		{
			Name: "anthropic", ModelAPI: true, Endpoints: []Endpoint{{Host: anthHST, Ports: []uint16{443}}},
			Credentials: []Credential{
				{Key: "ANTHROPIC_API_KEY", Value: secret.New(plain), Revision: 2, Handle: handle},
				{Key: "ANTHROPIC_API_KEY", Value: secret.New(old), Revision: 1},
			},
		},
		{
			Name: "github", Endpoints: []Endpoint{{Host: "*.github.com", Ports: []uint16{443}}, {Host: "paths.example", Ports: []uint16{443, 8443}, Path: "/v1/**"}},
			Credentials: []Credential{
				{Key: "GITHUB_TOKEN", Value: secret.New(token)},
				{Key: "TELEGRAM", Value: secret.New("123:AAtele-gram_token")},
				{Key: "BROKEN_LINE", Value: secret.New("line\nbreak-value")},
				{Key: "UPWARD", Value: secret.New("../../admin-token")},
				{Key: "EMPTY", Value: secret.New("")},
				{Key: "BINARY", Value: secret.New("\x80\xff\xfe\x81binary-value")},
			},
		},
	}
}

func testSet(t testing.TB) *Set {
	t.Helper()
	s, err := New(Config{AnyPlace: true, MatchHost: func(pattern, host string) bool {
		suffix, wild := strings.CutPrefix(pattern, "*")
		return pattern == host || wild && strings.HasSuffix(host, suffix)
	}}, providers())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func to(host string, port uint16) Target { return Target{Host: host, Port: port, TLSVerified: true} }

func anthropic() Target { return to(anthHST, 443) }
func github() Target    { return to("api.github.com", 443) }

// sent is all of a request as it would leave, or the error that ends it.
func sent(s *Set, t Target, o Options, path, query string, h http.Header, ct, body string) (string, *Rewritten, error) {
	length := int64(len(body))
	r, err := s.Request(t, o, path, query, h, ct, length, strings.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(r.Body)
	var out strings.Builder
	fmt.Fprintf(&out, "%s?%s\n", r.Path, r.Query)
	_ = r.Header.Write(&out)
	out.WriteString("\n" + string(b))
	if err == nil && r.Length != int64(len(b)) {
		err = fmt.Errorf("the length is %d, %d bytes came", r.Length, len(b))
	}
	return out.String(), r, err
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, c := range map[string]struct{ header, in, want string }{
		"bearer":               {"Authorization", "Bearer " + place1, "Bearer " + plain},
		"custom":               {"X-Api-Key", place1, plain},
		"revision":             {"X-Api-Key", Marker + "v1_ANTHROPIC_API_KEY", old},
		"newest revision":      {"X-Api-Key", Marker + "v2_ANTHROPIC_API_KEY", plain},
		"handle":               {"X-Api-Key", Marker + "s" + handle + "_ANTHROPIC_API_KEY", plain},
		"alias":                {"X-Api-Key", "sk-ant-OPENSHELL-RESOLVE-ENV-ANTHROPIC_API_KEY", plain},
		"alias of a revision":  {"X-Api-Key", "OPENSHELL-RESOLVE-ENV-v1_ANTHROPIC_API_KEY", old},
		"alias with an ending": {"X-Api-Key", "a.OPENSHELL-RESOLVE-ENV-ANTHROPIC_API_KEY-z~", plain},
		"basic user":           {"Authorization", "Basic " + b64(place1+":"), "Basic " + b64(plain+":")},
		"basic password":       {"Authorization", "basic " + b64("x-access-token:"+place1), "Basic " + b64("x-access-token:"+plain)},
		"basic without pads":   {"Authorization", "Basic " + strings.TrimRight(b64("git:"+place1), "="), "Basic " + b64("git:"+plain)},
		"percent-encoded":      {"X-Other", "openshell%3aresolve%3Aenv%3AANTHROPIC_API_KEY;", plain + ";"},
		"in the middle":        {"X-Other", "a=" + place1 + ", b", "a=" + plain + ", b"},
		"two":                  {"X-Other", place1 + place1[:0] + " " + place1, plain + " " + plain},
		"none":                 {"X-Other", "Basic YTpi openshell:resolve", "Basic YTpi openshell:resolve"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{c.header: {c.in}}
			r, err := testSet(t).Request(anthropic(), Options{}, "/", "", h, "", 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get(c.header); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if h.Get(c.header) != c.in {
				t.Error("the caller's header was changed")
			}
		})
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	enc := "openshell%3Aresolve%3Aenv%3A"
	for name, c := range map[string]struct{ path, query, wantPath, wantQuery string }{
		"path":                 {"/bot" + Marker + "TELEGRAM/getMe", "", "/bot123:AAtele-gram_token/getMe", ""},
		"path, encoded":        {"/bot" + enc + "TELEGRAM/getMe", "", "/bot123:AAtele-gram_token/getMe", ""},
		"path, letters too":    {"/%6fpenshell:%72esolve:env:TELEGRA%4d/x", "", "/123:AAtele-gram_token/x", ""},
		"query":                {"/", "a=1&key=" + Marker + "GITHUB_TOKEN&b=2", "/", "a=1&key=ghp_a%2Fb%2Bc%20d%22e%5Cf%C3%A9-0123456789&b=2"},
		"query, encoded":       {"/", "key=" + enc + "GITHUB%5fTOKEN", "/", "key=ghp_a%2Fb%2Bc%20d%22e%5Cf%C3%A9-0123456789"},
		"query, alias":         {"/", "key%3Dx-OPENSHELL-RESOLVE-ENV-TELEGRAM", "/", "key%3D123%3AAAtele-gram_token"},
		"query, binary":        {"/", "key=" + Marker + "BINARY", "/", "key=%80%FF%FE%81binary-value"},
		"query, a line's end":  {"/", "key=" + Marker + "BROKEN_LINE", "/", "key=line%0Abreak-value"},
		"untouched, as it was": {"/%7e/a%20b", "x=%41%zz&&=;", "/%7e/a%20b", "x=%41%zz&&=;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := testSet(t).Request(github(), Options{}, c.path, c.query, nil, "", 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Path != c.wantPath || r.Query != c.wantQuery {
				t.Errorf("%s?%s, want %s?%s", r.Path, r.Query, c.wantPath, c.wantQuery)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	quoted, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	inJSON := strings.Trim(string(quoted), `"`)
	for name, c := range map[string]struct{ ct, in, want string }{
		"json":                   {jsonCT, `{"a":"` + Marker + `GITHUB_TOKEN","a":1}`, `{"a":"` + inJSON + `","a":1}`},
		"json, \\u":              {jsonCT, `["\u006Fpenshell\u003aresolve:env:GITHUB\u005fTOKEN"]`, `["` + inJSON + `"]`},
		"json, escape before":    {jsonCT, `"x\nxoxb-OPENSHELL-RESOLVE-ENV-TELEGRAM"`, `"x\n123:AAtele-gram_token"`},
		"json, backslash":        {jsonCT, `"x\\nxoxb-OPENSHELL-RESOLVE-ENV-TELEGRAM"`, `"x\\123:AAtele-gram_token"`},
		"json, \\u before":       {jsonCT, `"\u003dOPENSHELL-RESOLVE-ENV-TELEGRAM"`, `"\u003d123:AAtele-gram_token"`},
		"json, a URL within":     {jsonCT, `"https://x/?k=openshell%3Aresolve%3Aenv%3ATELEGRAM&z"`, `"https://x/?k=123%3AAAtele-gram_token&z"`},
		"json, escape behind":    {jsonCT, `"` + Marker + `TELEGRAM\u002e"`, `"123:AAtele-gram_token\u002e"`},
		"json with a line's end": {"application/x+json", `"` + Marker + `BROKEN_LINE"`, `"line\u000abreak-value"`},
		"form":                   {formCT, "a=" + Marker + "GITHUB_TOKEN&b", "a=ghp_a%2Fb%2Bc%20d%22e%5Cf%C3%A9-0123456789&b"},
		"form, encoded":          {formCT, "a=openshell%3Aresolve%3Aenv%3ATELEGRAM", "a=123%3AAAtele-gram_token"},
		"text":                   {"text/plain", "t " + Marker + "GITHUB_TOKEN.", "t " + token + "."},
		"text, \\u":              {"text/plain", `t openshell\u003Aresolve:env:GITHUB_TOKEN`, "t " + inJSON},
		"none":                   {jsonCT, `{"a":"openshell:resolve:env","b":"\u00e9%"}`, `{"a":"openshell:resolve:env","b":"\u00e9%"}`},
		"binary without any":     {"application/octet-stream", "\x00\xffopenshell:", "\x00\xffopenshell:"},
		"empty":                  {jsonCT, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _, err := sent(testSet(t), github(), Options{BodyRewrite: true}, "/", "", nil, c.ct, c.in)
			_, got, _ = strings.Cut(got, "\n\n")
			if _, body, ok := strings.Cut(got, "\r\n\n"); ok {
				got = body
			}
			if err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			for _, split := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
				r, err := testSet(t).Request(github(), Options{BodyRewrite: true}, "/", "", nil, c.ct, -1, split(strings.NewReader(c.in)))
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != c.want {
					t.Errorf("as a stream: %q, %v; want %q", b, err, c.want)
				}
			}
		})
	}
}

// Whether an alias token begins with an escape's last letter is told by backslashes
// that a stream may have passed on long before.
func TestStreamedBackslashes(t *testing.T) {
	t.Parallel()
	for run := range 3 * lookbehind {
		body := `"` + strings.Repeat("\\", run) + "n" + strings.Repeat("a", run%(maxAliasPrefix-1)) + AliasMarker + `TELEGRAM"`
		want := `"` + strings.Repeat("\\", run) + `123:AAtele-gram_token"`
		if run%2 == 1 {
			want = `"` + strings.Repeat("\\", run) + `n123:AAtele-gram_token"`
		}
		for name, length := range map[string]int64{"whole": int64(len(body)), "stream": -1} {
			r, err := testSet(t).Request(github(), Options{BodyRewrite: true}, "/", "", nil, jsonCT, length, iotest.OneByteReader(strings.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != want {
				t.Fatalf("%s, %d backslashes: %q, %v", name, run, b, err)
			}
		}
	}
}

// Errors are refusals with OpenShell's codes, and hold no value.
func TestRefusals(t *testing.T) {
	t.Parallel()
	header := func(v string) http.Header { return http.Header{"X-Other": {v}} }
	b64 := base64.StdEncoding.EncodeToString
	long := strings.Repeat("K", MaxKey+1)
	for name, c := range map[string]struct {
		t           Target
		o           Options
		path, query string
		h           http.Header
		ct, body    string
		code        string
	}{
		"unknown key":             {h: header(Marker + "NOBODY"), code: "credential_injection_failed"},
		"unknown revision":        {h: header(Marker + "v7_GITHUB_TOKEN"), code: "credential_injection_failed"},
		"unknown handle":          {h: header(Marker + "s" + handle + "_GITHUB_TOKEN"), code: "credential_injection_failed"},
		"empty value":             {h: header(Marker + "EMPTY"), code: "credential_injection_failed"},
		"line's end in a header":  {h: header(Marker + "BROKEN_LINE"), code: "credential_injection_failed"},
		"line's end in a path":    {path: "/" + Marker + "BROKEN_LINE", code: "credential_injection_failed"},
		"value that climbs":       {path: "/a/" + Marker + "UPWARD", code: "credential_injection_failed"},
		"binary value in JSON":    {o: Options{BodyRewrite: true}, ct: jsonCT, body: `"` + Marker + `BINARY"`, code: "credential_injection_failed"},
		"no key":                  {h: header(Marker + "-"), code: "invalid_credential_placeholder"},
		"no key at the end":       {h: header("x " + Marker), code: "invalid_credential_placeholder"},
		"key too long":            {h: header(Marker + long), code: "invalid_credential_placeholder"},
		"escaped twice":           {query: "k=openshell%253Aresolve%253Aenv%253AGITHUB_TOKEN", code: "invalid_credential_placeholder"},
		"escaped three times":     {query: "k=openshell%25253Aresolve:env:GITHUB_TOKEN", code: "invalid_credential_placeholder"},
		"json in json":            {o: Options{BodyRewrite: true}, ct: jsonCT, body: `"{\"a\":\"openshell\\u003aresolve:env:GITHUB_TOKEN\"}"`, code: "invalid_credential_placeholder"},
		"base64 outside of Basic": {h: header(b64([]byte("a" + Marker + "GITHUB_TOKEN"))), code: "invalid_credential_placeholder"},
		"base64 in a cookie":      {h: http.Header{"Cookie": {"a=1; s=" + b64([]byte(`{"token":"`+Marker+`GITHUB_TOKEN"}`))}}, code: "invalid_credential_placeholder"},
		"alias too long":          {h: header(strings.Repeat("a", maxAliasPrefix+1) + AliasMarker + "TELEGRAM"), code: "invalid_credential_placeholder"},
		"body, not opted in":      {ct: jsonCT, body: `{"a":"` + Marker + `NOBODY"}`, code: "credential_placeholder_in_request_body"},
		"multipart":               {o: Options{BodyRewrite: true}, ct: "multipart/form-data; boundary=x", body: "--x\r\n\r\n" + Marker + "GITHUB_TOKEN\r\n--x--", code: "credential_injection_failed"},
		"body too long":           {o: Options{BodyRewrite: true}, ct: jsonCT, body: strings.Repeat(" ", MaxRewriteBody) + `"` + Marker + `GITHUB_TOKEN"`, code: "credential_injection_failed"},
		"another's credential":    {h: header(place1), code: "credential_endpoint_mismatch"},
		"another's binding":       {t: Target{Host: "api.github.com", Port: 443, TLSVerified: true, Provider: "anthropic"}, h: header(Marker + "GITHUB_TOKEN"), code: "credential_endpoint_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.t.Host == "" {
				c.t = github()
			}
			if c.path == "" {
				c.path = "/"
			}
			out, _, err := sent(testSet(t), c.t, c.o, c.path, c.query, c.h, c.ct, c.body)
			refusedWith(t, out, err, c.code)
		})
	}
}

// refusedWith checks the error and that nothing of a value is in it or left.
func refusedWith(t *testing.T, out string, err error, code string) {
	t.Helper()
	var r Refusal
	if !errors.As(err, &r) || r.Code() != code || r.Status() < 400 {
		t.Errorf("%v, want %s", err, code)
	}
	for _, s := range secrets {
		if strings.Contains(out, s) || strings.Contains(fmt.Sprintf("%v %+v %#v %q", err, err, err, err), s) {
			t.Errorf("a value left: %q, %v", out, err)
		}
	}
	if scan([]byte(out)) {
		t.Errorf("a placeholder left: %q", out)
	}
}

func TestBodyRewriteKeepsToText(t *testing.T) {
	t.Parallel()
	for ct, want := range map[string]*place{
		"application/json": inJSON, "application/vnd.api+json": inJSON, formCT: inForm, "text/csv": inText, "application/x-ndjson": inJSON,
		"": nil, "application/octet-stream": nil, "multipart/form-data; boundary=x": nil, "application/json; charset=utf-16": nil, "bad;;": nil,
	} {
		if got := bodyPlace(ct); got != want {
			t.Errorf("%q: %v", ct, got)
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	at := []Endpoint{{Host: "a", Ports: []uint16{1}}}
	key := func(c ...Credential) []Provider { return []Provider{{Name: "p", Endpoints: at, Credentials: c}} }
	for name, c := range map[string]struct {
		ps   []Provider
		want string
	}{
		"two of a name":       {[]Provider{{Name: "p"}, {Name: "p"}}, `provider "p": there are two`},
		"no host":             {[]Provider{{Name: "p", Endpoints: []Endpoint{{}}}}, "endpoint 1 has no host"},
		"relative path":       {[]Provider{{Name: "p", Endpoints: []Endpoint{{Host: "a", Path: "v1"}}}}, "write /prefix"},
		"pattern in the path": {[]Provider{{Name: "p", Endpoints: []Endpoint{{Host: "a", Path: "/*/x"}}}}, "only a closing /**"},
		"pattern, no slash":   {[]Provider{{Name: "p", Endpoints: []Endpoint{{Host: "a", Path: "/v1**"}}}}, "write /prefix"},
		"no key":              {key(Credential{}), "use 1 to 128 letters"},
		"bad key":             {key(Credential{Key: "A-B"}), "use 1 to 128 letters"},
		"wide key":            {key(Credential{Key: "Aı"}), "use 1 to 128 letters"},
		"reserved revision":   {key(Credential{Key: "v1_A"}), "reserved"},
		"reserved handle":     {key(Credential{Key: "s" + handle + "_A"}), "reserved"},
		"huge":                {key(Credential{Key: "A", Value: secret.New(strings.Repeat(plain, 1000))}), "longer than 16384 bytes"},
		"negative":            {key(Credential{Key: "A", Revision: -1}), "negative"},
		"handle":              {key(Credential{Key: "A", Handle: "xyz"}), "64 lower-case"},
		"twice":               {key(Credential{Key: "A"}, Credential{Key: "A"}), "two of revision 0"},
	} {
		_, err := New(Config{AnyPlace: true}, c.ps)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
		if strings.Contains(fmt.Sprint(err), plain) {
			t.Errorf("%s: the value is in the error", name)
		}
	}
}

func TestNeeded(t *testing.T) {
	t.Parallel()
	s := testSet(t)
	for _, c := range []struct {
		host string
		port uint16
		want bool
	}{{anthHST, 443, true}, {anthHST, 8443, false}, {"api.github.com", 443, true}, {"github.com.evil.example", 443, false}, {"paths.example", 8443, true}} {
		if got := s.Needed(to(c.host, c.port)); got != c.want {
			t.Errorf("%s:%d: %v", c.host, c.port, got)
		}
	}
	if new(Set).Needed(anthropic()) {
		t.Error("the zero Set needs nothing")
	}
}

// Several providers may have a key of one name, as long as one value is meant.
func TestAmbiguousKey(t *testing.T) {
	t.Parallel()
	one := func(name, value string) Provider {
		return Provider{Name: name, Endpoints: []Endpoint{{Host: "h", Ports: []uint16{443}}}, Credentials: []Credential{{Key: "GH_TOKEN", Value: secret.New(value)}}}
	}
	h := http.Header{"Authorization": {"token " + Marker + "GH_TOKEN"}}
	for name, c := range map[string]struct {
		ps   []Provider
		only string
		want string
	}{
		"same":      {[]Provider{one("a", "value-one"), one("b", "value-one")}, "", "token value-one"},
		"different": {[]Provider{one("a", "value-one"), one("b", "value-two")}, "", ""},
		"bound":     {[]Provider{one("a", "value-one"), one("b", "value-two")}, "b", "token value-two"},
	} {
		s, err := New(Config{AnyPlace: true}, c.ps)
		if err != nil {
			t.Fatal(err)
		}
		target := to("h", 443)
		target.Provider = c.only
		r, err := s.Request(target, Options{}, "/", "", h, "", 0, nil)
		if (err != nil) != (c.want == "") || err == nil && r.Header.Get("Authorization") != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsed(t *testing.T) {
	t.Parallel()
	_, r, err := sent(testSet(t), github(), Options{BodyRewrite: true}, "/"+Marker+"TELEGRAM", "a="+Marker+"v0_GITHUB_TOKEN", nil, formCT, "b="+Marker+"GITHUB_TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"GITHUB_TOKEN", "TELEGRAM"}, r.Used()); diff != "" {
		t.Error(diff)
	}
}

func TestSecretShowsNowhere(t *testing.T) {
	t.Parallel()
	type holder struct {
		Open   secret.Secret
		hidden secret.Secret
		nested *Credential
	}
	c := Credential{Key: "K", Value: secret.New(plain)}
	s := testSet(t)
	echo := Marker + "ANTHROPIC_API_KEY "
	request := func(length int64) *Rewritten {
		r, err := s.Request(anthropic(), Options{BodyRewrite: true}, "/", "", http.Header{"X-Api-Key": {place1}}, "text/plain", length, strings.NewReader(strings.Repeat(echo, 2)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	whole, stream := request(int64(2*len(echo))), request(-1)
	response := answerBody(t, whole, "text/plain", "", strings.NewReader(plain))
	for _, r := range []io.Reader{stream.Body, response} {
		if _, err := r.Read(make([]byte, 1)); err != nil { // the rest is buffered
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	for _, v := range []any{c.Value, &c.Value, c, &c, holder{c.Value, c.Value, &c}, &holder{c.Value, c.Value, &c}, []secret.Secret{c.Value}, map[string]secret.Secret{"a": c.Value}, providers(), s, *whole, whole, stream, whole.Body, stream.Body, response, whole.scrub, whole.r} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		_ = json.NewEncoder(&out).Encode(v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
	}
	for _, form := range []string{plain, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), strings.Trim(fmt.Sprint([]byte(plain)), "[]"), base64.StdEncoding.EncodeToString([]byte(plain))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q was printed", form)
		}
	}
	if !strings.Contains(out.String(), secret.Placeholder) {
		t.Error("nothing was printed")
	}
	// The scrubber keeps the values as text, which it does not show.
	secrettest.Check(t, c, []string{plain})
	secrettest.Check(t, providers(), []string{plain})
	secrettest.Check(t, s, []string{plain}, scrubber{})
	secrettest.Check(t, AWSKeys{ID: "id", Secret: secret.New(plain), Session: secret.New("the-session")}, []string{plain, "the-session"})
	if c.Value.Reveal() != plain || (secret.Secret{}).Reveal() != "" {
		t.Error("Reveal")
	}
}

// TestBypass_B82_PastValues: the last MaxPast values that the sandbox had are masked until
// they have expired.
func TestBypass_B82_PastValues(t *testing.T) {
	t.Parallel()
	at := func(before *Set, expires time.Time, values ...string) *Set {
		p := Provider{Name: "p"}
		for i, v := range values {
			p.Credentials = append(p.Credentials, Credential{Key: fmt.Sprint("K", i), Value: secret.New(v), Expires: expires})
		}
		s, err := New(Config{AnyPlace: true, Before: before}, []Provider{p})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	masks := func(s *Set, value string) bool {
		r, err := s.Request(to("h", 443), Options{}, "/", "", nil, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(r.ResponseText([]byte(value))) != value
	}
	s := at(nil, time.Time{}, "value-of-revision-1")
	s = at(s, time.Now().Add(-2*pastGrace), "expired-value")
	s = at(s, time.Now().Add(-pastGrace/2), "late-expired-value")
	for range 2 { // nothing changes, also when nothing is there any more
		s = at(s, time.Time{}, "")
		for value, want := range map[string]bool{"value-of-revision-1": true, "expired-value": false, "late-expired-value": true} {
			if masks(s, value) != want {
				t.Errorf("%s: masked %v", value, !want)
			}
		}
	}
	for i := range 2 * MaxPast {
		s = at(s, time.Time{}, fmt.Sprintf("many-values-%d", i))
	}
	if len(s.past) != MaxPast || !masks(s, fmt.Sprintf("many-values-%d", 2*MaxPast-2)) || masks(s, "value-of-revision-1") {
		t.Errorf("%d are remembered", len(s.past))
	}
}
