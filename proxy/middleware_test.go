// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	fake "openshell.dev/runtime/integration/middleware"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/proxy/middleware"
)

const (
	leak     = "sk-0123456789abcdefXYZ"
	redactor = "network_middlewares:\n  redact: {middleware: openshell/regex, order: 1, endpoints: {include: ['*.example.com']}}\n"
	guard    = "  guard: {middleware: guard, order: 2, config: {k: v}, endpoints: {include: ['api.example.com', 'inference.local']}}\n"
)

// guarded is a world with a service "guard", and a policy that uses it.
func guarded(t *testing.T, s *fake.Service, policyText string) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := s.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	w := newWorld(t, "")
	w.sandbox.middlewares, err = middleware.New(middleware.Config{
		Sandbox: "box",
		Services: []middleware.Service{{
			Name: "guard", URL: &url.URL{Scheme: "http", Host: "guard.test:1"}, MaxBody: 64 << 10, Timeout: 2 * time.Second,
		}},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.load(policyText)
	return w
}

// At every entry, what the redactor finds does not arrive, with rules and without,
// and what it does not look for does.
func TestMiddlewareRedacts(t *testing.T) {
	for _, endpoint := range []string{everything, "host: api.example.com, ports: [80, 443]"} {
		for _, e := range entries {
			t.Run(e.name, func(t *testing.T) {
				w := newWorld(t, endpoints(endpoint)+redactor)
				plain, secure := w.both(nil, "h2", "http/1.1")
				c := e.client(w)
				const body = `{"prompt":"my key is %s","n":1}`
				for _, sent := range []string{leak, "s\\u006b-0123456789abcdefXYZ", "harmless"} {
					before := len(w.log.all())
					text := strings.Replace(body, "%s", sent, 1)
					resp, answer := get(t, c, "POST", e.url("/items"), struct{ io.Reader }{strings.NewReader(text)}) // in chunks
					if resp.StatusCode != 200 {
						t.Fatalf("%d %s", resp.StatusCode, answer)
					}
					got := append(plain.got(), secure.got()...)
					want := strings.Replace(body, "%s", "[REDACTED]", 1)
					step := decisionlog.Middleware{Name: "redact", Changed: true, Findings: 1}
					if sent == "harmless" {
						want, step = text, decisionlog.Middleware{Name: "redact"}
					}
					if last := got[len(got)-1]; last.Body != want {
						t.Errorf("arrived %q", last.Body)
					}
					if d := cmp.Diff([]decisionlog.Middleware{step}, w.recorded(before).Middlewares); d != "" {
						t.Error(d)
					}
				}
				// The control: without the middleware it arrives, in TLS that nobody ends
				// where no rule needs it.
				w.load(endpoints(endpoint))
				cert, _ := w.upstream.PEM()
				w.roots.AppendCertsFromPEM(cert)
				get(t, e.client(w), "POST", e.url("/items"), strings.NewReader(leak))
				got := append(plain.got(), secure.got()...)
				if last := got[len(got)-1]; e.tls == (len(plain.got()) > 0) || last.Body != leak {
					t.Errorf("without the middleware arrived %q", last.Body)
				}
			})
		}
	}
}

// A service's refusal, its failure and its absence each have their answer; nothing
// arrives, whatever enforcement says, and its words are told to nobody.
func TestMiddlewareRefuses(t *testing.T) {
	answers := map[string]fake.Result{
		"deny":   {"decision": "DECISION_DENY", "reason": "found " + leak, "reasonCode": "content_match"},
		"broken": {},
		"allow":  fake.Allow,
	}
	s := &fake.Service{Evaluate: func(_ context.Context, e *fake.Evaluation) (fake.Result, error) { return answers[string(e.Body)], nil }}
	const audited = `host: api.example.com, ports: [80, 443], protocol: rest, access: read-only`
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := guarded(t, s, endpoints(audited)+"network_middlewares:\n"+guard)
			plain, secure := w.both(nil, "h2", "http/1.1")
			for _, tc := range []struct {
				body, policy string
				status       int
				want         map[string]any
				failed       string
			}{
				{"deny", "web", 403, map[string]any{
					"error": "middleware_denied", "detail": "Request rejected by configured middleware", "policy": "web", "middleware": "guard", "reason_code": "content_match",
				}, ""},
				{"broken", "web", 403, map[string]any{
					"error": "middleware_failed", "detail": "Request could not be processed by configured middleware", "policy": "web",
				}, "invalid_response_decision"},
				{strings.Repeat("x", 64<<10+1), "web", 403, map[string]any{
					"error": "middleware_failed", "detail": "Request could not be processed by configured middleware", "policy": "web",
				}, "request_body_over_capacity"},
				{"allow", "", 200, nil, ""},
			} {
				before := len(w.log.all())
				resp, text := get(t, e.client(w), "POST", e.url("/items"), strings.NewReader(tc.body))
				var got map[string]any
				if tc.want != nil {
					if err := json.Unmarshal([]byte(text), &got); err != nil {
						t.Fatalf("%v: %s", err, text)
					}
				}
				if resp.StatusCode != tc.status || resp.Header.Get("X-OpenShell-Policy") != tc.policy || !cmp.Equal(tc.want, got) {
					t.Errorf("%.20s: %d %v %s", tc.body, resp.StatusCode, resp.Header, text)
				}
				r := w.recorded(before)
				if len(r.Middlewares) != 1 || r.Middlewares[0].Failed != tc.failed || (r.Verdict == "deny") != (tc.want != nil) || strings.Contains(r.Reason, "sk-") {
					t.Errorf("%.20s: recorded %+v", tc.body, r)
				}
			}
			if n := len(plain.got()) + len(secure.got()); n != 1 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}

// A middleware sees no credential and no placeholder's value; its headers arrive, and
// those that the workload writes in its name do not.
func TestMiddlewareIsBeforeCredentials(t *testing.T) {
	s := &fake.Service{Evaluate: func(context.Context, *fake.Evaluation) (fake.Result, error) {
		return fake.Result{"decision": "DECISION_ALLOW", "headerMutations": []any{
			map[string]any{"write": map[string]any{"name": "x-openshell-middleware-seen", "value": "yes", "onExisting": "EXISTING_HEADER_ACTION_APPEND"}},
			map[string]any{"remove": map[string]any{"name": "x-drop"}},
		}}, nil
	}}
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			secret := withSecret(t)
			w := guarded(t, s, endpoints("host: api.example.com, ports: [443]")+"network_middlewares:\n"+guard)
			w.sandbox.SetCredentials(secret.sandbox.credentials.Load())
			site := w.site("api.example.com", 443, nil, proto)
			req, err := http.NewRequest("POST", "https://api.example.com/", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{
				"Authorization": {"Bearer " + secretKey}, "X-Key": {secretKey}, "X-Drop": {"1"},
				"X-Openshell-Middleware-Seen": {"forged"}, "X-Openshell-Middleware-Other": {"forged"},
			}
			resp, err := w.client(w.byConnect, proto).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			e := s.Seen()[len(s.Seen())-1]
			text, _ := json.Marshal(e)
			if bytes.Contains(text, []byte(secretValue)) || bytes.Contains(text, []byte("uthorization")) || bytes.Contains(text, []byte("forged")) ||
				!bytes.Contains(text, []byte(secretKey)) || e.Context.OriginatingProcess.Binary != curl || e.Context.SandboxID != "box" {
				t.Errorf("the service saw %s", text)
			}
			h := site.got()[0].Header
			if h.Get("Authorization") != "Bearer "+secretValue || h.Get("X-Key") != secretValue || h["X-Drop"] != nil ||
				!cmp.Equal(h["X-Openshell-Middleware-Seen"], []string{"yes"}) || h["X-Openshell-Middleware-Other"] != nil {
				t.Errorf("arrived %v", h)
			}
		})
	}
}

// What no middleware can see does not go where one must; where all fail open it goes
// and is recorded so.
func TestMiddlewareMustSee(t *testing.T) {
	const closed = "network_middlewares:\n  m: {middleware: openshell/regex, endpoints: {include: ['**.example.com']}}\n"
	open := strings.Replace(closed, "regex,", "regex, on_error: fail_open,", 1)
	for _, tc := range []struct {
		name, endpoint string
		say            string
		connect        int
	}{
		{"raw TCP", "host: raw.example.com, port: 22", "SSH-2.0-x\r\n", 200},
		{"protocol: tcp", "host: raw.example.com, port: 22, protocol: tcp", "x\r\n", 403},
		{"tls: skip by a name that the file does not show", "host: '{raw,b}*.example.com', port: 22, tls: skip", "x\r\n", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(strings.ReplaceAll(tc.endpoint, "{raw", "{ra"))+closed)
			var got tap
			w.raw("raw.example.com", 22, got.serve)
			c := w.dial()
			status, head := connect(t, c, "raw.example.com:22")
			if status != tc.connect {
				t.Fatalf("%s", head)
			}
			if status == 403 {
				_, body := ask(t, w.dial(), "CONNECT raw.example.com:22 HTTP/1.1\r\nHost: raw.example.com:22\r\n\r\n")
				if !strings.Contains(body, `"error":"middleware_required"`) {
					t.Error(body)
				}
			} else {
				_, _ = io.WriteString(c, tc.say)
				if err := gone(c); err != nil {
					t.Error(err)
				}
			}
			direct := w.to("198.18.0.3:22")
			_, _ = io.WriteString(direct, tc.say)
			if err := gone(direct); err != nil {
				t.Error(err)
			}
			if r := w.recorded(0); r.Verdict != "deny" || !strings.Contains(r.Reason, "middleware m") {
				t.Errorf("recorded %+v", r)
			}
			if s := got.got(); s != "" {
				t.Errorf("arrived %q", s)
			}
			// The control, which a reload ends again.
			w.load(endpoints(strings.ReplaceAll(tc.endpoint, "{raw", "{ra")) + open)
			before := len(w.log.all())
			c = w.tunnel("raw.example.com:22")
			_, _ = io.WriteString(c, tc.say)
			if !settles(func() bool { return got.got() == tc.say }) {
				t.Errorf("where it fails open arrived %q", got.got())
			}
			w.load(endpoints(strings.ReplaceAll(tc.endpoint, "{raw", "{ra")) + closed)
			if err := gone(c); err != nil {
				t.Errorf("after the reload: %v", err)
			}
			settles(func() bool { return len(w.log.all()) >= before+2 })
			found := false
			for _, r := range w.log.all()[before:] {
				found = found || cmp.Equal(r.Middlewares, []decisionlog.Middleware{{Name: "m", Failed: "uninspectable"}})
			}
			if !found {
				t.Errorf("recorded %+v", w.log.all()[before:])
			}
		})
	}
}

// TLS that holds no HTTP does not go where a middleware is, even one that fails open:
// what the proxy has opened it does not send on unread. HTTP, in TLS and without, does;
// and without a middleware nobody opens the TLS.
func TestMiddlewareTLSWithoutHTTP(t *testing.T) {
	const policy = "host: raw.example.com, ports: [80, 443, 993]"
	const request = "GET /a HTTP/1.1\r\nHost: HOST\r\n\r\n"
	for _, tc := range []struct {
		name       string
		middleware bool
		port       uint16
		say        string
		arrives    bool
	}{
		{"text", true, 993, "a1 LOGIN user secret\r\n\r\n", false},
		{"text on HTTPS's port", true, 443, "a1 LOGIN user secret\r\n\r\n", false},
		{"binary", true, 993, "\x00\x01\x02\r\n\r\n", false},
		{"HTTP/2 that was not agreed on", true, 443, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
		{"control: HTTP in TLS", true, 993, request, true},
		{"control: HTTP in TLS on its port", true, 443, request, true},
		{"control: HTTP without TLS", true, 80, request, true},
		{"control: text, no middleware", false, 993, "a1 LOGIN user secret\r\n\r\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text, roots := endpoints(policy), tls.Config{ServerName: "raw.example.com"}
			w := newWorld(t, text)
			roots.RootCAs = pool(w.upstream)
			if tc.middleware {
				roots.RootCAs = w.roots
				w.load(text + "network_middlewares:\n  m: {middleware: openshell/regex, on_error: fail_open, endpoints: {include: ['**.example.com']}}\n")
			}
			leaf, err := w.upstream.Leaf("raw.example.com")
			if err != nil {
				t.Fatal(err)
			}
			got := tap{answer: "HTTP/1.1 204 No Content\r\n\r\n"}
			w.raw("raw.example.com", tc.port, func(c net.Conn) {
				if tc.port != 80 {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}})
				}
				got.serve(c)
			})
			authority := fmt.Sprintf("raw.example.com:%d", tc.port)
			var c net.Conn = w.tunnel(authority)
			header := authority
			if tc.port != 80 {
				c = tls.Client(c, &roots)
			}
			if tc.port == 80 || tc.port == 443 {
				header = "raw.example.com"
			}
			say := strings.Replace(tc.say, "HOST", header, 1)
			if _, err := io.WriteString(c, say); err != nil {
				t.Fatal(err)
			}
			if tc.arrives {
				if !settles(func() bool { return got.got() == say }) {
					t.Errorf("arrived %q", got.got())
				}
				return
			}
			answer, _ := io.ReadAll(c)
			if strings.Contains(string(answer), " 204 ") || got.got() != "" {
				t.Errorf("the client got %q, the server %q", answer, got.got())
			}
			if r := w.recorded(0); r.Verdict != "deny" {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

// A websocket would be a way past a middleware.
func TestMiddlewareNoUpgrade(t *testing.T) {
	const ws = "GET /a HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	w := newWorld(t, endpoints("host: api.example.com, port: 80")+redactor)
	got := tap{answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
	w.raw("api.example.com", 80, got.serve)
	resp, body := ask(t, w.tunnel("api.example.com:80"), ws)
	if resp.StatusCode != 403 || !strings.Contains(body, "middleware_required") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if s := got.got(); s != "" {
		t.Errorf("arrived %q", s)
	}
}

// Where a body cannot be seen it does not go, or goes as it is where the policy says
// so: too long, compressed, with trailers.
func TestMiddlewareBodies(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, leak)
	_ = z.Close()
	long := leak + strings.Repeat("x", 4<<20)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct {
			name, body, failed string
			change             func(*http.Request)
		}{
			{"long", long, "request_body_over_capacity", func(*http.Request) {}},
			{"long in chunks", long, "request_body_over_capacity", func(r *http.Request) { r.ContentLength = -1 }},
			{"compressed", zipped.String(), "request_body_encoded", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }},
			{"not text", "\xff" + leak, "request_body_not_text", func(*http.Request) {}},
			{"trailers", leak, "request_trailers", func(r *http.Request) {
				r.ContentLength, r.Trailer = -1, http.Header{"X-After": {leak}}
			}},
		} {
			t.Run(proto+" "+tc.name, func(t *testing.T) {
				w := newWorld(t, endpoints(everything)+redactor)
				site := w.site("api.example.com", 443, nil, proto)
				send := func() *http.Response {
					req, err := http.NewRequest("POST", "https://api.example.com/", struct{ io.Reader }{strings.NewReader(tc.body)})
					if err != nil {
						t.Fatal(err)
					}
					req.ContentLength = int64(len(tc.body))
					tc.change(req)
					resp, err := w.client(w.byConnect, proto).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					return resp
				}
				if resp := send(); resp.StatusCode != 403 {
					t.Errorf("status %d", resp.StatusCode)
				}
				if r := w.recorded(0); len(r.Middlewares) != 1 || r.Middlewares[0].Failed != tc.failed {
					t.Errorf("recorded %+v", r)
				}
				if n := len(site.got()); n != 0 {
					t.Fatalf("%d arrived", n)
				}
				w.load(endpoints(everything) + strings.Replace(redactor, "regex,", "regex, on_error: fail_open,", 1))
				if resp := send(); resp.StatusCode != 200 {
					t.Errorf("where it fails open: status %d", resp.StatusCode)
				}
				if got := site.got(); len(got) != 1 || got[0].Body != tc.body {
					t.Errorf("where it fails open arrived %.40q", got)
				}
			})
		}
	}
}

// The proxy reads the body itself, so it is the proxy that asks for it, and what it
// sends on has one length.
func TestMiddlewareExpectContinue(t *testing.T) {
	w := newWorld(t, endpoints(everything)+redactor)
	var got tap
	got.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	w.raw("api.example.com", 80, got.serve)
	c := w.tunnel("api.example.com:80")
	_, _ = io.WriteString(c, "PUT /yes HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 100 {
		t.Fatalf("%v %v", resp, err)
	}
	_, _ = io.WriteString(c, "16\r\n"+leak+"\r\n0\r\n\r\n")
	if resp, _ := answerOf(t, br, "PUT"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	const want = "PUT /yes HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 10\r\n\r\n[REDACTED]"
	if !settles(func() bool { return got.got() == want }) { // it answers the head
		t.Errorf("arrived %q", got.got())
	}
}

// A client that does not send its body is not waited for without end.
func TestMiddlewareBodyBreaksOff(t *testing.T) {
	w := newWorld(t, endpoints(everything)+redactor)
	plain, _ := w.both(nil, "http/1.1")
	c := w.tunnel("api.example.com:80")
	_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100\r\n\r\nhalf")
	closeWrite(c)
	if resp, body := answerOf(t, bufio.NewReader(c), "PUT"); resp.StatusCode != 400 || !strings.Contains(body, "body") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if n := len(plain.got()); n != 0 {
		t.Errorf("%d arrived", n)
	}
}

// A policy that came while a service thought is the one that counts.
func TestMiddlewareChangedIsJudgedAgain(t *testing.T) {
	var w *world
	s := &fake.Service{Evaluate: func(_ context.Context, e *fake.Evaluation) (fake.Result, error) {
		w.load(endpoints(`host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce, access: read-only`) + "network_middlewares:\n" + guard)
		return fake.Result{"decision": "DECISION_ALLOW", "body": []byte("new"), "hasBody": true}, nil
	}}
	w = guarded(t, s, endpoints(everything)+"network_middlewares:\n"+guard)
	plain, _ := w.both(nil, "http/1.1")
	resp, body := get(t, w.client(w.byConnect), "POST", "http://api.example.com/", strings.NewReader("old"))
	if resp.StatusCode != 403 || !strings.Contains(body, "policy_denied") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if n := len(plain.got()); n != 0 {
		t.Errorf("%d arrived", n)
	}
}

// A policy that names an unknown service is not loaded.
func TestLoadRefusesUnknownMiddleware(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	err := w.sandbox.Load("test", []byte(endpoints(everything)+"network_middlewares:\n"+guard), 99)
	if err == nil || !strings.Contains(err.Error(), "no service 'guard' is registered") {
		t.Errorf("%v", err)
	}
	if _, n, _ := w.sandbox.Loaded(); n == 99 {
		t.Error("is loaded")
	}
}
