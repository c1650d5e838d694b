// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"net/http"
	"testing"
)

func TestHeadersThatPass(t *testing.T) {
	asked := []string{
		"User-Agent", "sdk/1", "Accept", "text/event-stream", "Anthropic-Version", "2099-01-01", "Anthropic-Beta", "b1,b2",
		"Openai-Organization", "org", "X-Model-Id", "mid", "X-Stainless-Os", "Linux", "Accept-Encoding", "gzip", "X-Title", "t",
	}
	tests := []struct {
		d    Dialect
		want map[string]string // of those asked and the route's defaults; others must be absent
	}{
		{OpenAI, map[string]string{"Openai-Organization": "org", "X-Model-Id": "mid"}},
		{NVIDIA, map[string]string{"X-Model-Id": "mid"}},
		{Anthropic, map[string]string{"Anthropic-Version": "2099-01-01", "Anthropic-Beta": "b1,b2"}},
		{VertexClaude, nil},
		{Gemini, nil},
		{Bedrock, nil},
		{Ollama, nil},
	}
	for _, tt := range tests {
		b := newBackend(t, replying(200, `{}`))
		rt := b.route(t, tt.d)
		rt.Auth = Auth{}
		rt.DefaultHeaders = map[string]string{"x-title": "operator", "user-agent": "no"}
		s := serve(t, Config{Routes: []Route{rt}})
		path := map[Dialect]string{
			OpenAI: "/v1/embeddings", NVIDIA: "/v1/embeddings", Anthropic: "/v1/messages", VertexClaude: "/v1/messages",
			Gemini: "/v1/models/m:countTokens", Bedrock: "/model/m/invoke", Ollama: "/api/embed",
		}[tt.d]
		body := `{"model":"m"}`
		if status, got := s.ask(t, "POST", path, body, asked...); status != 200 {
			t.Fatalf("%s: %d %s", tt.d, status, got)
		}
		want := http.Header{
			"User-Agent": {"sdk/1"}, "Accept": {"text/event-stream"}, "Content-Type": {"application/json"},
			"Accept-Encoding": {"identity"}, "X-Title": {"operator"},
		}
		for k, v := range tt.want {
			want.Set(k, v)
		}
		got := b.last(t).header
		got.Del("Content-Length")
		for k := range got {
			if want.Get(k) != got.Get(k) {
				t.Errorf("%s: backend got %s: %q, want %q", tt.d, k, got.Get(k), want.Get(k))
			}
		}
		for k := range want {
			if got.Get(k) == "" {
				t.Errorf("%s: backend did not get %s", tt.d, k)
			}
		}
	}
}

func TestAnthropicVersionIsAddedWhereMissing(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	s := serve(t, Config{Routes: []Route{b.route(t, Anthropic)}})
	s.ask(t, "POST", "/v1/messages", `{"model":"m"}`)
	if v := b.last(t).header.Get("Anthropic-Version"); v != "2023-06-01" {
		t.Errorf("Anthropic-Version %q", v)
	}
}

func TestModelsOfAnthropic(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	v := b.route(t, VertexClaude)
	s := serve(t, Config{Routes: []Route{v, b.route(t, Anthropic)}})
	if status, _ := s.ask(t, "GET", "/v1/models?limit=5&key="+theirs, "", "Anthropic-Version", "2023-06-01"); status != 200 {
		t.Errorf("status %d", status)
	}
	if got := b.last(t).uri; got != "/v1/models?limit=5" {
		t.Errorf("backend was asked for %s", got)
	}
	if status, _ := s.ask(t, "GET", "/v1/models", ""); status != 400 {
		t.Errorf("a caller of OpenAI: %d", status)
	}
}

func TestBaseURLsQueryIsKept(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	rt := b.route(t, OpenAI)
	rt.BaseURL = b.url(t, "/openai/deployments/d?api-version=2024-10-21")
	s := serve(t, Config{Routes: []Route{rt}})
	s.ask(t, "POST", "/v1/chat/completions?api-version=evil", `{"model":"m"}`)
	if got := b.last(t).uri; got != "/openai/deployments/d/chat/completions?api-version=2024-10-21" {
		t.Errorf("backend was asked for %s", got)
	}
}

// A signer sees the request as it is sent, and the body's bytes.
func TestSignedAuth(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	rt := b.route(t, Bedrock)
	var signed string
	rt.Auth = Auth{Kind: SignedAuth, Sign: func(req *http.Request, body []byte) error {
		signed = req.URL.EscapedPath() + " " + string(body)
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 x")
		return nil
	}}
	s := serve(t, Config{Routes: []Route{rt}})
	s.ask(t, "POST", "/model/a:0/invoke", `{"x":1}`, "Authorization", theirs)
	got := b.last(t)
	if signed != "/model/a%3A0/invoke {\"x\":1}" || got.uri != "/model/a%3A0/invoke" || got.header.Get("Authorization") != "AWS4-HMAC-SHA256 x" {
		t.Errorf("signed %q, sent %q", signed, got.dump())
	}
	rt.Auth.Sign = func(*http.Request, []byte) error { return errors.New("no identity") }
	s = serve(t, Config{Routes: []Route{rt}})
	if status, _ := s.ask(t, "POST", "/model/a:0/invoke", `{}`); status != 503 || b.count() != 1 {
		t.Errorf("unsigned: %d, %d requests", status, b.count())
	}
}
