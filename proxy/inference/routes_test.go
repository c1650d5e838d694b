// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

func TestNewRefuses(t *testing.T) {
	u := func(s string) *url.URL {
		v, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	good := Route{Name: "a", Dialect: OpenAI, BaseURL: u("https://api.example/v1"), Auth: Auth{Kind: BearerAuth, Value: secret.New(key)}}
	tests := []struct {
		name string
		edit func(r *Route)
		want string
	}{
		{"no dialect", func(r *Route) { r.Dialect = "" }, `unknown dialect ""`},
		{"no base", func(r *Route) { r.BaseURL = nil }, "no base URL"},
		{"scheme", func(r *Route) { r.BaseURL = u("ftp://x/") }, `scheme "ftp"`},
		{"user", func(r *Route) { r.BaseURL = u("https://u:p@x/") }, "with a user"},
		{"itself", func(r *Route) { r.BaseURL = u("https://Inference.local/v1") }, "the router itself"},
		{"dots", func(r *Route) { r.BaseURL = u("https://x/a/../b") }, "not canonical"},
		{"plain with a key", func(r *Route) { r.BaseURL = u("http://x/") }, "needs https"},
		{"key without a kind", func(r *Route) { r.Auth.Kind = NoAuth }, "without a kind"},
		{"unknown kind", func(r *Route) { r.Auth.Kind = 99 }, "unknown kind"},
		{"no signer", func(r *Route) { r.Auth = Auth{Kind: SignedAuth} }, "without a signer"},
		{"key in a framing header", func(r *Route) { r.Auth.Kind, r.Auth.Name = HeaderAuth, "host" }, "not one that can carry"},
		{"bad header", func(r *Route) { r.Auth.Kind, r.Auth.Name = HeaderAuth, "a b" }, "not one that can carry"},
		{"no query name", func(r *Route) { r.Auth.Kind = QueryAuth }, "without a name"},
		{"default header with a key", func(r *Route) { r.DefaultHeaders = map[string]string{"authorization": "x"} }, "default header"},
		{"default header's value", func(r *Route) { r.DefaultHeaders = map[string]string{"x": "a\nb"} }, "default header"},
		{"model", func(r *Route) { r.Model = "a b" }, "not a model's name"},
		{"alias", func(r *Route) { r.Aliases = map[string]string{"a": "b\n"} }, "not a model's name"},
		{"empty pattern", func(r *Route) { r.Match.Models = []string{""} }, "empty or too long"},
		{"path of another API", func(r *Route) { r.Match.Paths = []string{"/v1/messages"} }, "not one of the openai API's"},
		{"weight", func(r *Route) { r.Weight = -1 }, "negative"},
		{"timeout", func(r *Route) { r.Timeout = -1 }, "negative"},
		{"unknown fallback", func(r *Route) { r.Fallbacks = []string{"z"} }, "not a route"},
		{"itself as fallback", func(r *Route) { r.Fallbacks = []string{"a"} }, "falls back to itself"},
		{"no name", func(r *Route) { r.Name = "" }, "name of its own"},
	}
	for _, tt := range tests {
		r := good
		tt.edit(&r)
		_, err := New(Config{Routes: []Route{r}, Do: do(t)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	other := Route{Name: "b", Dialect: Ollama, BaseURL: u("http://localhost:11434"), Fallbacks: []string{"a"}}
	for name, c := range map[string]Config{
		"two of a name":           {Routes: []Route{good, good}, Do: do(t)},
		"fallback of another API": {Routes: []Route{good, other}, Do: do(t)},
		"no way out":              {Routes: []Route{good}},
		"negative budget":         {Routes: []Route{good}, Do: do(t), Budget: Budget{TotalTokens: -1}},
		"too many":                {Routes: make([]Route, MaxRoutes+1), Do: do(t)},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(Config{Routes: []Route{good}, Do: do(t)}); err != nil {
		t.Errorf("the good route: %v", err)
	}
}

func TestChoice(t *testing.T) {
	base, _ := url.Parse("https://x")
	route := func(name string, edit func(*Route)) Route {
		r := Route{Name: name, Dialect: OpenAI, BaseURL: base}
		edit(&r)
		return r
	}
	r, err := New(Config{Do: do(t), Routes: []Route{
		route("default", func(r *Route) { r.Match.Paths = []string{"/v1/chat/completions", "/v1/responses"} }),
		route("gpt", func(r *Route) { r.Match.Models = []string{"gpt-*", "o?"}; r.Model = "real-gpt" }),
		route("named", func(r *Route) {
			r.Match.Models = []string{"x"}
			r.Aliases = map[string]string{"gpt-mini": "llama.cpp:8b"}
			r.Model = "big"
		}),
		route("embed", func(r *Route) { r.Match.Paths = []string{"/v1/embeddings"} }),
		route("claude", func(r *Route) { r.Dialect = Anthropic; r.Match.Models = []string{"claude*"} }),
		route("reserve", func(r *Route) { r.Match.Models = []string{"*"}; r.Reserve = true }),
		route("falls", func(r *Route) {
			r.Match.Models = []string{"f"}
			r.Weight = 1000
			r.Fallbacks = []string{"reserve", "gpt"}
		}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ method, path, model, want, used string }{
		{"POST", "/v1/chat/completions", "other", "default", "other"},
		{"POST", "/v1/chat/completions", "", "default", ""},
		{"POST", "/v1/chat/completions", "gpt-4", "gpt", "real-gpt"},
		{"POST", "/v1/chat/completions", "xgpt-4", "default", "xgpt-4"},
		{"POST", "/v1/chat/completions", "o3", "gpt", "real-gpt"},
		{"POST", "/v1/chat/completions", "o33", "default", "o33"},
		{"POST", "/v1/chat/completions", "gpt-mini", "named", "llama.cpp:8b"},
		{"POST", "/v1/chat/completions", "x", "named", "big"},
		{"POST", "/v1/embeddings", "e", "embed", "e"},
		{"POST", "/v1/completions", "e", "", ""},
		{"POST", "/v1/messages", "claude-4", "claude", "claude-4"},
		{"POST", "/v1/messages", "other", "", ""},
		{"POST", "/api/chat", "gpt-4", "", ""},
		{"POST", "/v1/chat/completions", "f", "falls reserve gpt", "f"},
	}
	for _, tt := range tests {
		e, _, ok := match(tt.method, tt.path)
		if !ok {
			t.Fatal(tt.path)
		}
		var got []string
		chosen := r.choose(&call{endpoint: e, dialect: e.dialect, path: tt.path}, tt.model)
		for _, rt := range chosen {
			got = append(got, rt.Name)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s %q: %v, want %s", tt.path, tt.model, got, tt.want)
		} else if len(chosen) > 0 && chosen[0].modelFor(tt.model) != tt.used {
			t.Errorf("%s %q: model %q, want %q", tt.path, tt.model, chosen[0].modelFor(tt.model), tt.used)
		}
	}
}

func TestWeightsAreFair(t *testing.T) {
	base, _ := url.Parse("https://x")
	r, err := New(Config{Do: do(t), Routes: []Route{
		{Name: "a", Dialect: OpenAI, BaseURL: base, Weight: 3},
		{Name: "b", Dialect: OpenAI, BaseURL: base},
		{Name: "c", Dialect: OpenAI, BaseURL: base, Weight: 2},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e, _, _ := match("POST", "/v1/chat/completions")
	c := &call{endpoint: e, dialect: OpenAI, path: e.pattern}
	got := map[string]int{}
	for range 600 {
		got[r.choose(c, "m")[0].Name]++
	}
	if fmt.Sprint(got) != "map[a:300 b:100 c:200]" {
		t.Errorf("shares %v", got)
	}
}

func TestFallback(t *testing.T) {
	ok := newBackend(t, replying(200, `{"ok":1}`))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nothing listens there now
	dead, _ := url.Parse("https://" + l.Addr().String())
	tests := []struct {
		name   string
		first  http.HandlerFunc // nil cannot be reached
		status int
		asked  int
	}{
		{"unreachable", nil, 200, 1},
		{"500", replying(500, `{}`), 200, 1},
		{"529", replying(529, `{}`), 200, 1},
		{"429", replying(429, `{}`), 200, 1},
		{"breaks before it has answered", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 200, 1},
		{"breaks within a whole answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte(`{"a"`))
		}, 200, 1},
		{"400 is the caller's", replying(400, `{"error":{}}`), 400, 0},
		{"404 is the caller's", replying(404, `{"error":{}}`), 404, 0},
		{"401 is the operator's", replying(401, `{}`), 401, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := ok.count()
			first := Route{Name: "first", Dialect: OpenAI, BaseURL: dead, Fallbacks: []string{"second"}, Model: "m1"}
			if tt.first != nil {
				first.BaseURL = newBackend(t, tt.first).url(t, "")
			}
			second := ok.route(t, OpenAI)
			second.Name, second.Model = "second", "m2"
			s := serve(t, Config{Routes: []Route{first, second}})
			status, body := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m"}`)
			if status != tt.status || ok.count()-before != tt.asked {
				t.Fatalf("%d %s, second asked %d times", status, body, ok.count()-before)
			}
			u := s.record(t, 1)
			if tt.asked == 1 && (ok.last(t).body != `{"model":"m2"}` || u.Route != "second" || u.Tried != 2 || u.ModelUsed != "m2") {
				t.Errorf("second got %s, record %+v", ok.last(t).body, u)
			}
			if n := s.router.Meter().fallbacks; n != int64(tt.asked) {
				t.Errorf("%d fallbacks counted", n)
			}
		})
	}
}

// Once the caller has a part of an answer, no other backend may go on with it.
func TestNoFallbackWithinAnAnswer(t *testing.T) {
	first := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		streaming(sseType, chatParts[0])(w, req)
		panic(http.ErrAbortHandler)
	})
	second := newBackend(t, streaming(sseType, chatParts...))
	a, b := first.route(t, OpenAI), second.route(t, OpenAI)
	a.Fallbacks, b.Name = []string{"b"}, "b"
	s := serve(t, Config{Routes: []Route{a, b}})
	if _, err := io.ReadAll(s.do(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true}`).Body); err == nil {
		t.Error("the answer ended well")
	}
	if second.count() != 0 {
		t.Error("the second backend was asked")
	}
}

func TestErrorsInTheCallersDialect(t *testing.T) {
	u, _ := url.Parse("https://127.0.0.1:1")
	calls := []struct {
		d          Dialect
		path, body string
	}{
		{OpenAI, "/v1/chat/completions", `{"model":"m"}`},
		{Anthropic, "/v1/messages", `{"model":"m"}`},
		{Gemini, "/v1beta/models/m:generateContent", `{}`},
		{Bedrock, "/model/m/invoke", `{}`},
		{Ollama, "/api/chat", `{"model":"m"}`},
	}
	causes := []struct {
		name   string
		config func(d Dialect) Config
		body   string
		status int
		text   string
		kinds  map[Dialect]string
	}{
		{
			"not configured", func(Dialect) Config { return Config{} }, "", 503, "not configured",
			map[Dialect]string{OpenAI: "server_error", Anthropic: "api_error", Gemini: "UNAVAILABLE", Bedrock: "ServiceUnavailableException"},
		},
		{"no route", func(d Dialect) Config {
			other := OpenAI
			if d == OpenAI {
				other = Ollama
			}
			return Config{Routes: []Route{{Name: "r", Dialect: other, BaseURL: u}}}
		}, "", 400, "no compatible inference route", map[Dialect]string{OpenAI: "invalid_request_error", Anthropic: "invalid_request_error", Gemini: "INVALID_ARGUMENT", Bedrock: "ValidationException"}},
		{
			"unreachable", func(d Dialect) Config { return Config{Routes: []Route{{Name: "r", Dialect: d, BaseURL: u}}} }, "", 503, "inference service unavailable",
			map[Dialect]string{OpenAI: "server_error", Anthropic: "api_error", Gemini: "UNAVAILABLE", Bedrock: "ServiceUnavailableException"},
		},
		{
			"bad body", func(d Dialect) Config { return Config{Routes: []Route{{Name: "r", Dialect: d, BaseURL: u}}} }, `{"a":1,"a":2}`, 400, "twice",
			map[Dialect]string{OpenAI: "invalid_request_error", Anthropic: "invalid_request_error", Gemini: "INVALID_ARGUMENT", Bedrock: "ValidationException"},
		},
		{
			"too large", func(d Dialect) Config { return Config{Routes: []Route{{Name: "r", Dialect: d, BaseURL: u}}} }, `{"a":"` + strings.Repeat("x", MaxRequest) + `"}`, 413, "10 MiB",
			map[Dialect]string{OpenAI: "invalid_request_error", Anthropic: "request_too_large", Gemini: "INVALID_ARGUMENT", Bedrock: "ValidationException"},
		},
		{
			"budget", func(d Dialect) Config {
				m := new(Meter)
				if _, over := m.admit(Budget{}, time.Now(), 0); over != nil {
					t.Fatal(over)
				}
				return Config{Meter: m, Budget: Budget{RequestsPerMinute: 1}, Routes: []Route{{Name: "r", Dialect: d, BaseURL: u}}}
			}, "", 429, "requests per minute",
			map[Dialect]string{OpenAI: "rate_limit_error", Anthropic: "rate_limit_error", Gemini: "RESOURCE_EXHAUSTED", Bedrock: "ThrottlingException"},
		},
	}
	for _, cause := range causes {
		for _, c := range calls {
			t.Run(cause.name+" "+string(c.d), func(t *testing.T) {
				s := serve(t, cause.config(c.d))
				body := c.body
				if cause.body != "" {
					body = cause.body
				}
				resp := s.do(t, "POST", c.path, body)
				var got struct {
					Type    string
					Message string
					Error   json.RawMessage
				}
				if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
					t.Fatal(err)
				}
				var e struct {
					Type, Message, Status string
					Code                  any
				}
				_ = json.Unmarshal(got.Error, &e)
				message, kind := e.Message, e.Type
				switch c.d {
				case Anthropic:
					if got.Type != "error" {
						t.Error("no type error")
					}
				case Gemini:
					kind = e.Status
					if e.Code != float64(cause.status) {
						t.Errorf("code %v", e.Code)
					}
				case Bedrock:
					message, kind = got.Message, resp.Header.Get("X-Amzn-Errortype")
				case Ollama:
					_ = json.Unmarshal(got.Error, &message)
					kind = cause.kinds[Ollama]
				default: // says it where it is looked for
				}
				if resp.StatusCode != cause.status || kind != cause.kinds[c.d] || resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%d %q, want %d %q", resp.StatusCode, kind, cause.status, cause.kinds[c.d])
				}
				mustContain(t, "the message", message, cause.text)
				if after := resp.Header.Get("Retry-After"); (cause.status == 429) != (after != "") {
					t.Errorf("Retry-After %q", after)
				}
			})
		}
	}
}

// TestNothingPrintsCredentials: whatever prints a router, or what it is made of, shows no
// credential.
func TestNothingPrintsCredentials(t *testing.T) {
	base, err := url.Parse("https://api.example/v1")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Do:     func(*http.Request) (*http.Response, error) { return nil, io.EOF },
		Routes: []Route{{Name: "a", Dialect: OpenAI, BaseURL: base, Auth: Auth{Kind: HeaderAuth, Name: "x-key", Value: secret.New(key)}}},
	}
	secrettest.Check(t, c, []string{key})
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, r, []string{key})
}
