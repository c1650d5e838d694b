// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// spelling is one request, in some spelling, to a host whose rules refuse or allow some
// paths.
type spelling struct {
	method, target string
	// header is further fields, each with its line end.
	header string
	// want is the target that the server receives; empty if the request must not
	// reach it.
	want string
}

// send sends the request to api.example.com, over HTTP/1 without TLS or over HTTP/2. The
// body is empty over HTTP/2.
func (s spelling) send(t *testing.T, w *world, proto string) (status int, body string) {
	t.Helper()
	if proto == "h2" {
		change := []string{":method", s.method, ":path", s.target}
		for _, line := range strings.Split(strings.TrimSuffix(s.header, "\r\n"), "\r\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				change = append(change, strings.ToLower(name), value)
			}
		}
		return newFramer(t, w).get(change...), ""
	}
	resp, body := ask(t, w.tunnel("api.example.com:80"), fmt.Sprintf("%s %s HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n%s\r\n", s.method, s.target, s.header))
	return resp.StatusCode, body
}

// spelled sends each request over HTTP/1 and over HTTP/2 and asserts on what the
// server received.
func spelled(t *testing.T, rules string, list []spelling) {
	w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce, "+rules))
	plain, secure := w.both(nil, "h2")
	for _, tc := range list {
		t.Run(strings.TrimSpace(tc.method+" "+tc.target+" "+tc.header), func(t *testing.T) {
			for proto, site := range map[string]*site{"http/1.1": plain, "h2": secure} {
				before := len(plain.got()) + len(secure.got())
				status, body := tc.send(t, w, proto)
				if name, _, ok := strings.Cut(tc.header, ":"); ok && tc.want == "" && proto != "h2" && !strings.Contains(strings.ToLower(body), strings.ToLower(name)) {
					t.Errorf("%s: the reason does not name the header: %s", proto, body)
				}
				arrived := len(plain.got()) + len(secure.got()) - before
				if tc.want == "" {
					if status == 200 || arrived != 0 {
						t.Errorf("%s: %d, %d requests arrived", proto, status, arrived)
					}
					continue
				}
				if status != 200 || arrived != 1 {
					t.Errorf("%s: %d, %d requests arrived", proto, status, arrived)
					continue
				}
				if got := site.got()[len(site.got())-1].URI; got != tc.want {
					t.Errorf("%s: the server received %q, want %q", proto, got, tc.want)
				}
			}
		})
	}
}

// TestBypass_B79_EncodedPaths: an escape of a character that may stand unescaped is
// that character, in requests and in patterns, and the server receives the spelling
// that was judged.
func TestBypass_B79_EncodedPaths(t *testing.T) {
	t.Run("deny", func(t *testing.T) {
		list := []spelling{
			{"GET", "/users/bob", "", "/users/bob"}, // the control
			{"GET", "/users/%40bob", "", "/users/@bob"},
			{"GET", "/users/@alice", "", ""},
			{"GET", "/users/%40alice", "", ""},
			{"GET", "/users/%2540alice", "", "/users/%2540alice"}, // is not decoded twice, here or there
			{"POST", "/v1/projects/x%3AsetIamPolicy", "", ""},
			{"POST", "/v1/projects/x%3asetIamPolicy", "", ""},
			{"POST", "/v1/projects/x%3AgetIamPolicy", "", "/v1/projects/x:getIamPolicy"},
			{"GET", "/a/..%3B/secret", "", ""},
			{"GET", "/a/..;/secret", "", ""},
			{"GET", "/secret%3Bx=y", "", ""},
			{"GET", "/secret;x=y", "", ""},
			{"GET", "/caf%c3%a9", "", ""},
			{"GET", "/caf%65", "", "/cafe"},
			{"GET", "/x[1]", "", ""},
			{"GET", "/x%5B1%5d", "", ""},
			{"GET", "/x[2]", "", "/x%5B2%5D"},
			{"GET", "/star/%2A", "", ""},
			{"GET", "/star/*", "", ""},
			{"GET", "/star/a", "", "/star/a"},
		}
		for _, c := range "!$&'()*+,=:@" {
			list = append(list,
				spelling{"GET", fmt.Sprintf("/sub/%%%02X", c), "", ""},
				spelling{"GET", fmt.Sprintf("/sub/%c", c), "", ""},
				spelling{"GET", fmt.Sprintf("/sub/%%%02xx", c), "", fmt.Sprintf("/sub/%cx", c)})
		}
		spelled(t, `access: full, deny_rules: [{method: GET, path: "/users/@alice"}, {method: POST, path: "/v1/projects/*:setIamPolicy"}, {method: GET, path: /secret},
			{method: GET, path: "/café"}, {method: GET, path: '/x\[1\]'}, {method: GET, path: "/star/%2a"}, {method: GET, path: "/sub/?"}]`, list)
	})
	t.Run("allow", func(t *testing.T) {
		spelled(t, `rules: [{allow: {method: GET, path: "/@anthropic-ai/*"}}, {allow: {method: GET, path: "/%40types/*"}}, {allow: {method: GET, path: "/größe"}}]`, []spelling{
			{"GET", "/@anthropic-ai/sdk", "", "/@anthropic-ai/sdk"},
			{"GET", "/%40anthropic-ai/sdk", "", "/@anthropic-ai/sdk"},
			{"GET", "/@types/node", "", "/@types/node"},
			{"GET", "/%40types/node", "", "/@types/node"},
			{"GET", "/gr%C3%B6%c3%9fe", "", "/gr%C3%B6%C3%9Fe"},
			{"GET", "/%2540types/node", "", ""},
			{"GET", "/@types/node/x", "", ""},
			{"GET", "/@types/node/", "", ""}, // allow rules do not widen
		})
	})
	t.Run("endpoints by path", func(t *testing.T) {
		w := newWorld(t, endpoints(
			"host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce, path: \"/@admin/**\", rules: [{allow: {method: GET, path: \"/@admin/public\"}}]",
			"host: api.example.com, ports: [80, 443], protocol: rest, enforcement: audit, path: \"/**\", rules: [{allow: {method: GET, path: /x}}]"))
		plain, _ := w.both(nil, "h2")
		for target, want := range map[string]int{"/@admin/x": 403, "/%40admin/x": 403, "/%40admin": 403, "/%40admin/": 403, "/y": 200} {
			if status, _ := (spelling{method: "GET", target: target}).send(t, w, "http/1.1"); status != want {
				t.Errorf("%s: %d, want %d", target, status, want)
			}
		}
		if got := plain.got(); len(got) != 1 || got[0].URI != "/y" {
			t.Errorf("the server received %v", got)
		}
	})
}

// TestBypass_B79_DenyRulesCoverSiblings: a deny rule covers the path with a trailing
// slash, and the base of a closing /**.
func TestBypass_B79_DenyRulesCoverSiblings(t *testing.T) {
	spelled(t, `access: full, deny_rules: [{method: "*", path: /users/alice}, {method: "*", path: "/repo/**"}, {method: "*", path: "/orgs/*"}, {method: "*", path: /dir/}]`, []spelling{
		{"GET", "/users/alicia", "", "/users/alicia"},
		{"GET", "/users/alice/keys", "", "/users/alice/keys"},
		{"GET", "/users/alice", "", ""},
		{"GET", "/users/alice/", "", ""},
		{"GET", "/users/alice/.", "", ""},
		{"GET", "/users/alice//", "", ""},
		{"GET", "/users/alice/;x", "", ""},
		{"GET", "/users/alice/x/..", "", ""},
		{"GET", "/repo", "", ""},
		{"GET", "/repo/", "", ""},
		{"GET", "/repo/x", "", ""},
		{"GET", "/repository", "", "/repository"},
		{"GET", "/orgs/acme/", "", ""},
		{"GET", "/orgs", "", "/orgs"},
		{"GET", "/dir", "", ""},
	})
}

// TestBypass_B79_EncodedSlashesReachNoDeniedPath: where %2F is kept, a deny rule covers
// it as a slash, too.
func TestBypass_B79_EncodedSlashesReachNoDeniedPath(t *testing.T) {
	spelled(t, `allow_encoded_slash: true, access: full, deny_rules: [{method: "*", path: /users/alice}, {method: "*", path: "/repo/**"}]`, []spelling{
		{"GET", "/users%2fbob", "", "/users%2Fbob"},
		{"GET", "/users%2Falice", "", ""},
		{"GET", "/users%2falice", "", ""},
		{"GET", "/users/alice%2F", "", ""},
		{"GET", "/%2Fusers/alice", "", ""},
		{"GET", "/repo%2Fx", "", ""},
	})
}

// TestBypass_B79_LineBreaksInQueries: an encoded tab or line break passes unchanged where
// no rule reads the query; other control bytes do not.
func TestBypass_B79_LineBreaksInQueries(t *testing.T) {
	spelled(t, `access: full, deny_rules: [{method: "*", path: /secret}]`, []spelling{
		{"GET", "/a?query=%7B%0A%09viewer%0d%0a%7D", "", "/a?query=%7B%0A%09viewer%0d%0a%7D"},
		{"GET", "/a?q=%00", "", ""},
		{"GET", "/a?q=%1b", "", ""},
		{"GET", "/a?q=a%0A%7f", "", ""},
	})
}

// TestBypass_B79_Queries: a deny rule about a parameter covers every name that servers
// read as that parameter; an allow rule covers its own name only.
func TestBypass_B79_Queries(t *testing.T) {
	t.Run("deny", func(t *testing.T) {
		spelled(t, `access: full, deny_rules: [{method: "*", path: "**", query: {force: "true"}}, {method: "*", path: "**", query: {city: "köln"}}]`, []spelling{
			{"GET", "/a?force=false", "", "/a?force=false"},
			{"GET", "/a?force=true", "", ""},
			{"GET", "/a?forc%65=tru%65", "", ""},
			{"GET", "/a?x=1;force=true", "", ""},
			{"GET", "/a?force[]=true", "", ""},
			{"GET", "/a?force%5B0%5D=true", "", ""},
			{"GET", "/a?Force=true", "", ""},
			{"GET", "/a?[force]=true", "", ""},
			{"GET", "/a?%5Bforce%5D=true", "", ""},
			{"GET", "/a?]force=true", "", ""},
			{"GET", "/a?force]=true", "", ""},
			{"GET", "/a?[force]=false", "", "/a?[force]=false"},
			{"GET", "/a?force=false&force=true", "", ""},
			{"GET", "/a?force=%2574rue", "", ""},
			{"GET", "/a?city=k%C3%B6ln", "", ""},
			{"GET", "/a?city=bonn", "", "/a?city=bonn"},
			{"GET", "/a?x=%00", "", ""},
			{"GET", "/a?x=a%0ab", "", ""},
			{"GET", "/a?x%7f=a", "", ""},
		})
	})
	t.Run("allow", func(t *testing.T) {
		spelled(t, `rules: [{allow: {method: GET, path: /a, query: {service: git-upload-pack}}}, {allow: {method: GET, path: /b, query: {q: "café"}}}, {allow: {method: GET, path: /c, query: {q: "caf%C3%A9"}}}]`, []spelling{
			{"GET", "/a?service=git-upload-pack", "", "/a?service=git-upload-pack"},
			{"GET", "/a?x=1;service=git-receive-pack&service=git-upload-pack", "", ""},
			{"GET", "/a?service=git-upload-pack&service[]=git-receive-pack", "", ""},
			{"GET", "/a?service=git-upload-pack&Service=git-receive-pack", "", ""},
			{"GET", "/a?service=git-upload-pack&[service]=git-receive-pack", "", ""},
			{"GET", "/a?service=git-upload-pack&x=%0A", "", ""},
			{"GET", "/a?Service=git-upload-pack", "", ""},
			{"GET", "/a?service[]=git-upload-pack", "", ""},
			{"GET", "/b?q=caf%C3%A9", "", "/b?q=caf%C3%A9"},
			{"GET", "/b?q=caf%c3%a9", "", "/b?q=caf%c3%a9"},
			{"GET", "/c?q=caf%C3%A9", "", "/c?q=caf%C3%A9"},
			{"GET", "/b?q=caf%E9", "", ""},
			{"GET", "/b?q=cafe", "", ""},
		})
	})
}

// TestBypass_B79_Overrides: a header or parameter that some servers take for the
// method or the path must itself be allowed.
func TestBypass_B79_Overrides(t *testing.T) {
	const open = "/open/x"
	list := []spelling{
		{"POST", open, "X-HTTP-Method-Override: GET\r\n", open},
		{"POST", open, "X-HTTP-Method-Override: DELETE\r\n", ""},
		{"POST", open, "X-HTTP-Method-Override: delete\r\n", ""},
		{"POST", open, "X-HTTP-Method-Override: GET\r\nX-HTTP-Method-Override: DELETE\r\n", ""},
		{"POST", open, "X-HTTP-Method-Override: GET, DELETE\r\n", ""},
		{"POST", open, "X_HTTP_Method_Override: DELETE\r\n", ""},
		{"POST", open, "x-http_method-OVERRIDE: DELETE\r\n", ""},
		{"POST", open, "X-HTTP-Method: DELETE\r\n", ""},
		{"POST", open, "X-Method-Override: DELETE\r\n", ""},
		{"POST", open + "?_method=delete", "", ""},
		{"POST", open + "?%5fmethod=DELETE", "", ""},
		{"POST", open + "?a=b;_method=DELETE", "", ""},
		{"POST", open + "?[_method]=DELETE", "", ""},
		{"POST", open + "?_method=GET", "", open + "?_method=GET"},
		{"POST", open + "?%24httpMethod=DELETE", "", ""},
		{"GET", open, "X-Original-URL: /open/y\r\n", open},
		{"GET", open, "X-Original-URL: https://api.example.com/open/y?z\r\n", open},
		{"GET", open, "X-Original-URL: /secret\r\n", ""},
		{"GET", open, "X-Original-URL: /open/%2e%2e/secret\r\n", ""},
		{"GET", open, "X-Original-URL: https://api.example.com/secret\r\n", ""},
		{"GET", open, "X-Original-URL: secret\r\n", ""},
		{"GET", open, "X-Rewrite-URL: /%73ecret\r\n", ""},
		{"GET", open, "X_Rewrite_Url: /secret\r\n", ""},
		{"GET", open, "X-Original-URL: /open/y?force=true\r\n", ""},
		{"GET", open, "X-Forwarded-Uri: /secret\r\n", ""},
		{"GET", "/both/x", "X-HTTP-Method-Override: POST\r\nX-Rewrite-URL: /both/y\r\n", ""},
		{"GET", open, "X-Forwarded-For: 10.0.0.1\r\n", open},
	}
	spelled(t, `rules: [{allow: {method: GET, path: "/open/**"}}, {allow: {method: POST, path: "/open/**"}},
		{allow: {method: GET, path: "/both/*"}}, {allow: {method: POST, path: /both/x}}], deny_rules: [{method: GET, path: "**", query: {force: "true"}}]`, list)
	// Where rules judge nothing, the fields are the server's own business.
	w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443]"))
	plain, _ := w.both(nil, "h2")
	override := spelling{method: "GET", target: "/a", header: "X-HTTP-Method-Override: DELETE\r\n"}
	if status, _ := override.send(t, w, "http/1.1"); status != 200 || len(plain.got()) != 1 {
		t.Errorf("without rules: %d, %d requests arrived", status, len(plain.got()))
	}
}

// TestBypass_B79_OverridesAfterReload: after a reload a request in flight is judged
// again, and its overrides are, too.
func TestBypass_B79_OverridesAfterReload(t *testing.T) {
	for _, more := range []string{"", "X-HTTP-Method-Override: DELETE\r\n"} {
		const rules = "host: api.example.com, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /a}}, {allow: {method: DELETE, path: /a}}]"
		w := newWorld(t, endpoints(rules))
		arrived, goOn := make(chan struct{}), make(chan struct{})
		w.site("api.example.com", 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}))
		c := w.tunnel("api.example.com:80")
		fmt.Fprintf(c, "POST /a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n%s\r\n", more)
		<-arrived
		w.load(endpoints(strings.Replace(rules, "DELETE", "PUT", 1)))
		if more == "" { // the control
			close(goOn)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if answered := err == nil && resp.StatusCode == 200; answered != (more == "") {
			t.Errorf("%q: %v, %v", more, resp, err)
		}
	}
}
