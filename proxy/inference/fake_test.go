// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/memory"
)

// key is the operator's credential in these tests, theirs one that a caller sends.
const (
	key    = "sk-operator-0123456789abcdef"
	theirs = "sk-attacker-fedcba9876543210"
)

// seen is a request as a backend got it.
type seen struct {
	method, uri string
	header      http.Header
	body        string
}

// backend is a server of a model's API that keeps what it was asked.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

func newBackend(t testing.TB, answer http.HandlerFunc) *backend {
	b := &backend{}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		b.mu.Lock()
		b.seen = append(b.seen, seen{req.Method, req.RequestURI, req.Header.Clone(), string(body)})
		b.mu.Unlock()
		answer(w, req)
	}))
	b.EnableHTTP2 = true
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

func (b *backend) last(t testing.TB) seen {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) == 0 {
		t.Fatal("the backend was not asked")
	}
	return b.seen[len(b.seen)-1]
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

func (b *backend) url(t testing.TB, path string) *url.URL {
	u, err := url.Parse(b.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (b *backend) route(t testing.TB, d Dialect) Route {
	return Route{Name: string(d), Dialect: d, BaseURL: b.url(t, ""), Auth: Auth{Kind: BearerAuth, Value: secret.New(key)}}
}

// sandbox is a router and a client whose every connection reaches it.
type sandbox struct {
	router *Router
	client *http.Client
	// memory is the budget of the connections, which share one account.
	memory  *memory.Budget
	account *memory.Account
	mu      sync.Mutex
	usage   []Usage
}

// do trusts the certificate that every server of httptest has.
func do(t testing.TB) func(*http.Request) (*http.Response, error) {
	any := httptest.NewTLSServer(nil)
	any.Close()
	tr := any.Client().Transport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost = 300
	tr.ForceAttemptHTTP2 = true
	tr.DialTLSContext, tr.DialContext = nil, nil
	t.Cleanup(tr.CloseIdleConnections)
	return tr.RoundTrip
}

func serve(t testing.TB, c Config) *sandbox {
	t.Helper()
	s := &sandbox{}
	if c.Do == nil {
		c.Do = do(t)
	}
	c.Record = func(u Usage) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.usage = append(s.usage, u)
	}
	var err error
	if s.router, err = New(c); err != nil {
		t.Fatal(err)
	}
	s.memory = memory.New(0)
	s.account = s.memory.Open(func() {})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.router.ServeHTTP(w, req.WithContext(memory.NewContext(req.Context(), s.account.Hold(0))))
	}))
	t.Cleanup(server.Close)
	tr := &http.Transport{MaxIdleConnsPerHost: 300, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	s.client = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

func (s *sandbox) do(t testing.TB, method, path, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+policy.RouterHost+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = nil, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// ask returns an answer's status and all of its body.
func (s *sandbox) ask(t testing.TB, method, path, body string, header ...string) (int, string) {
	t.Helper()
	resp := s.do(t, method, path, body, header...)
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// record waits for the n-th record: it is made after the answer has been sent.
func (s *sandbox) record(t testing.TB, n int) Usage {
	t.Helper()
	var u Usage
	if testenv.Eventually(5*time.Second, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.usage) < n {
			return false
		}
		u = s.usage[n-1]
		return true
	}) {
		return u
	}
	t.Fatalf("no record %d", n)
	return Usage{}
}

// streaming answers with parts, each flushed on its own.
func streaming(contentType string, parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

func replying(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func mustContain(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s has no %q: %s", what, p, text)
		}
	}
}

func mustNotContain(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%s has %q: %s", what, p, text)
		}
	}
}

// dump is a request as one text, to search.
func (s seen) dump() string {
	var b bytes.Buffer
	b.WriteString(s.method + " " + s.uri + "\n")
	_ = s.header.Write(&b)
	return b.String() + s.body
}
