// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/integration/middleware"
	"openshell.dev/runtime/internal/decisionlog"
)

const middlewarePolicy = `version: 1
filesystem_policy: {read_only: [/bin, /etc, /proc], read_write: [/tmp]}
network_policies:
  api:
    endpoints:
      - {host: api.test, port: 443, protocol: rest, enforcement: enforce, access: full}
      - {host: plain.test, port: 443}
      - {host: denied.test, port: 443}
      - {host: raw.test, port: 7000}
    binaries: [{path: /bin/probe}]
`

const middlewareEntries = `network_middlewares:
  redact:
    middleware: openshell/regex
    order: 10
    config: {mode: redact, patterns: ["employee-[0-9]{4}"]}
    endpoints: {include: ["*.test", "inference.local"], exclude: ["denied.test"]}
  guard:
    middleware: local-guard
    order: 20
    config: {level: 3}
    endpoints: {include: [api.test, inference.local]}
`

// TestMiddlewares: in a real sandbox, what a policy's middlewares look for does not
// reach the upstream or the model, what a service denies does not either, and what
// they cannot see does not pass; without them it all does.
func TestMiddlewares(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	guard := &middleware.Service{Evaluate: func(_ context.Context, e *middleware.Evaluation) (middleware.Result, error) {
		if bytes.Contains(e.Body, []byte("forbidden")) {
			return middleware.Result{"decision": "DECISION_DENY", "reasonCode": "content_match"}, nil
		}
		return middleware.Allow, nil
	}}
	server, err := guard.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()

	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: middlewarePolicy + middlewareEntries, up: up})
	routes := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\"}]\n")
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("inference_file: %s\nmiddlewares: [{name: local-guard, grpc_endpoint: \"http://host.openshell.internal:%d\", allow_insecure_transport: true, max_body_bytes: 65536, timeout: 2s}]\n", routes, l.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(b.config, append(config, more...), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	const leak, chat = `{"text":"I am employee-1234, \u0073k-0123456789abcdefXYZ"}`, `{"model":"m","messages":[{"role":"user","content":"employee-1234"}]}`
	for _, tc := range []struct {
		name, method, url, body string
		prints, arrives         string
	}{
		{"judged", "POST", "https://api.test/x", leak, "200 ", `body={"text":"I am [REDACTED], [REDACTED]"}`},
		{"not judged", "POST", "https://plain.test/x", leak, "200 ", `body={"text":"I am [REDACTED], [REDACTED]"}`},
		{"control: a host that is excluded", "POST", "https://denied.test/x", leak, "200 ", "body=" + leak},
		{"denied by the service", "POST", "https://api.test/x", "forbidden", `403 {"error":"middleware_denied","detail":"Request rejected by configured middleware","policy":"api","middleware":"guard","reason_code":"content_match"}`, ""},
		{"control: not asked there", "POST", "https://plain.test/x", "forbidden", "200 ", "body=forbidden"},
		{"too long for the service", "POST", "https://api.test/x", strings.Repeat("x", 65537), `403 {"error":"middleware_failed"`, ""},
		{"the model", "POST", "https://inference.local/v1/chat/completions", chat, "", `"content":"[REDACTED]"`},
		{"the model, denied", "POST", "https://inference.local/v1/chat/completions", strings.Replace(chat, "employee-1234", "forbidden", 1), `403 {"error":{"message":"denied by middleware guard: content_match"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h.take()
			out := b.at(t).exec("/bin/probe", "http", tc.method, tc.url, tc.body)
			got := h.take()
			if !strings.Contains(out, tc.prints) {
				t.Errorf("printed %.300q, want …%q…", out, tc.prints)
			}
			if tc.arrives == "" && got != "" || !strings.Contains(got, tc.arrives) {
				t.Errorf("arrived %.300q, want …%q…", got, tc.arrives)
			}
		})
	}
	e := guard.Seen()[0]
	if e.Context.SandboxID != b.id || e.Context.OriginatingProcess.Binary != "/bin/probe" || e.Config["level"] != 3.0 || e.Target.Host != "api.test" {
		t.Errorf("the service saw %+v", e)
	}
	b.record("what was found", func(r decisionlog.Record) bool {
		return r.Host == "plain.test" && len(r.Middlewares) == 1 && r.Middlewares[0] == decisionlog.Middleware{Name: "redact", Changed: true, Findings: 2}
	})
	b.record("a call of the model that was changed", func(r decisionlog.Record) bool {
		return r.Layer == "inference" && len(r.Middlewares) == 2 && r.Middlewares[0].Changed
	})
	// Raw TCP is nothing that they see. The control is the same after a reload.
	echo := []string{"/bin/probe", "dial", "tcp", "raw.test:7000"}
	if out := b.exec(echo...); !strings.HasPrefix(out, "error: ") {
		t.Errorf("raw TCP passes middlewares: %q", out)
	}
	set := func(name, policy string) (string, int) {
		return b.cli("policy", "set", b.id, "--policy", b.file(name, policy))
	}
	if out, status := set("open.yaml", middlewarePolicy); status != 0 {
		t.Fatalf("policy set: %d: %s", status, out)
	}
	if out := b.exec(echo...); strings.HasPrefix(out, "error: ") {
		t.Errorf("without middlewares: %q", out)
	}
	out, status := set("unknown.yaml", middlewarePolicy+strings.Replace(middlewareEntries, "local-guard", "other-guard", 1))
	if status != 3 || !strings.Contains(out, "no service 'other-guard' is registered") {
		t.Errorf("policy set: %d: %s", status, out)
	}
}

// TestMiddlewareRefusesConfig: what a service says no to is not created, and nothing of
// the image runs; what it accepts is, and so is what it does not answer to.
func TestMiddlewareRefusesConfig(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepts := false
	service := &middleware.Service{Validate: func(map[string]any) (bool, string) { return accepts, "level is at most 2" }}
	server, err := service.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: middlewarePolicy + middlewareEntries, up: up, argv: []string{"/bin/probe", "http", "POST", "https://denied.test/x", "ran"}})
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("middlewares: [{name: local-guard, grpc_endpoint: \"http://127.0.0.1:%d\", allow_insecure_transport: true, max_body_bytes: 65536, timeout: 2s}]\n", l.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(b.config, append(config, more...), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := b.runtime("run", "--bundle", b.dir, b.id)
	if got := h.take(); err == nil || got != "" || !strings.Contains(out, "network_middlewares.guard.config (line 17): service 'local-guard' refuses it: ") || !strings.Contains(out, "level is at most 2") {
		t.Errorf("%v: %s; arrived %q", err, out, got)
	}
	b.gone()
	if left, err := os.ReadDir(filepath.Dir(b.stateDir())); err == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	accepts = true
	if out, err := b.runtime("run", "--bundle", b.dir, b.id); err != nil || !strings.Contains(h.take(), "body=ran") {
		t.Errorf("what is accepted: %v: %s", err, out)
	}
	server.Stop()
	if out, err := b.runtime("run", "--bundle", b.dir, b.id); err != nil || !strings.Contains(h.take(), "body=ran") {
		t.Errorf("when nobody answers: %v: %s", err, out)
	}
}
