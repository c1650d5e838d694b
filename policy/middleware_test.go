// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wholeMiddlewares = `version: 1
network_middlewares:
  second:
    name: Redacts
    middleware: openshell/regex
    order: 20
    config: {mode: redact, patterns: ["AKIA[A-Z0-9]{16}"]}
    on_error: fail_open
    endpoints: {include: ["**.example.com"], exclude: ["trusted.example.com"]}
  first:
    middleware: local-guard
    order: -5
    config: {n: 1, f: 1.5, s: x, yes: true, none: null, list: [a, {b: c}], 2026-01-02: 2026-01-02}
    endpoints:
      include: ["API.example.com", "inference.local"]
  third:
    middleware: plain
    order: 30
    on_error: ""
    config: {}
    endpoints: {include: ["*"]}
`

func TestParseMiddlewares(t *testing.T) {
	p, err := Parse("p.yaml", []byte(wholeMiddlewares))
	if err != nil {
		t.Fatal(err)
	}
	want := []Middleware{
		{
			Key: "first", Name: "first", Uses: "local-guard", Order: -5, Include: []string{"API.example.com", "inference.local"}, Line: 10,
			Config: map[string]any{
				"n": 1.0, "f": 1.5, "s": "x", "yes": true, "none": nil, "list": []any{"a", map[string]any{"b": "c"}}, "2026-01-02": "2026-01-02",
			},
		},
		{
			Key: "second", Name: "Redacts", Uses: RegexMiddleware, Order: 20, FailOpen: true, Line: 3,
			Include: []string{"**.example.com"}, Exclude: []string{"trusted.example.com"}, Patterns: []string{"AKIA[A-Z0-9]{16}"},
		},
		{Key: "third", Name: "third", Uses: "plain", Order: 30, Include: []string{"*"}, Config: map[string]any{}, Line: 16},
	}
	if d := cmp.Diff(want, p.Middlewares); d != "" {
		t.Error(d)
	}
	e, err := Compile(p, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"api.example.com": "first,second", "a.b.example.com": "second", "trusted.example.com": "", "example.com": "",
		"inference.local": "first", "localhost": "third", "": "",
	} {
		var keys []string
		for _, m := range e.Middlewares(host) {
			keys = append(keys, m.Key)
		}
		if got := strings.Join(keys, ","); got != want {
			t.Errorf("%q goes through %q, want %q", host, got, want)
		}
	}
}

func TestParseRefusesMiddlewares(t *testing.T) {
	// one is a document with one middleware, which has the fields of the case in addition
	// to its hosts.
	one := func(fields string) string {
		return "version: 1\nnetwork_middlewares:\n  m: {" + fields + ", endpoints: {include: [a.b]}}\n"
	}
	many := "version: 1\nnetwork_middlewares:\n"
	for i := range MaxMiddlewares + 2 {
		many += fmt.Sprintf("  m%d: {middleware: x, order: %d, endpoints: {include: [a.b]}}\n", i, i)
	}
	hosts := func(list string) string {
		return "version: 1\nnetwork_middlewares:\n  m: {middleware: x, endpoints: {" + list + "}}\n"
	}
	skip := func(fields, endpoint string) string {
		return "version: 1\nnetwork_middlewares:\n  m: {middleware: x, " + fields + "}\nnetwork_policies:\n  p:\n    name: P\n    endpoints:\n      - {" + endpoint + ", port: 443, tls: skip}\n"
	}
	const invalid = "middleware config 'm' is invalid: "
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "version: 1\nnetwork_middlewares: {m: {}}\n", "p.yaml:2:23: " + invalid + "middleware must not be empty\np.yaml:2:23: " + invalid + "endpoint selector is required"},
		{"no name", "version: 1\nnetwork_middlewares: {\"\": {middleware: x, endpoints: {include: [a.b]}}}\n", "p.yaml:2:23: middleware config '' is invalid: name must not be empty"},
		{"not a mapping", "version: 1\nnetwork_middlewares: []\n", "p.yaml:2:22: network_middlewares must be a mapping"},
		{"unknown field", one("middleware: x, oder: 1"), `p.yaml:3:22: unknown field "oder" in network_middlewares.m (did you mean "order"?)`},
		{"long name", one("middleware: x, name: " + strings.Repeat("n", MaxKey+1)), "p.yaml:3:28: network_middlewares.m.name is longer than 1024 bytes"},
		{"long middleware", one("middleware: " + strings.Repeat("n", MaxKey+1)), "p.yaml:3:19: " + invalid + "middleware is longer than 1024 bytes"},
		{"other built-in", one("middleware: openshell/pii"), "p.yaml:3:19: " + invalid + "there is no built-in middleware 'openshell/pii' (the only one is openshell/regex)"},
		{"order that is a word", one("middleware: x, order: first"), "p.yaml:3:29: network_middlewares.m.order must be a whole number of 32 bits"},
		{"order that is huge", one("middleware: x, order: 2147483648"), "p.yaml:3:29: network_middlewares.m.order must be a whole number of 32 bits"},
		{"on_error", one("middleware: x, on_error: fail_opne"), `p.yaml:3:32: unknown network_middlewares.m.on_error "fail_opne" (did you mean "fail_open"?)`},
		{"same order", "version: 1\nnetwork_middlewares:\n  a: {middleware: x, endpoints: {include: [a.b]}}\n  b: {middleware: x, endpoints: {include: [a.b]}}\n", "p.yaml:4:3: middleware configs 'a' and 'b' use duplicate order 0"},
		{"too many", many, "p.yaml:13:3: too many middleware configs (12 > 10)"},
		{"no hosts", hosts("include: []"), "p.yaml:3:33: " + invalid + "endpoint selector must include at least one host pattern"},
		{"too many hosts", hosts("include: [" + strings.Repeat("a.b, ", MaxSelector) + "], exclude: [c.d]"), "p.yaml:3:33: middleware config 'm' has too many selector patterns (33 > 32)"},
		{"empty host", hosts(`include: [""]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern '' is invalid: host pattern must not be empty"},
		{"white host", hosts(`include: ["a .b"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern 'a .b' is invalid: host pattern must not contain whitespace"},
		{"braces", hosts(`include: [x.y], exclude: ["{a,b}.c"]`), "p.yaml:3:60: " + invalid + "endpoint selector pattern '{a,b}.c' is invalid: host pattern must not contain brace alternates; list each host pattern separately"},
		{"port", hosts(`include: ["api.example.com:443"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern 'api.example.com:443' is invalid: host pattern must not have a port: a middleware sees the requests to every port of its hosts"},
		{"port of any host", hosts(`include: [x.y], exclude: ["**:443"]`), "p.yaml:3:60: " + invalid + "endpoint selector pattern '**:443' is invalid: host pattern must not have a port: a middleware sees the requests to every port of its hosts"},
		{"port of an address", hosts(`include: ["[2001:db8::1]:443"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern '[2001:db8::1]:443' is invalid: host pattern must not have a port: a middleware sees the requests to every port of its hosts"},
		{"empty label", hosts(`include: ["a..b"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern 'a..b' is invalid: host pattern must not contain empty DNS labels"},
		{"broken glob", hosts(`include: ["api[.b"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern 'api[.b' is invalid: invalid host pattern: label \"api[\" is no pattern"},
		{"stars in a label", hosts(`include: ["api**.b"]`), "p.yaml:3:44: " + invalid + "endpoint selector pattern 'api**.b' is invalid: invalid host pattern: label \"api**\" is no pattern"},
		{"long host", hosts("include: [" + strings.Repeat("a", MaxGlob+1) + "]"), "p.yaml:3:44: " + invalid + "endpoint selector pattern '" + strings.Repeat("a", MaxGlob+1) + "' is invalid: host pattern is longer than 1024 bytes"},
		{"regex mode", one("middleware: openshell/regex, config: {mode: drop}"), "p.yaml:3:51: " + invalid + `invalid openshell/regex config: mode "drop" (the only mode is redact)`},
		{"regex field", one("middleware: openshell/regex, config: {keywords: []}"), `p.yaml:3:45: unknown field "keywords" in network_middlewares.m.config`},
		{"regex pattern", one(`middleware: openshell/regex, config: {patterns: ["("]}`), "p.yaml:3:56: " + invalid + "error parsing regexp: missing closing ): `(` (patterns are written as for RE2)"},
		{"regex pattern of nothing", one(`middleware: openshell/regex, config: {patterns: ["a*"]}`), "p.yaml:3:56: " + invalid + `pattern "a*" matches the empty text, so it matches everywhere`},
		{"long regex pattern", one("middleware: openshell/regex, config: {patterns: [" + strings.Repeat("a", MaxRegex+1) + "]}"), "p.yaml:3:56: network_middlewares.m.config.patterns: a pattern is longer than 1024 bytes"},
		{"config that is a list", one("middleware: x, config: [1]"), "p.yaml:3:30: network_middlewares.m.config must be a mapping"},
		{"config with an alias", one("middleware: x, config: {a: &a b, c: [*a]}"), "p.yaml:3:44: YAML aliases are not accepted in policies"},
		{"config with infinity", one("middleware: x, config: {a: .inf}"), "p.yaml:3:30: network_middlewares.m.config is larger than 65536 bytes, or contains a number that JSON cannot represent"},
		{"config of an unknown type", one("middleware: x, config: {a: !!binary aGk=}"), "p.yaml:3:34: network_middlewares.m.config.a must be a string"},
		{"config that is huge", one("middleware: x, config: {a: " + strings.Repeat("a", MaxMiddlewareConfig) + "}"), "p.yaml:3:30: network_middlewares.m.config is larger than 65536 bytes, or contains a number that JSON cannot represent"},
		{"tls: skip", skip("endpoints: {include: ['*.example.com']}", "host: api.example.com"), "p.yaml:8:1: middleware config 'm' selects network policy 'P' tls: skip endpoint 'api.example.com' (exclude the host, or write on_error: fail_open)"},
		{"tls: skip of a pattern", skip("endpoints: {include: ['**.example.com'], exclude: ['a.example.com']}", "host: '*.b.example.com'"), "p.yaml:8:1: middleware config 'm' selects network policy 'P' tls: skip endpoint '*.b.example.com' (exclude the host, or write on_error: fail_open)"},
	} {
		t.Run(tc.name, func(t *testing.T) { refuses(t, tc.text, tc.want) })
	}
	for _, text := range []string{
		skip("on_error: fail_open, endpoints: {include: ['**']}", "host: api.example.com"),
		skip("endpoints: {include: ['**'], exclude: ['API.example.com']}", "host: api.example.com"),
		skip("endpoints: {include: ['**.example.com'], exclude: ['*.b.example.com']}", "host: '*.b.example.com'"),
		skip("endpoints: {include: ['**.example.com'], exclude: ['**']}", "host: '*.b.example.com'"),
		skip("endpoints: {include: ['api.example.com']}", "host: other.example.com"),
		skip("endpoints: {include: ['a.example.com'], exclude: ['a.*.com']}", "host: '*.example.com'"),
	} {
		if _, err := Parse("p.yaml", []byte(text)); err != nil {
			t.Errorf("%s%v", text, err)
		}
	}
}

// The cases of OpenShell's own test of its matcher.
func TestHostPattern(t *testing.T) {
	for _, tc := range []struct {
		pattern, host string
		want          bool
	}{
		{"*.Example.COM", "api.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "deep.api.example.com", false},
		{"**.example.com", "deep.api.example.com", true},
		{"**.example.com", "example.com", false},
		{"*-api.example.com", "tenant-api.example.com", true},
		{"*", "deep.api.example.com", false},
		{"api.**.com", "api.x.y.com", true},
		{"api.**.com", "api.com", false},
		{"**", "com", true},
		{"**", "::1", true},
		{"10.0.?.[0-9]", "10.0.1.7", true},
	} {
		h, err := newHostPattern(tc.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.match(strings.Split(tc.host, ".")); got != tc.want {
			t.Errorf("%s %s: %v", tc.pattern, tc.host, got)
		}
	}
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"*.example.com", "api.example.com", true},
		{"**.example.com", "deep.api.example.com", true},
		{"*.example.com", "deep.api.example.com", false},
		{"*.example.com", "*.other.com", false},
		{"**.example.com", "*.api.example.com", true},
		{"**.example.com", "example.com", false},
		{"a*.example.com", "*b.example.com", true},
		{"**.com", "a.**", true},
		{"a.**", "b.**", false},
	} {
		a, _ := newHostPattern(tc.a)
		b, _ := newHostPattern(tc.b)
		if a.overlaps(&b) != tc.want || b.overlaps(&a) != tc.want {
			t.Errorf("%s and %s: want %v", tc.a, tc.b, tc.want)
		}
	}
}

func TestCompileRefusesMiddlewares(t *testing.T) {
	for _, m := range []Middleware{{Key: "m", Include: []string{""}}, {Key: "m", Include: []string{"a.b"}, Exclude: []string{"{}"}}} {
		p := &Policy{Middlewares: []Middleware{m}}
		if _, err := Compile(p, CompileOptions{}); err == nil || !strings.Contains(err.Error(), `middleware config "m"`) {
			t.Errorf("%+v: %v", m, err)
		}
		if w := Lint(p, CompileOptions{}); len(w) != 0 {
			t.Errorf("%+v: %v", m, w)
		}
	}
}

func TestLintMiddlewares(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`version: 1
network_policies:
  p: {endpoints: [{host: api.example.com, port: 443}], binaries: [/bin/sh]}
network_middlewares:
  elsewhere: {middleware: x, order: 1, endpoints: {include: [other.example.com]}}
  open: {middleware: x, order: 2, on_error: fail_open, endpoints: {include: ["*.example.com"]}}
  router: {middleware: x, order: 3, endpoints: {include: [inference.local]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Warning{
		{5, "middleware config 'elsewhere' selects no host of the policy's endpoints"},
		{6, "middleware config 'open' fails open: requests pass unprocessed while it is unavailable"},
	}
	if d := cmp.Diff(want, Lint(p, CompileOptions{})); d != "" {
		t.Error(d)
	}
	p.Network[0].Endpoints[0].Host = "{a,b}*.example.com"
	if w := Lint(p, CompileOptions{}); slices.ContainsFunc(w, func(w Warning) bool { return w.Line == 5 && strings.Contains(w.Msg, "selects no") }) {
		t.Error(w)
	}
}
