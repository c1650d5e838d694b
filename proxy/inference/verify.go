// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"openshell.dev/runtime/policy"
)

// probes are the smallest requests that show a route to work, one after the other
// as long as the backend does not know the last.
var probes = map[Dialect][]struct{ path, body string }{
	OpenAI: {
		{"/v1/chat/completions", `{"max_completion_tokens":32,"messages":[{"role":"user","content":"ping"}]}`},
		{"/v1/chat/completions", `{"max_tokens":32,"messages":[{"role":"user","content":"ping"}]}`},
		{"/v1/embeddings", `{"input":"ping"}`},
	},
	Anthropic: {{"/v1/messages", `{"max_tokens":32,"messages":[{"role":"user","content":"ping"}]}`}},
	Gemini:    {{"/v1beta/models/model:generateContent", `{"contents":[{"role":"user","parts":[{"text":"ping"}]}],"generationConfig":{"maxOutputTokens":32}}`}},
	Bedrock:   {{"/model/model/converse", `{"messages":[{"role":"user","content":[{"text":"ping"}]}],"inferenceConfig":{"maxTokens":32}}`}},
	Ollama:    {{"/api/chat", `{"stream":false,"messages":[{"role":"user","content":"ping"}],"options":{"num_predict":32}}`}},
}

// Verify asks a route's backend for a few tokens, as a sandbox's request would be
// asked. Its error says what the backend answered, without the credential.
func Verify(ctx context.Context, c Config, rt Route) error {
	if rt.Model == "" {
		if rt.Model = rt.someModel(); rt.Model == "" {
			return fmt.Errorf("verify route %q: it names no model to ask for", rt.Name)
		}
	}
	rt.Match, rt.Aliases, rt.Fallbacks, rt.Reserve = Match{}, nil, nil, false
	r, err := New(Config{Routes: []Route{rt}, Do: c.Do, Scrub: c.Scrub, Now: c.Now})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range probes[r.routes[0].caller] {
		status, u := r.probe(ctx, p.path, p.body)
		if status == http.StatusOK {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: status %d: %s", p.path, status, u.Error))
		if status != http.StatusBadRequest && status != http.StatusNotFound {
			break
		}
	}
	return fmt.Errorf("verify route %q: %w", rt.Name, errors.Join(errs...))
}

// someModel is a model that a route without one of its own can be asked for.
func (r *Route) someModel() string {
	names := slices.Sorted(slices.Values(values(r.Aliases)))
	for _, m := range append(names, r.Match.Models...) {
		if !strings.ContainsAny(m, "*?") {
			return m
		}
	}
	return ""
}

// probe sends one request through the router.
func (r *Router) probe(ctx context.Context, path, body string) (int, Usage) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+policy.RouterHost+path, strings.NewReader(body))
	if err != nil {
		return 0, Usage{Error: err.Error()}
	}
	req.RequestURI = path
	req.Header.Set("Content-Type", "application/json")
	var u Usage
	r.record = func(got Usage) { u = got }
	w := &statusOnly{header: make(http.Header)}
	r.ServeHTTP(w, req)
	if u.Status == statusGone {
		return u.Status, Usage{Error: context.Cause(ctx).Error()}
	}
	return w.status, u
}

// statusOnly is an answer of which the status is kept.
type statusOnly struct {
	header http.Header
	status int
}

func (k *statusOnly) Header() http.Header         { return k.header }
func (k *statusOnly) WriteHeader(status int)      { k.status = status }
func (k *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
