// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestVerify(t *testing.T) {
	old := func(w http.ResponseWriter, req *http.Request) { replying(200, `{}`)(w, req) }
	tests := []struct {
		name   string
		d      Dialect
		edit   func(*Route)
		answer http.HandlerFunc
		want   string // of the error
		asked  []string
	}{
		{"openai", OpenAI, nil, old, "", []string{`"max_completion_tokens":32`}},
		{"anthropic", Anthropic, nil, old, "", []string{`"max_tokens":32`}},
		{"vertex", VertexClaude, nil, old, "", []string{`"anthropic_version"`}},
		{"gemini", Gemini, nil, old, "", []string{`"maxOutputTokens":32`}},
		{"bedrock", Bedrock, nil, old, "", []string{`"maxTokens":32`}},
		{"ollama", Ollama, nil, old, "", []string{`"model":"real"`}},
		{"older openai", OpenAI, nil, replying(400, `{}`), "status 400", []string{`"max_completion_tokens":32`, `"max_tokens":32`, `"input"`}},
		{"wrong key", OpenAI, nil, replying(401, `{"error":"`+key+`"}`), "status 401", []string{"ping"}},
		{"broken", OpenAI, nil, replying(500, `{"error":"`+key+`"}`), "status 502", []string{"ping"}},
		{"slow", OpenAI, func(r *Route) { r.Timeout = 50 * time.Millisecond }, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }, "took too long", []string{"ping"}},
		{"a reserve of a model by alias", OpenAI, func(r *Route) {
			r.Model, r.Reserve, r.Aliases, r.Match.Models = "", true, map[string]string{"a": "real"}, []string{"x*"}
		}, old, "", []string{`"model":"real"`}},
		{"no model", OpenAI, func(r *Route) { r.Model, r.Match.Models = "", []string{"gpt-*"} }, old, "names no model", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t, tt.answer)
			rt := b.route(t, tt.d)
			rt.Model = "real"
			if tt.edit != nil {
				tt.edit(&rt)
			}
			err := Verify(context.Background(), Config{Do: do(t)}, rt)
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), key)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if b.count() != len(tt.asked) {
				t.Fatalf("asked %d times, want %d", b.count(), len(tt.asked))
			}
			for i, want := range tt.asked {
				mustContain(t, "the request", b.seen[i].dump(), want)
			}
		})
	}
}
