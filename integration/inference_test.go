// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"openshell.dev/runtime/internal/decisionlog"
)

const routerProfile = `id: testapi
inference_capable: true
credentials: [{name: api_key, env_vars: [TEST_API_KEY], auth_style: bearer, header_name: authorization}]
endpoints: [{host: api.test, port: 443}]
`

// model is a backend that speaks OpenAI's chat API and keeps what it was asked.
type model struct{ asked atomic.Pointer[string] }

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Model  string
		Stream bool
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	text := fmt.Sprintf("%s %s authorization=%s key=%s model=%s", r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), body.Model)
	m.asked.Store(&text)
	if !body.Stream {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"1","object":"chat.completion","model":"real","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, chunk := range []string{`{"choices":[{"index":0,"delta":{"content":"hel"}}]}`, `{"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}`, "[DONE]"} {
		fmt.Fprintf(w, "data: %s\n\n", chunk)
		_ = http.NewResponseController(w).Flush()
	}
}

// TestBypass_B63_B68_B69_Router: a sandbox without any network rule calls a model
// at inference.local: the backend gets the operator's key and model, never the
// caller's, and nothing but the model's API is there.
func TestBypass_B63_B68_B69_Router(t *testing.T) {
	t.Parallel()
	m := &model{}
	up := startUpstream(t)
	up.Handler = m
	b := boxOf(t, boxOptions{policy: testPolicy, up: up})
	routes := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\", provider: work, model: real-model}]\n")
	b.attach(t, routerProfile, "inference_file: "+routes+"\n")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	const chat = `{"model":"whatever","messages":[{"role":"user","content":"hi"}]}`
	for _, tc := range []struct {
		name  string
		argv  []string
		want  string
		asked string
	}{
		{"chat", []string{"keyed", "POST", "https://inference.local/v1/chat/completions", "Authorization:Bearer sk-callers-own", chat}, `200 {"id":"1"`, "POST /v1/chat/completions authorization=Bearer " + realKey + " key= model=real-model"},
		{"streamed", []string{"keyed", "POST", "https://inference.local/v1/chat/completions", "X-Api-Key:sk-callers-own", strings.Replace(chat, `{`, `{"stream":true,`, 1)}, "data: [DONE]", "authorization=Bearer " + realKey + " key= model=real-model"},
		{"without TLS", []string{"keyed", "POST", "http://inference.local/v1/chat/completions", "A:b", chat}, `200 {"id":"1"`, "model=real-model"},
		{"without TLS, through the proxy", []string{"proxied", "POST", "http://inference.local/v1/chat/completions", chat}, `200 {"id":"1"`, "model=real-model"},
		{"by CONNECT", []string{"proxied", "POST", "https://inference.local/v1/chat/completions", chat}, `200 {"id":"1"`, "model=real-model"},
		{"another path through the proxy", []string{"proxied", "POST", "http://inference.local/v1/files", chat}, `403 {"error":"connection not allowed by policy"}`, ""},
		{"another path", []string{"keyed", "POST", "https://inference.local/v1/files", "A:b", chat}, `403 {"error":"connection not allowed by policy"}`, ""},
		{"a way around", []string{"keyed", "POST", "https://inference.local/v1/chat/../files", "A:b", chat}, "403 ", ""},
		{"another port", []string{"http", "GET", "https://inference.local:22/v1/models"}, "error: ", ""},
		{"the backend itself", []string{"http", "POST", "https://api.test/v1/chat/completions", chat}, "error: ", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			m.asked.Store(nil)
			out := b.exec(append([]string{"/bin/probe"}, tc.argv...)...)
			if !strings.Contains(out, tc.want) {
				t.Errorf("printed %q, want …%q…", out, tc.want)
			}
			got := ""
			if p := m.asked.Load(); p != nil {
				got = *p
			}
			if tc.asked == "" && got != "" || !strings.Contains(got, tc.asked) {
				t.Errorf("the backend was asked %q, want %q", got, tc.asked)
			}
			if strings.Contains(out, realKey) {
				t.Errorf("the key came back: %q", out)
			}
		})
	}
	if out := b.exec("/bin/probe", "environments"); !strings.Contains(out, "OPENAI_BASE_URL=https://inference.local/v1") || strings.Contains(out, realKey) {
		t.Errorf("the environments inside: %s", out)
	}
	b.record("a call with its tokens", func(r decisionlog.Record) bool {
		return r.Layer == "inference" && r.Verdict == "allow" && r.TokensIn == 3 && r.TokensOut == 5 && r.Model == "real-model"
	})
}
