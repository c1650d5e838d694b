// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"openshell.dev/runtime/internal/secret"
)

// upgraded is the request that began a WebSocket at t.
func upgraded(tb testing.TB, s *Set, t Target) *Rewritten {
	tb.Helper()
	r, err := s.Request(t, Options{}, "/ws", "", nil, "", 0, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		t        Target
		o        Options
		in, want string
		code     string
	}{
		"json":      {github(), Options{MessageRewrite: true}, `{"op":2,"token":"openshell\u003aresolve:env:TELEGRAM"}`, `{"op":2,"token":"123:AAtele-gram_token"}`, ""},
		"text":      {github(), Options{MessageRewrite: true}, "auth " + Marker + "TELEGRAM", "auth 123:AAtele-gram_token", ""},
		"none":      {github(), Options{}, "hello", "hello", ""},
		"off":       {github(), Options{}, "auth " + Marker + "TELEGRAM", "", "credential_injection_failed"},
		"unsearch":  {github(), Options{AllowUninspected: true}, "auth " + Marker + "TELEGRAM", "auth " + Marker + "TELEGRAM", ""},
		"both":      {github(), Options{AllowUninspected: true, MessageRewrite: true}, "auth " + Marker + "TELEGRAM", "auth 123:AAtele-gram_token", ""},
		"elsewhere": {to("evil.example", 443), Options{MessageRewrite: true}, "auth " + Marker + "TELEGRAM", "", "credential_endpoint_mismatch"},
		"binary":    {github(), Options{MessageRewrite: true}, "auth " + Marker + "BINARY", "", "credential_injection_failed"},
	} {
		got, err := upgraded(t, testSet(t), c.t).Text(c.o, []byte(c.in))
		if c.code != "" {
			refusedWith(t, string(got), err, c.code)
		} else if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	r := upgraded(t, testSet(t), github())
	const clean = "\x00\xffopenshell:resolve"
	if b, err := io.ReadAll(r.Search(Options{}, strings.NewReader(clean))); err != nil || string(b) != clean {
		t.Errorf("%q, %v", b, err)
	}
	held := "\x00" + Marker + "TELEGRAM"
	b, err := io.ReadAll(r.Search(Options{MessageRewrite: true}, iotest.OneByteReader(strings.NewReader(held))))
	refusedWith(t, string(b), err, "credential_injection_failed")
	if b, err := io.ReadAll(r.Search(Options{AllowUninspected: true}, strings.NewReader(held))); err != nil || string(b) != held {
		t.Errorf("%q, %v", b, err)
	}
}

func TestScrubMessages(t *testing.T) {
	t.Parallel()
	r := upgraded(t, testSet(t), anthropic())
	b := []byte("key " + plain[:10])
	safe := r.Scrub(b, false)
	if safe != 4 {
		t.Fatalf("%d of %q are done", safe, b)
	}
	b = append(b[safe:], plain[10:]+"."...)
	if safe = r.Scrub(b, true); safe != len(b) || strings.Contains(string(b), plain) {
		t.Errorf("%d of %q", safe, b)
	}
	elsewhere := upgraded(t, testSet(t), to("evil.example", 443))
	b = []byte(plain)
	if safe := elsewhere.Scrub(b, false); safe != len(b) || strings.Contains(string(b), plain) {
		t.Errorf("elsewhere: %d of %q", safe, b)
	}
	open, err := testSet(t).Request(anthropic(), Options{AllowUnsearched: true}, "/", "", nil, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(plain)
	if safe := open.Scrub(b, false); safe != len(b) || string(b) != plain {
		t.Errorf("allow_unsearched_answers: %d of %q", safe, b)
	}
}

// TestBypass_B64_BoundByPolicy: a provider without endpoints is bound where the
// policy names it and nowhere else.
func TestBypass_B64_BoundByPolicy(t *testing.T) {
	t.Parallel()
	const value = "value-of-the-policy"
	s, err := New(Config{AnyPlace: true}, []Provider{
		{Name: "free", Credentials: []Credential{{Key: "FREE", Value: secret.New(value)}}},
		{Name: "other", Endpoints: []Endpoint{{Host: "h", Ports: []uint16{443}}}, Credentials: []Credential{{Key: "OTHER", Value: secret.New("other-value")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		provider, key, want string
		tls                 bool
	}{
		"named":              {"free", "FREE", value, true},
		"nobody named":       {"", "FREE", "", true},
		"another named":      {"other", "FREE", "", true},
		"nobody of the name": {"none", "FREE", "", true},
		"without TLS":        {"free", "FREE", "", false},
		"the others go":      {"free", "OTHER", "", true},
	} {
		target := Target{Host: "h", Port: 443, Provider: c.provider, TLSVerified: c.tls}
		r, err := s.Request(target, Options{}, "/", "", http.Header{"X-Key": {Marker + c.key}}, "", 0, nil)
		if c.want == "" {
			refusedWith(t, "", err, "credential_endpoint_mismatch")
			continue
		}
		if err != nil || r.Header.Get("X-Key") != c.want || !s.Needed(target) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Needed(to("elsewhere", 443)) {
		t.Error("needed where nobody is bound, or a provider is not known")
	}
}
