// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	fake "openshell.dev/runtime/integration/middleware"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/policy"
)

// dialTo reaches one address, whatever is asked for.
func dialTo(l net.Listener) Dialer {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// runner has s as the service "guard".
func runner(t *testing.T, s *fake.Service, maxBody int) *Runner {
	t.Helper()
	l := listen(t)
	server, err := s.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	u := &url.URL{Scheme: "http", Host: "guard.test:50051"}
	r, err := New(Config{Sandbox: "box", Services: []Service{{Name: "guard", URL: u, MaxBody: maxBody, Timeout: 2 * time.Second}}, Dial: dialTo(l)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Over TLS the service is who its certificate says, or not spoken to.
func TestServiceOverTLS(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	l := listen(t)
	s := &fake.Service{}
	server, err := s.Serve(l, grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0])))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	for _, tc := range []struct {
		host  string
		roots *x509.CertPool
		want  bool
	}{
		{"example.com", roots, true}, {"guard.test", roots, false}, {"example.com", x509.NewCertPool(), false},
	} {
		u := &url.URL{Scheme: "https", Host: tc.host}
		r, err := New(Config{Services: []Service{{Name: "guard", URL: u, MaxBody: MaxBody, Roots: tc.roots, Timeout: 2 * time.Second}}, Dial: dialTo(l)})
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.Seen())
		if _, err := run(t, r, request("x"), guarded); (err == nil) != tc.want || len(s.Seen())-before != map[bool]int{true: 1}[tc.want] {
			t.Errorf("%s: %v", tc.host, err)
		}
	}
}

var guarded = policy.Middleware{Key: "m", Uses: "guard", Config: map[string]any{
	"s": "x", "n": 1.5, "yes": true, "none": nil, "list": []any{"a", 2.0}, "deep": map[string]any{"k": "v"},
}}

func request(body string) *Request {
	return &Request{
		Scheme: "https", Host: "api.example.com", Port: 443, Method: "POST", Path: "/v1/x", Query: "q=1", Body: []byte(body),
		Header: http.Header{
			"Content-Type": {"application/json"}, "X-Two": {"b", " a "}, "Authorization": {"Bearer placeholder"}, "Cookie": {"c"},
			"Connection": {"keep-alive, X-Hop"}, "X-Hop": {"h"}, "X-Amz-Date": {"d"}, "Host": {"api.example.com"},
		},
		Process: Process{Binary: "/usr/bin/curl", Pid: 7, Ancestors: []string{"/bin/sh", "/sbin/init"}},
	}
}

func run(t *testing.T, r *Runner, req *Request, list ...policy.Middleware) ([]decisionlog.Middleware, error) {
	t.Helper()
	set, err := r.Prepare(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*policy.Middleware
	for i := range list {
		chain = append(chain, &list[i])
	}
	return set.Run(t.Context(), chain, req, func() error { return nil })
}

// What the service gets is what the request is, and no credential.
func TestServiceSees(t *testing.T) {
	s := &fake.Service{}
	req := request(`{"a":1}`)
	results, err := run(t, runner(t, s, MaxBody), req, guarded)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]decisionlog.Middleware{{Name: "m"}}, results); d != "" {
		t.Error(d)
	}
	e := s.Seen()[0]
	if len(e.Context.RequestID) < 16 {
		t.Errorf("request id %q", e.Context.RequestID)
	}
	e.Context.RequestID = ""
	want := &fake.Evaluation{
		Phase: "SUPERVISOR_MIDDLEWARE_PHASE_PRE_CREDENTIALS", Config: guarded.Config, Body: []byte(`{"a":1}`), MiddlewareName: "guard",
		Headers: []struct{ Name, Value string }{{"content-type", "application/json"}, {"x-two", "b"}, {"x-two", "a"}},
	}
	want.Context.SandboxID = "box"
	want.Context.OriginatingProcess.Binary, want.Context.OriginatingProcess.Pid = "/usr/bin/curl", 7
	want.Context.OriginatingProcess.Ancestors = []string{"/bin/sh", "/sbin/init"}
	want.Target.Scheme, want.Target.Host, want.Target.Port = "https", "api.example.com", 443
	want.Target.Method, want.Target.Path, want.Target.Query = "POST", "/v1/x", "q=1"
	if d := cmp.Diff(want, e); d != "" {
		t.Error(d)
	}
}

func write(name, value, action string) map[string]any {
	return map[string]any{"write": map[string]any{"name": name, "value": value, "onExisting": "EXISTING_HEADER_ACTION_" + action}}
}

func remove(name string) map[string]any {
	return map[string]any{"remove": map[string]any{"name": name}}
}

// with is an answer that allows, and says more.
func with(more fake.Result) fake.Result {
	out := maps.Clone(fake.Allow)
	maps.Copy(out, more)
	return out
}

func TestServiceChanges(t *testing.T) {
	s := &fake.Service{Evaluate: func(context.Context, *fake.Evaluation) (fake.Result, error) {
		return fake.Result{
			"decision": "DECISION_ALLOW", "body": []byte("new"), "hasBody": true,
			"findings": []any{map[string]any{"type": "pii", "count": 3}, map[string]any{"type": "pii"}},
			"headerMutations": []any{
				write("x-openshell-middleware-tag", "one", "APPEND"), write("X-OpenShell-Middleware-Tag", "two", "APPEND"),
				write("x-openshell-middleware-tag2", "one", "OVERWRITE"), write("x-openshell-middleware-tag2", "two", "SKIP"), remove("x-two"),
			},
		}, nil
	}}
	req := request("old")
	results, err := run(t, runner(t, s, MaxBody), req, guarded)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]decisionlog.Middleware{{Name: "m", Changed: true, Findings: 4}}, results); d != "" {
		t.Error(d)
	}
	h := req.Header
	if string(req.Body) != "new" || h["X-Two"] != nil || h.Get("Authorization") == "" ||
		!cmp.Equal(h["X-Openshell-Middleware-Tag"], []string{"one", "two"}) || h.Get("X-Openshell-Middleware-Tag2") != "one" {
		t.Errorf("%s %v", req.Body, h)
	}
}

func TestServiceDenies(t *testing.T) {
	s := &fake.Service{Evaluate: func(context.Context, *fake.Evaluation) (fake.Result, error) {
		return fake.Result{"decision": "DECISION_DENY", "reason": "because of sk-secret", "reasonCode": "content_match"}, nil
	}}
	open := guarded
	open.FailOpen = true
	_, err := run(t, runner(t, s, MaxBody), request("x"), open)
	var denied *DeniedError
	if !errors.As(err, &denied) || *denied != (DeniedError{"m", "content_match"}) {
		t.Errorf("%v", err)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// Each way to fail is refused, or passed over where the policy says so, and named by
// a word of ours.
func TestServiceFails(t *testing.T) {
	mutations := func(m ...any) fake.Result { return with(fake.Result{"headerMutations": m}) }
	many := func(n int, v any) []any {
		out := make([]any, n)
		for i := range out {
			out[i] = v
		}
		return out
	}
	metadata := map[string]any{}
	for i := range maxMetadataEntries + 1 {
		metadata[fmt.Sprint(i)] = "x"
	}
	for name, tc := range map[string]struct {
		result fake.Result
		err    error
		want   string
	}{
		"no decision":     {fake.Result{}, nil, "invalid_response_decision"},
		"error":           {nil, status.Error(codes.Internal, "sk-secret"), "middleware_status_13"},
		"body":            {with(fake.Result{"body": []byte(long(1001)), "hasBody": true}), nil, "response_body_over_capacity"},
		"huge body":       {with(fake.Result{"body": []byte(long(MaxBody + 1)), "hasBody": true}), nil, "response_body_over_capacity"},
		"huge answer":     {with(fake.Result{"body": []byte(long(MaxBody)), "reason": long(400 << 10)}), nil, "response_envelope_over_capacity"},
		"reason":          {with(fake.Result{"reason": long(maxReason + 1)}), nil, "response_reason_over_capacity"},
		"reason code":     {fake.Result{"decision": "DECISION_DENY", "reasonCode": "Not Stable"}, nil, "response_reason_code_invalid"},
		"long code":       {fake.Result{"decision": "DECISION_DENY", "reasonCode": long(maxReasonCode + 1)}, nil, "response_reason_code_invalid"},
		"findings":        {with(fake.Result{"findings": many(maxFindings+1, map[string]any{})}), nil, "response_findings_over_capacity"},
		"finding":         {with(fake.Result{"findings": []any{map[string]any{"label": long(maxFinding)}}}), nil, "response_finding_over_capacity"},
		"metadata":        {with(fake.Result{"metadata": metadata}), nil, "response_metadata_count_over_capacity"},
		"large metadata":  {with(fake.Result{"metadata": map[string]any{"a": long(maxMetadata)}}), nil, "response_metadata_bytes_over_capacity"},
		"many mutations":  {mutations(many(maxMutations+1, remove("x-two"))...), nil, "header_mutation_count_over_capacity"},
		"large mutations": {mutations(many(3, write("x-openshell-middleware-a", long(12<<10), "APPEND"))...), nil, "header_mutation_bytes_over_capacity"},
		"huge mutations":  {mutations(many(6, write("x-openshell-middleware-a", long(12<<10), "APPEND"))...), nil, "header_mutation_bytes_over_capacity"},
		"name":            {mutations(remove("x two")), nil, "header_mutation_invalid_name"},
		"protected":       {mutations(remove("Authorization")), nil, "header_mutation_protected_header"},
		"protected begin": {mutations(remove("x-amz-date")), nil, "header_mutation_protected_header"},
		"hop by hop":      {mutations(remove("x-hop")), nil, "header_mutation_hop_by_hop_header"},
		"namespace":       {mutations(write("x-two", "v", "APPEND")), nil, "header_mutation_write_namespace"},
		"value":           {mutations(write("x-openshell-middleware-a", "a\r\nb: c", "APPEND")), nil, "header_mutation_unsafe_value"},
		"action":          {mutations(write("x-openshell-middleware-a", "v", "UNSPECIFIED")), nil, "header_mutation_invalid_existing_action"},
		"empty mutation":  {mutations(map[string]any{}), nil, "invalid_response"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fake.Service{Evaluate: func(context.Context, *fake.Evaluation) (fake.Result, error) { return tc.result, tc.err }}
			r := runner(t, s, 1000)
			req := request("body")
			before := req.Header.Clone()
			_, err := run(t, r, req, guarded)
			var failed *FailedError
			if !errors.As(err, &failed) || *failed != (FailedError{"m", tc.want}) {
				t.Fatalf("%v, want %s", err, tc.want)
			}
			open := guarded
			open.FailOpen = true
			results, err := run(t, r, req, open)
			if err != nil || results[0].Failed != tc.want || string(req.Body) != "body" || !cmp.Equal(before, req.Header) {
				t.Errorf("%v %v %s %v", results, err, req.Body, req.Header)
			}
		})
	}
}

// A chain sees what came before, stops at a refusal, and asks the policy after each
// change.
func TestChain(t *testing.T) {
	s := &fake.Service{Evaluate: func(_ context.Context, e *fake.Evaluation) (fake.Result, error) {
		return with(fake.Result{"body": append(e.Body, '+'), "hasBody": true}), nil
	}}
	second := guarded
	second.Key = "n"
	redactor := policy.Middleware{Key: "r", Uses: policy.RegexMiddleware}
	req := request("sk-0123456789abcdefXYZ")
	results, err := run(t, runner(t, s, MaxBody), req, redactor, guarded, second)
	if err != nil || string(req.Body) != "[REDACTED]++" || len(results) != 3 {
		t.Errorf("%s %v %v", req.Body, results, err)
	}
	if got := string(s.Seen()[0].Body); got != "[REDACTED]" {
		t.Errorf("the service saw %q", got)
	}
	r := runner(t, s, MaxBody)
	set, err := r.Prepare(t.Context(), []policy.Middleware{guarded, second})
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("no longer")
	results, err = set.Run(t.Context(), []*policy.Middleware{&guarded, &second}, request("x"), func() error { return no })
	if !errors.Is(err, no) || len(results) != 1 {
		t.Errorf("%v %v", results, err)
	}
}

func TestTooMuch(t *testing.T) {
	s := &fake.Service{}
	r := runner(t, s, 4)
	for name, tc := range map[string]struct {
		req  *Request
		want string
	}{
		"longer than the stage's limit": {request("12345"), "request_body_over_capacity"},
		"longer than was read":          {&Request{Over: true}, "request_body_over_capacity"},
		"trailers":                      {&Request{Trailers: true}, "request_trailers"},
		"header lines":                  {&Request{Header: http.Header{"X": make([]string, maxHeaders+1)}}, "request_header_count_over_capacity"},
		"header":                        {&Request{Header: http.Header{"X": {long(maxHeaderBytes)}}}, "request_header_bytes_over_capacity"},
		"header that is no text":        {&Request{Header: http.Header{"X": {"\xff"}}}, "request_header_not_text"},
		"target":                        {&Request{Path: long(maxTarget)}, "request_target_over_capacity"},
		"context":                       {&Request{Process: Process{Binary: long(maxContext)}}, "request_context_over_capacity"},
	} {
		_, err := run(t, r, tc.req, guarded)
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Code != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	if n := len(s.Seen()); n != 0 {
		t.Errorf("the service saw %d requests", n)
	}
}

func TestServiceIsLate(t *testing.T) {
	over := make(chan struct{}) // closed when the caller has its error
	s := &fake.Service{
		Manifest: map[string]any{"bindings": []any{map[string]any{"operation": 1, "phase": 1, "maxBodyBytes": 4 << 20, "timeout": "50ms"}}},
		Evaluate: func(ctx context.Context, _ *fake.Evaluation) (fake.Result, error) {
			<-ctx.Done() // the deadline is the caller's, whose clock may be the later one by a little
			<-over
			return fake.Allow, nil
		},
	}
	began := time.Now()
	_, err := run(t, runner(t, s, MaxBody), request("x"), guarded)
	close(over)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Code != "middleware_timeout" || time.Since(began) > time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// A service that is not there lets a policy be loaded, fails requests, and serves
// once it is there.
func TestServiceComesLater(t *testing.T) {
	l := listen(t)
	address := l.Addr().String()
	_ = l.Close()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	r, err := New(Config{Services: []Service{{Name: "guard", URL: &url.URL{Scheme: "http", Host: "guard.test:1"}, MaxBody: 10}}, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	set, err := r.Prepare(t.Context(), []policy.Middleware{guarded})
	if err != nil {
		t.Fatal(err)
	}
	chain := []*policy.Middleware{&guarded}
	_, err = set.Run(t.Context(), chain, request("x"), nil)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Code != "middleware_unavailable" {
		t.Fatalf("%v", err)
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server, err := (&fake.Service{}).Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	if _, err := set.Run(t.Context(), chain, request("x"), nil); err != nil {
		t.Error(err)
	}
}

func TestPrepareRefuses(t *testing.T) {
	r := runner(t, &fake.Service{Validate: func(c map[string]any) (bool, string) {
		return c["s"] == nil, "s is not\nknown"
	}}, MaxBody)
	for name, tc := range map[string]struct {
		m    policy.Middleware
		want string
	}{
		"unknown": {policy.Middleware{Key: "m", Uses: "other"}, "middleware config 'm': no service 'other' is registered in the operator's configuration (middlewares)"},
		"refused": {guarded, `network_middlewares.m.config (line 0): service 'guard' refuses it: "s is not\nknown"`},
		"pattern": {policy.Middleware{Key: "m", Uses: policy.RegexMiddleware, Patterns: []string{"("}}, "middleware config 'm': pattern \"(\": error parsing regexp: missing closing ): `(`"},
	} {
		if _, err := r.Prepare(t.Context(), []policy.Middleware{tc.m}); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Prepare(t.Context(), []policy.Middleware{{Key: "m", Uses: "guard"}}); err != nil {
		t.Error(err)
	}
}

// A service that describes itself wrongly is as one that is not there.
func TestManifest(t *testing.T) {
	usual := map[string]any{"operation": 1, "phase": 1, "maxBodyBytes": 1000}
	change := func(k string, v any) map[string]any {
		out := maps.Clone(usual)
		out[k] = v
		return out
	}
	for name, bindings := range map[string][]any{
		"none": {}, "other phase": {change("phase", 0)}, "twice": {usual, usual}, "smaller": {change("maxBodyBytes", 999)},
		"too large": {change("maxBodyBytes", MaxBody+1)}, "timeout": {change("timeout", "1m")}, "short timeout": {change("timeout", "9ms")},
	} {
		r := runner(t, &fake.Service{Manifest: map[string]any{"bindings": bindings}}, 1000)
		_, err := run(t, r, request("x"), guarded)
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Code != "binding_not_described" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What a newer service can do besides is not asked for.
	r := runner(t, &fake.Service{Manifest: map[string]any{"bindings": []any{change("timeout", "30s"), change("operation", 2)}}}, 1000)
	if _, err := run(t, r, request("x"), guarded); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	u := &url.URL{Scheme: "https", Host: "a"}
	for _, s := range []Service{
		{URL: nil, MaxBody: 1},
		{URL: &url.URL{Scheme: "ftp", Host: "a"}, MaxBody: 1},
		{URL: u},
		{URL: u, MaxBody: MaxBody + 1},
		{URL: u, MaxBody: 1, Timeout: time.Millisecond},
		{URL: u, MaxBody: 1, Timeout: time.Minute},
	} {
		if _, err := New(Config{Services: []Service{s}}); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
}

func TestEnter(t *testing.T) {
	r := runner(t, &fake.Service{}, 10)
	var leave []func()
	for range maxRunning {
		l, err := r.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan error, maxWaiting)
	for range maxWaiting {
		go func() {
			_, err := r.Enter(ctx)
			entered <- err
		}()
	}
	if !testenv.Eventually(10*time.Second, func() bool { return r.waiting.Load() == maxWaiting }) {
		t.Fatalf("%d wait, want %d", r.waiting.Load(), maxWaiting)
	}
	if _, err := r.Enter(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	leave[0]()
	if err := <-entered; err != nil {
		t.Error(err)
	}
	cancel()
	for range maxWaiting - 1 {
		if err := <-entered; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
