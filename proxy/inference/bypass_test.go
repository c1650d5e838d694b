// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/policy"
)

// The router's way out is what its maker hands in: nothing of the environment's.
func TestBypass_B59_ProxyVariablesDoNotMoveTheBackend(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := make(chan struct{})
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(taken)
		}
	}()
	for _, k := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy"} {
		t.Setenv(k, "http://"+l.Addr().String())
	}
	for _, k := range []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"} {
		t.Setenv(k, theirs)
	}
	b := newBackend(t, replying(200, `{}`))
	var asked []string
	send := do(t)
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}, Do: func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Host)
		return send(req)
	}})
	if status, _ := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m"}`); status != 200 {
		t.Fatalf("status %d", status)
	}
	if len(asked) != 1 || "https://"+asked[0] != b.URL {
		t.Errorf("asked %v, not %s", asked, b.URL)
	}
	select {
	case <-taken:
		t.Error("the proxy of the environment was connected to")
	default:
	}
	mustNotContain(t, "the request", b.last(t).dump(), theirs)
}

// No credential of the caller's reaches a backend, in whatever place it is put.
func TestBypass_B63_ForeignCredentialIsStripped(t *testing.T) {
	headers := []string{
		"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Cookie", "Proxy-Authorization",
		"X-Amz-Security-Token", "X-Unknown-Token", "X-Goog-User-Project", "Openai-Project", "X-Forwarded-For", "Trailer",
	}
	for _, tt := range streams {
		for _, kind := range []Auth{
			{Kind: BearerAuth, Value: secret.New(key)},
			{Kind: HeaderAuth, Name: "x-api-key", Value: secret.New(key)},
			{Kind: QueryAuth, Name: "key", Value: secret.New(key)},
			{},
		} {
			b := newBackend(t, streaming(tt.kind, tt.parts...))
			rt := b.route(t, tt.dialect)
			rt.Auth, rt.Model = kind, "real"
			s := serve(t, Config{Routes: []Route{rt}})
			path, sep := tt.path, "?"
			if strings.Contains(path, "?") {
				sep = "&"
			}
			path += sep + "key=" + theirs + "&access_token=" + theirs + "&X-Amz-Signature=" + theirs
			var h []string
			for _, k := range headers {
				h = append(h, k, theirs)
			}
			if status, body := s.ask(t, "POST", path, tt.body, h...); status != 200 {
				t.Fatalf("%s: %d %s", tt.name, status, body)
			}
			got := b.last(t).dump()
			mustNotContain(t, tt.name, got, theirs)
			if n := strings.Count(got, key); kind.Kind == NoAuth && n != 0 || kind.Kind != NoAuth && n != 1 {
				t.Errorf("%s: the credential is in the request %d times", tt.name, n)
			}
		}
	}
}

// A backend that a caller names is not asked: routes are the operator's alone.
func TestBypass_B68_CallerCannotNameTheBackend(t *testing.T) {
	evil := newBackend(t, replying(200, `{}`))
	b := newBackend(t, replying(200, `{}`))
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
	evilHost := strings.TrimPrefix(evil.URL, "https://")
	tests := []struct {
		name, path, host, body string
		header                 []string
		status                 int
	}{
		{name: "host", path: "/v1/chat/completions", host: evilHost, status: 421},
		{name: "host with a port", path: "/v1/chat/completions", host: policy.RouterHost + ":22", status: 421},
		{name: "host of another suffix", path: "/v1/chat/completions", host: policy.RouterHost + ".evil.example", status: 421},
		{name: "headers", path: "/v1/chat/completions", header: []string{"X-Forwarded-Host", evilHost, "X-Base-Url", evil.URL}, status: 200},
		{name: "query", path: "/v1/chat/completions?base_url=" + url.QueryEscape(evil.URL), status: 200},
		{name: "body", path: "/v1/chat/completions", body: `{"model":"m","base_url":"` + evil.URL + `","api_base":"` + evil.URL + `"}`, status: 200},
		{name: "model as a url", path: "/v1/chat/completions", body: `{"model":"` + evil.URL + `/x"}`, status: 200},
	}
	for _, tt := range tests {
		if tt.body == "" {
			tt.body = `{"model":"m"}`
		}
		req := httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body))
		req.Host = policy.RouterHost
		if tt.host != "" {
			req.Host = tt.host
		}
		for i := 0; i < len(tt.header); i += 2 {
			req.Header.Set(tt.header[i], tt.header[i+1])
		}
		w := httptest.NewRecorder()
		s.router.ServeHTTP(w, req)
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.name, w.Code, tt.status, w.Body)
		}
	}
	if evil.count() != 0 {
		t.Error("the caller's backend was asked")
	}
}

func TestBypass_B68_RedirectIsNotFollowed(t *testing.T) {
	evil := newBackend(t, replying(200, `{}`))
	for _, status := range []int{301, 302, 303, 307, 308} {
		b := newBackend(t, replying(status, `{}`, "Location", evil.URL+"/v1/x"))
		s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
		resp := s.do(t, "POST", "/v1/embeddings", `{"model":"m"}`)
		if resp.StatusCode != 502 || resp.Header.Get("Location") != "" {
			t.Errorf("%d: answered %d with Location %q", status, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
	if evil.count() != 0 {
		t.Error("a redirect was followed")
	}
}

// notAllowed are requests next to the allow-list, each of which a careless matcher
// or a lenient backend would take.
var notAllowed = []struct{ method, path string }{
	{"POST", "/v1/files"},
	{"GET", "/v1/files"},
	{"GET", "/admin"},
	{"GET", "/"},
	{"POST", "/"},
	{"GET", "/v1/chat/completions"},
	{"DELETE", "/v1/models/m"},
	{"PUT", "/v1/messages"},
	{"HEAD", "/v1/models"},
	{"OPTIONS", "/v1/messages"},
	{"PATCH", "/v1/messages"},
	{"post", "/v1/messages"},
	{"TRACE", "/api/tags"},
	{"POST", "/v1/chat/completions/"},
	{"POST", "//v1/chat/completions"},
	{"POST", "/v1//chat/completions"},
	{"POST", "/v1/./chat/completions"},
	{"POST", "/v1/files/../chat/completions"},
	{"POST", "/v1/chat/completions/../../files"},
	{"POST", "/v1/chat%2Fcompletions"},
	{"POST", "/v1/chat%2fcompletions"},
	{"POST", "/%761/messages"},
	{"POST", "/v1/messages%00"},
	{"POST", "/v1/messages;x=1"},
	{"POST", "/v1/messages%3Fx"},
	{"POST", "/V1/messages"},
	{"POST", "/v1/Messages"},
	{"POST", "/v1/messages/batches"},
	{"POST", "/v1/responses/r1"},
	{"GET", "/v1/responses/r1"},
	{"GET", "/v1/responses"},
	{"GET", "/v1/models/"},
	{"GET", "/v1/models/a/b"},
	{"GET", "/v1/models/.."},
	{"GET", "/v1/models/."},
	{"GET", "/v1/models/..%2ffiles"},
	{"GET", "/v1/models/a%2fb"},
	{"GET", "/v1/models/%2e%2e"},
	{"GET", "/v1/models/a;b"},
	{"GET", "/v1/models/a%00"},
	{"GET", "/v1/models/a%3Fb"},
	{"GET", "/v1/models/" + strings.Repeat("a", MaxModel+1)},
	{"GET", `/v1/models/a\..\b`},
	{"GET", "/v1/models/a%25b"},
	{"POST", "/model//invoke"},
	{"POST", "/model/a/b/invoke"},
	{"POST", "/model/a%2Fb/invoke"},
	{"POST", "/model/../invoke"},
	{"POST", "/model/%3A/invoke"},
	{"POST", "/model/a/invoke/x"},
	{"POST", "/model/a/async-invoke"},
	{"GET", "/model/a/invoke"},
	{"POST", "/v1beta/models/a:batchGenerateContent"},
	{"POST", "/v1beta/models/a:x:generateContent"},
	{"POST", "/v1beta/models/:generateContent"},
	{"POST", "/v1beta/models/../files:generateContent"},
	{"POST", "/v1beta/files"},
	{"GET", "/v1beta/models"},
	{"POST", "/v1beta/models/a%3AgenerateContent"},
	{"POST", "/v1beta/models/a/b:generateContent"},
	{"POST", "/upload/v1beta/files"},
	{"POST", "/v2/models/a:generateContent"},
	{"POST", "/api/pull"},
	{"POST", "/api/create"},
	{"DELETE", "/api/delete"},
	{"POST", "/api/push"},
	{"POST", "/api/blobs/sha256:x"},
	{"POST", "/api/tags"},
	{"POST", "/v1/messages?a;b"},
	{"POST", "/v1/messages?%zz"},
}

func TestBypass_B69_OnlyTheAllowListPasses(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	var routes []Route
	for _, d := range []Dialect{OpenAI, Anthropic, Bedrock, Gemini, Ollama} {
		routes = append(routes, b.route(t, d))
	}
	s := serve(t, Config{Routes: routes})
	for _, tt := range notAllowed {
		req := httptest.NewRequest("POST", "/", strings.NewReader(`{"model":"m"}`))
		req.Method, req.RequestURI, req.Host = tt.method, tt.path, policy.RouterHost
		w := httptest.NewRecorder()
		s.router.ServeHTTP(w, req)
		if w.Code != 403 || w.Body.String() != `{"error":"connection not allowed by policy"}` || w.Header().Get("Connection") != "close" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, w.Code, w.Body)
		}
	}
	if b.count() != 0 {
		t.Errorf("the backend was asked for %v", b.seen)
	}
}

func TestBypass_B69_OnlyTheRoutersPorts(t *testing.T) {
	for authority, want := range map[string]bool{
		"inference.local": true, "inference.local:443": true, "inference.local:80": true, "INFERENCE.local": true, "inference.local.": true,
		"inference.local:22": false, "inference.local:8443": false, "inference.local:": false, "": false, "inference.local:0443": false,
		"xinference.local": false, "inference.local@evil": false, "inference.local:443:443": false, "[inference.local]:443x": false,
	} {
		if got := isHost(authority); got != want {
			t.Errorf("isHost(%q) = %v", authority, got)
		}
	}
}

// Two readers of one body must not see two models.
func TestBypass_B63_BodyThatReadsTwoWaysIsRefused(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	o, a := b.route(t, OpenAI), b.route(t, Ollama)
	o.Model, a.Model = "cheap", "cheap"
	s := serve(t, Config{Routes: []Route{o, a}})
	for _, body := range []string{
		`{"model":"a","model":"b"}`, `{"model":"a","mod\u0065l":"b"}`, `{"model":"a","Model":"b"}`, `{"MODEL":"b"}`,
		`{"model":"a","x":{"y":1,"y":2}}`, `{"model":"a","x":[[{"y":1,"\u0079":2}]]}`, `{"model":["a"]}`, `{"model":1}`, `{"model":null}`,
		`{"model":"a"}{"model":"b"}`, `["model"]`, `"model"`, `null`, `1`, ``, ` `, `{"model":"a"`, `{'model':'a'}`, "\xef\xbb\xbf{}", `{"model":"a",}`,
		"{\"model\":\"a\xff\"}", `{"model":"a\nb"}`, `{"model":"a b"}`, `{"model":"` + strings.Repeat("x", MaxModel+1) + `"}`,
		`{"model":"a","models":["dear"]}`, `{"model":"a","Models":["dear"]}`, `{"model":"a","stream":"yes"}`, `{"model":"a","stream":true,"Stream":false}`,
		strings.Repeat(`[`, 20000), strings.Repeat(`{"a":`, 20000), `{"model":"a"` + strings.Repeat(`,"k":1`, 2) + `}`,
	} {
		status, got := s.ask(t, "POST", "/v1/chat/completions", body)
		if status != 400 {
			t.Errorf("%.60s: %d %s", body, status, got)
		}
	}
	if b.count() != 0 {
		t.Errorf("the backend was asked %d times: %.200s", b.count(), b.seen[0].body)
	}
}

// What a backend knows of the operator does not come back.
func TestNoSecretComesBack(t *testing.T) {
	shows := map[string]http.HandlerFunc{
		"headers":    replying(200, `{}`, "Set-Cookie", "s="+key, "Authorization", "Bearer "+key, "X-Api-Key", key, "X-Request-Id", key, "Openai-Organization", "org", "Server", "x"),
		"400":        replying(400, `{"error":{"message":"bad key `+key+`"}}`),
		"401":        replying(401, `{"error":{"message":"Incorrect API key provided: `+key+`"}}`),
		"429":        replying(429, `{"error":{"message":"`+key+`"}}`),
		"500":        replying(500, `{"error":"`+key+`"}`),
		"echo":       replying(200, `{"x":"`+key+`"}`),
		"html":       replying(502, `<h1>`+key+`</h1>`, "Content-Type", "text/html"),
		"compressed": replying(200, key, "Content-Encoding", "gzip"),
	}
	for name, h := range shows {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, h)
			s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
			resp := s.do(t, "POST", "/v1/chat/completions", `{"model":"m"}`)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			all := seen{header: resp.Header, body: string(body)}.dump()
			mustNotContain(t, "the answer", all, key, "Set-Cookie", "Authorization", "Openai-Organization", "Server:")
			mustNotContain(t, "the record", s.record(t, 1).Error, key)
		})
	}
}

// A transport's error holds the URL, and with it a credential sent by query.
func TestNoSecretInErrors(t *testing.T) {
	for _, kind := range []Auth{{Kind: QueryAuth, Name: "key", Value: secret.New("a+b/" + key)}, {Kind: BearerAuth, Value: secret.New("a+b/" + key)}} {
		u, _ := url.Parse("https://backend.example")
		s := serve(t, Config{Routes: []Route{{Name: "r", Dialect: Gemini, BaseURL: u, Auth: kind}}, Do: func(req *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: req.URL.String(), Err: io.ErrUnexpectedEOF}
		}})
		status, body := s.ask(t, "POST", "/v1beta/models/m:generateContent", `{}`)
		if status != 503 {
			t.Errorf("status %d", status)
		}
		u1 := s.record(t, 1)
		mustNotContain(t, "the answer", body, key, "backend.example")
		mustNotContain(t, "the record", u1.Error, key, "https://")
		mustContain(t, "the record", u1.Error, "unexpected EOF")
	}
}

func TestUnusableCredentialIsNotSent(t *testing.T) {
	for name, v := range map[string]string{"empty": "", "newline": key + "\r\nX-Evil: 1", "huge": strings.Repeat("k", MaxSecret+1), "spaces": " " + key, "nul": "a\x00b"} {
		b := newBackend(t, replying(200, `{}`))
		rt := b.route(t, OpenAI)
		rt.Auth.Value = secret.New(v)
		s := serve(t, Config{Routes: []Route{rt}})
		if status, _ := s.ask(t, "POST", "/v1/embeddings", `{"model":"m"}`); status != 503 || b.count() != 0 {
			t.Errorf("%s: status %d, %d requests", name, status, b.count())
		}
		mustContain(t, name, s.record(t, 1).Error, "credential of route")
	}
}
