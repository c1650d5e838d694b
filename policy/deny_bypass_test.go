// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

// bypassPolicy decides requests to a host with these endpoints.
func bypassPolicy(t *testing.T, endpoints string) func(method, path, query string) Verdict {
	t.Helper()
	p, err := Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    binaries: [/b]\n    endpoints:\n"+endpoints))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Compile(p, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return func(method, path, query string) Verdict {
		t.Helper()
		h := &HTTP{Method: method, RawQuery: query}
		if h.Path, err = CanonicalPath(path, true); err != nil {
			t.Fatal(err)
		}
		if h.Overrides, err = Overrides(nil, h, true); err != nil {
			t.Fatal(err)
		}
		return e.Decide(&Request{Host: "h.test", Port: 443, Binary: "/b", HTTP: h}).Verdict
	}
}

const bypassRest = "    - {host: h.test, port: 443, protocol: rest, enforcement: enforce, allow_encoded_slash: true, "

// TestBypass_B79_BracketsAroundNames: servers ignore brackets around a parameter's name
// (qs, Rack) or read an unclosed one as _ (PHP).
func TestBypass_B79_BracketsAroundNames(t *testing.T) {
	deny := bypassPolicy(t, bypassRest+`access: full, deny_rules: [{method: "*", path: "**", query: {force: "true"}}, {method: "*", path: "**", query: {force_push: "true"}}]}`)
	allow := bypassPolicy(t, bypassRest+`rules: [{allow: {method: "*", path: "**", query: {force: "false"}}}]}`)
	method := bypassPolicy(t, bypassRest+`rules: [{allow: {method: POST, path: "**"}}]}`)
	for _, tt := range []struct {
		name string
		same bool // the parameter force, as some server reads it
	}{
		{"force", true},
		{"[force]", true},
		{"%5Bforce%5D", true},
		{"%255Bforce%255d", true},
		{"[[force]", true},
		{"[force][a]", true},
		{"]force", true},
		{"force]", true},
		{"force]a", true},
		{"%09force", true},
		{"force%0A", true},
		{"forced", false},
		{"a[force]", false},
		{"[a]force", false},
	} {
		want := map[bool]Verdict{true: Deny, false: Allow}[tt.same]
		if got := deny("GET", "/a", "x=1&"+tt.name+"=true"); got != want {
			t.Errorf("deny force=true: %s=true: %s", tt.name, got)
		}
		if got := allow("GET", "/a", "force=false&"+tt.name+"=true"); got != want {
			t.Errorf("allow force=false: %s=true: %s", tt.name, got)
		}
		override := strings.Replace(tt.name, "force", "_method", 1)
		if got := method("POST", "/a", override+"=DELETE"); got != want {
			t.Errorf("allow POST: %s=DELETE: %s", override, got)
		}
	}
	for query, want := range map[string]Verdict{
		"force[push=true": Deny, "force%5Bpush=true": Deny, "force.push=true": Deny, "force[push=false": Allow, "force[push]=false": Allow, "force-push=true": Allow,
	} {
		if got := deny("GET", "/a", query); got != want {
			t.Errorf("deny force_push=true: %s: %s", query, got)
		}
	}
}

// TestBypass_B79_EncodedSlashes: servers that decode %2F find the resource that a deny rule
// protects. An allow rule does not match more because of that.
func TestBypass_B79_EncodedSlashes(t *testing.T) {
	one := bypassPolicy(t, bypassRest+`access: full, deny_rules: [{method: "*", path: /users/alice}, {method: "*", path: "/repo/**"}, {method: "*", path: "/p/a%2fb/admin"}, {method: "*", path: "/**/secret"}]}`)
	allow := bypassPolicy(t, bypassRest+`rules: [{allow: {method: "*", path: /users/alice}}, {allow: {method: "*", path: "/p/a%2Fb"}}]}`)
	byPath := bypassPolicy(t, bypassRest+`path: "/users/**", access: full, deny_rules: [{method: "*", path: /users/alice}]}`+"\n"+
		bypassRest+`path: "/*", access: full, deny_rules: [{method: "*", path: "/**/secret"}]}`+"\n"+bypassRest+`path: "/**", access: full}`)
	audited := bypassPolicy(t, bypassRest+`path: "/users/**", rules: [{allow: {method: GET, path: /users/bob}}]}`+"\n"+
		"    - {host: h.test, port: 443, protocol: rest, enforcement: audit, allow_encoded_slash: true, path: '/**', rules: [{allow: {method: GET, path: /x}}]}")
	for _, tt := range []struct {
		name   string
		decide func(method, path, query string) Verdict
		want   map[string]Verdict
	}{
		{"a deny rule", one, map[string]Verdict{
			"/users/alice": Deny, "/users%2Falice": Deny, "/users%2falice": Deny, "/users/alice%2F": Deny, "/%2Fusers/alice": Deny, "/users%2F/alice": Deny,
			"/users%2F%2Falice%2F/": Deny, "/%2F%2Fusers/alice": Deny, "/repo%2Fx": Deny, "/%2Frepo/x": Deny, "/repo%2F": Deny, "/x%2Fsecret": Deny, "/x/y%2Fsecret": Deny,
			"/p/a%2Fb/admin": Deny, "/p/a%2Fb%2Fadmin": Deny, "/p%2Fa/b/admin": Deny, "/p/a/b/admin": Deny,
			"/users%2Fbob": Allow, "/users%252Falice": Allow, "/repository%2Fx": Allow, "/p/ab/admin": Allow, "/p/a%2Fb": Allow,
		}},
		{"an allow rule", allow, map[string]Verdict{
			"/users/alice": Allow, "/users%2Falice": Deny, "/users/alice%2F": Deny, "/%2Fusers/alice": Deny, "/p/a%2Fb": Allow, "/p/a/b": Deny, "/p%2Fa%2Fb": Deny,
		}},
		{"deny rules of endpoints with a path", byPath, map[string]Verdict{
			"/users/alice": Deny, "/users%2Falice": Deny, "/%2Fusers%2Falice": Deny, "/users%2Fbob": Allow, "/x%2Fsecret": Deny, "/x%2Fy": Allow,
		}},
		{"an endpoint that audits beside one that enforces", audited, map[string]Verdict{
			"/users/bob": Allow, "/users/alice": Deny, "/users%2Falice": Deny, "/users%2Fa%2F": Deny, "/%2Fusers": Deny, "/other%2Falice": Audit,
		}},
	} {
		for path, want := range tt.want {
			if got := tt.decide("GET", path, ""); got != want {
				t.Errorf("%s: %s: %s, want %s", tt.name, path, got, want)
			}
		}
	}
}

// TestBypass_B79_ControlBytesInQueries: encoded tabs and line breaks pass only where no
// rule reads the query. Other control bytes never pass.
func TestBypass_B79_ControlBytesInQueries(t *testing.T) {
	unread := bypassPolicy(t, bypassRest+`access: full, deny_rules: [{method: "*", path: /secret}]}`)
	read := bypassPolicy(t, bypassRest+`path: /a, access: full}`+"\n"+bypassRest+`path: /b, access: full, deny_rules: [{method: "*", path: "**", query: {force: "true"}}]}`)
	allow := bypassPolicy(t, bypassRest+`rules: [{allow: {method: "*", path: "**", query: {q: "**"}}}]}`)
	for query, want := range map[string]Verdict{
		"q=a": Allow, "query=%7B%0A%20%20viewer%0D%0A%7D": Allow, "q=a%09b": Allow, "q%0a=a": Allow,
		"q=a\nb": Deny, "q=a\tb": Deny, "q=\x7f": Deny, "q=%00": Deny, "q=a%0bb": Deny, "q=%1B": Deny, "q=%7F": Deny, "%00=a": Deny, "q=%0A%00": Deny,
	} {
		if got := unread("GET", "/a", query); got != want {
			t.Errorf("no rule reads the query: %q: %s, want %s", query, got, want)
		}
		if want == Allow && query != "q=a" {
			want = Deny
		}
		if got := read("GET", "/a", query); got != want {
			t.Errorf("a deny rule reads the query: %q: %s, want %s", query, got, want)
		}
		if got := allow("GET", "/a", query); got != want {
			t.Errorf("an allow rule reads the query: %q: %s, want %s", query, got, want)
		}
	}
}

// TestBypass_B79_LinesOfHeaderFields: a parameter that contains header fields can contain
// several, one per line.
func TestBypass_B79_LinesOfHeaderFields(t *testing.T) {
	for query, want := range map[string]string{
		"$httpHeaders=a:b%0D%0Ax-http-method-override:+PUT": "PUT", "$httpHeaders=a:b%0Ax-http-method-override:PUT%0A": "PUT", "[$httpHeaders]=x-http-method-override:PUT": "PUT",
		"_method=%0APUT%09": "PUT", "$httpHeaders=": "", "$httpHeaders=a:b%0D%0Ac:d": "",
		"$httpHeaders=x-http-method-override:%0D%0A+PUT": "error", "$httpHeaders=x-original-url:%0A+https://h/": "error", "$httpHeaders=PUT": "error", "_method=GET%0APUT": "error",
	} {
		got := ""
		all, err := Overrides(nil, &HTTP{Method: "POST", Path: "/", RawQuery: query}, false)
		if err != nil {
			got = "error"
		} else if len(all) > 0 {
			got = all[0].Method
		}
		if got != want {
			t.Errorf("%s: %q, want %q: %v", query, got, want, err)
		}
	}
}

// The workload controls the number of invalid overrides. The length of the error does not
// depend on it.
func TestBypass_B79_ErrorsOfOverridesAreBounded(t *testing.T) {
	_, err := Overrides(map[string][]string{"X-Http-Method": {"!", "!", "!"}}, &HTTP{Method: "POST", Path: "/", RawQuery: strings.Repeat("_method=!&", 1600)}, false)
	if err == nil || len(err.Error()) > 100 {
		t.Errorf("%d bytes of text, or no error: %.200v", len(err.Error()), err)
	}
}

func TestDecidingPlainPathsDoesNotDecode(t *testing.T) {
	for _, path := range (list{"/a/b", "/a%20b", "/"}) {
		if n := testing.AllocsPerRun(100, func() { decodeSlashes(path) }); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}
