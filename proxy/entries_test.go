// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

var discard = log.New(io.Discard, "", 0)

const apiRules = `host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce,
        rules: [{allow: {method: GET, path: "/public/**"}}, {allow: {method: POST, path: "/items"}},
                {allow: {method: GET, path: "/search", query: {q: "a*"}}}],
        deny_rules: [{method: GET, path: "/public/secret"}]`

func TestBypass_B4_EveryEntryGivesTheSameVerdict(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(apiRules))
			plain, secure := w.both(nil, "h2", "http/1.1")
			c := e.client(w)
			for _, tc := range []struct {
				name, method, rest string
				want               int
			}{
				{"allowed", "GET", "/public/x", 200},
				{"GET is HEAD", "HEAD", "/public/x", 200},
				{"other method", "DELETE", "/public/x", 403},
				{"other path", "GET", "/private", 403},
				{"deny rule", "GET", "/public/secret", 403},
				{"deny rule, other spelling", "GET", "/public/./%73ecret", 403},
				{"up and out", "GET", "/public/../private", 403},
				{"query", "GET", "/search?q=abc", 200},
				{"wrong query", "GET", "/search?q=b", 403},
				{"query twice, one wrong", "GET", "/search?q=abc&q=b", 403},
				{"POST", "POST", "/items", 200},
				{"no path of the policy", "POST", "/items/1", 403},
			} {
				t.Run(tc.name, func(t *testing.T) {
					before, noted := len(plain.got())+len(secure.got()), len(w.log.all())
					resp, body := get(t, c, tc.method, e.url(tc.rest), nil)
					if resp.StatusCode != tc.want {
						t.Errorf("status %d, want %d: %s", resp.StatusCode, tc.want, body)
					}
					if resp.Proto != e.proto {
						t.Errorf("spoke %s, want %s", resp.Proto, e.proto)
					}
					arrived := len(plain.got()) + len(secure.got()) - before
					if want := map[int]int{200: 1, 403: 0}[tc.want]; arrived != want {
						t.Errorf("%d requests arrived, want %d", arrived, want)
					}
					last := w.recorded(noted)
					if want := map[int]string{200: "allow", 403: "deny"}[tc.want]; last.Verdict != want || last.Binary != curl || last.Policy != "web" {
						t.Errorf("recorded %+v, want %s", last, want)
					}
				})
			}
		})
	}
}

func TestAuditForwardsAndSaysSo(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(`host: api.example.com, ports: [80, 443], protocol: rest, enforcement: audit, rules: [{allow: {method: GET, path: /a}}]`))
			w.both(nil, "h2", "http/1.1")
			if resp, _ := get(t, e.client(w), "DELETE", e.url("/b"), nil); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			last := w.recorded(0)
			if last.Verdict != "audit" || last.Reason == "" || last.Status != 200 || last.Method != "DELETE" || last.Address != "93.184.216.34" {
				t.Errorf("recorded %+v", last)
			}
		})
	}
}

// TestRefusedAddressIsRecorded: the record of a name whose address the policy refuses has
// the address.
func TestRefusedAddressIsRecorded(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(`host: api.example.com, ports: [80, 443], protocol: rest, access: full, allowed_ips: [10.9.0.0/16]`))
			// A refused CONNECT is an error of the client.
			if resp, err := e.client(w).Get(e.url("/a")); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode != 403 {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
			if last := w.recorded(0); last.Verdict != "deny" || last.Address != "93.184.216.34" {
				t.Errorf("recorded %+v", last)
			}
			if d := w.dials(); len(d) > 0 {
				t.Errorf("dialled %v", d)
			}
		})
	}
	w := newWorld(t, endpoints("host: '*.wild.test', port: 80"))
	if status, head := connect(t, w.dial(), "mixed.wild.test:80"); status != 403 {
		t.Errorf("%s", head)
	}
	if last := w.recorded(0); last.Address != "10.0.0.5" {
		t.Errorf("of several addresses: recorded %+v", last)
	}
}

func TestErrorBodies(t *testing.T) {
	w := newWorld(t, endpoints(apiRules,
		"host: '*.wild.test', port: 80", "host: down.example.org, ports: [80, 6443]",
		"host: raw.example.com, port: 80, allowed_ips: [10.9.0.0/16]"))
	w.both(nil, "http/1.1")
	inTunnel := "CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\n"
	for _, tc := range []struct {
		name, text string
		status     int
		policy     string
		body       map[string]any
	}{
		{"CONNECT to what no policy has", "CONNECT evil.example.net:443 HTTP/1.1\r\nHost: evil.example.net:443\r\n\r\n", 403, "", map[string]any{
			"error": "policy_denied", "detail": "CONNECT evil.example.net:443 not permitted by policy", "reason": "endpoint evil.example.net:443 is not allowed by any policy",
		}},
		{"absolute form to what no policy has", "GET http://evil.example.net/x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", 403, "", map[string]any{
			"error": "policy_denied", "detail": "GET evil.example.net:80/x not permitted by policy", "reason": "endpoint evil.example.net:80 is not allowed by any policy",
		}},
		{"rule, in a tunnel", inTunnel + "PUT /public/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 403, "web", map[string]any{
			"error": "policy_denied", "policy": "web", "rule": "PUT /public/x", "detail": "PUT /public/x not permitted by policy",
			"layer": "l7", "protocol": "rest", "method": "PUT", "path": "/public/x", "host": "api.example.com", "port": 80.0, "binary": curl,
			"rule_missing": map[string]any{"type": "rest_allow", "host": "api.example.com", "port": 80.0, "method": "PUT", "path": "/public/x", "binary": curl},
			"next_steps":   []any{"This request is outside the sandbox's policy. Ask whoever runs the sandbox to allow it; trying again, another tool or another way does not change the answer."},
		}},
		{"deny rule, in a tunnel", inTunnel + "GET /public/secret HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 403, "web", map[string]any{
			"error": "policy_denied", "policy": "web", "rule": "GET /public/secret", "detail": "GET /public/secret blocked by deny rule",
			"layer": "l7", "protocol": "rest", "method": "GET", "path": "/public/secret", "host": "api.example.com", "port": 80.0, "binary": curl,
			"next_steps": []any{"This request is outside the sandbox's policy. Ask whoever runs the sandbox to allow it; trying again, another tool or another way does not change the answer."},
		}},
		{"rule, absolute form", "PUT http://api.example.com/public/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 403, "web", map[string]any{
			"error": "policy_denied", "detail": "PUT api.example.com:80/public/x denied by L7 policy: PUT /public/x not permitted by policy",
		}},
		{"private address behind a wildcard", "CONNECT mixed.wild.test:80 HTTP/1.1\r\nHost: mixed.wild.test:80\r\n\r\n", 403, "", map[string]any{
			"error": "ssrf_denied", "detail": "CONNECT mixed.wild.test:80 blocked: internal address",
		}},
		{"address outside allowed_ips", "GET http://raw.example.com/ HTTP/1.1\r\nHost: raw.example.com\r\n\r\n", 403, "", map[string]any{
			"error": "ssrf_denied", "detail": "GET raw.example.com:80 blocked: allowed_ips check failed",
		}},
		{"CONNECT to a control-plane port", "CONNECT down.example.org:6443 HTTP/1.1\r\nHost: down.example.org:6443\r\n\r\n", 403, "", map[string]any{
			"error": "ssrf_denied", "detail": "CONNECT down.example.org:6443 not permitted by policy", "reason": "port 6443 is a blocked control-plane port, connection rejected",
		}},
		{"absolute form to a control-plane port", "GET http://down.example.org:6443/ HTTP/1.1\r\nHost: down.example.org:6443\r\n\r\n", 403, "", map[string]any{
			"error": "ssrf_denied", "detail": "GET down.example.org:6443/ not permitted by policy", "reason": "port 6443 is a blocked control-plane port, connection rejected",
		}},
		{"nobody there", "GET http://down.example.org/ HTTP/1.1\r\nHost: down.example.org\r\n\r\n", 502, "", map[string]any{
			"error": "upstream_unreachable", "detail": "GET down.example.org:80: the name does not resolve",
		}},
		{"https in absolute form to what no policy has", "GET https://evil.example.net/x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", 403, "", map[string]any{
			"error": "policy_denied", "detail": "GET evil.example.net:443/x not permitted by policy", "reason": "endpoint evil.example.net:443 is not allowed by any policy",
		}},
		{"another scheme in absolute form", "GET ftp://api.example.com/public/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 400, "", map[string]any{
			"error": "invalid_request", "detail": "ambiguous or malformed request head: the target is neither a path nor an http or https URL",
		}},
		{"other authority in a tunnel", inTunnel + "GET /public/x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", 403, "", map[string]any{
			"error": "request_authority_mismatch", "detail": `request names "evil.example.net", the connection is for api.example.com:80`,
		}},
		{"path above the root", inTunnel + "GET /../x HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 400, "", map[string]any{
			"error": "invalid_request_target", "detail": `path "/../x": leads above the root`,
		}},
		{"malformed", "GET http://api.example.com/ HTTP/1.1\r\nHost : api.example.com\r\n\r\n", 400, "", map[string]any{
			"error": "invalid_request", "detail": "ambiguous or malformed request head: a line is no field: folded, without a colon, or with a space or another odd byte in its name",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := w.dial()
			text := tc.text
			if rest, ok := strings.CutPrefix(text, inTunnel); ok {
				c, text = w.tunnel("api.example.com:80"), rest
			}
			resp, body := ask(t, c, text)
			if resp.StatusCode != tc.status || resp.Header.Get("X-OpenShell-Policy") != tc.policy ||
				resp.Header.Get("Content-Type") != "application/json" || !resp.Close {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(body), &got); err != nil || !reflect.DeepEqual(got, tc.body) {
				t.Errorf("%v\n got %v\nwant %v", err, got, tc.body)
			}
			if n, _ := c.Read(make([]byte, 1)); n != 0 {
				t.Error("the connection goes on")
			}
		})
	}
}

func TestRefusedTLSIsToldWhy(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 443"))
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			resp, body := get(t, w.client(w.bySynthetic, proto), http.MethodGet, "https://evil.example.net/x", nil)
			if resp.StatusCode != 403 || !strings.Contains(body, "TLS evil.example.net:443 not permitted by policy") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if d := w.dials(); len(d) > 0 {
				t.Errorf("dialled %v", d)
			}
		})
	}
}

func TestSeveralHoldersMustAllBeAllowed(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(apiRules))
			plain, secure := w.both(nil, "h2", "http/1.1")
			w.id.set(nil, curl, "/tmp/evil")
			c := e.client(w)
			req, _ := http.NewRequest("GET", e.url("/public/x"), nil)
			resp, err := c.Do(req)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != 403 {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
			if n := len(plain.got()) + len(secure.got()); n > 0 || len(w.dials()) > 0 {
				t.Errorf("%d requests arrived, dialled %v", n, w.dials())
			}
			if last := w.recorded(0); last.Binary != "/tmp/evil" || last.Verdict != "deny" {
				t.Errorf("recorded %+v", last)
			}
		})
	}
}
