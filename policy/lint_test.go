// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLint(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []Warning
	}{
		{"nothing to say", "version: 1\nfilesystem_policy: {read_only: [/usr], read_write: [/tmp, /tmpx]}\nnetwork_policies:\n  a: {binaries: [/bin/a, /bin/b, '/opt/**'], endpoints: [{host: h, port: 1}, {host: i, port: 1, protocol: rest, enforcement: enforce, access: full}]}\n", nil},
		{"paths", "version: 1\nfilesystem_policy:\n  read_only: [/a, /a/, /a/b, /w/x, /w, /w2]\n  read_write: [/w, /w//, /w/y, /z]\n", []Warning{
			{3, "read_write has /w twice"},
			{3, "read_only has /a twice"},
			{3, "read_only path /a/b adds nothing to /a"},
			{3, "read_only path /w/x lies in read_write path /w, so it can be written"},
			{3, "read_only path /w is also in read_write, so it can be written"},
			{3, "read_write path /w/y adds nothing to /w"},
		}},
		{"an entry of nothing", inEntry(""), []Warning{
			{3, "network policy 'a' has no endpoints, so it allows nothing"},
			{3, "network policy 'a' has no binaries, so no program may use it; for every program write \"/**\""},
		}},
		{"binaries", inEntry("endpoints: [{host: h, port: 1}], binaries: ['/**', '**', curl, /usr//bin/x, '*/x', /b, /b]"), []Warning{
			{3, "binary /** is every program in the container"},
			{3, "binary ** is every program in the container"},
			{3, "binary curl matches no program: write the absolute path as ls shows it"},
			{3, "binary /usr//bin/x matches no program: write the absolute path as ls shows it"},
			{3, "binary /b is listed twice"},
		}},
		{"hosts", inEntry("binaries: [/b], endpoints: [{port: 1, allowed_ips: [10.0.0.1]}, {host: '**.a.b', port: 2}, {host: '*.a.b', port: 3}, {host: a.b., port: 4}, {host: '127.1', port: 4}]"), []Warning{
			{3, "an endpoint without host reaches every name with addresses in allowed_ips"},
			{3, "host **.a.b is every name below a.b at any depth, and not a.b itself"},
			{3, "host *.a.b: each * is any text within one label, so names with more labels do not match"},
			{3, "host a.b. never matches: requests spell it a.b"},
			{3, `host 127.1 is not a valid name: host "127.1": name ends in a number but is not a canonical address`},
		}},
		{"the sandbox and the machine", inEntry("binaries: [/b], endpoints: [{host: 127.0.0.1, port: 1}, {host: localhost, port: 2}, {host: 169.254.169.254, port: 3}, {host: '*.docker.internal', port: 4}, {host: host.docker.internal, port: 5}]"), []Warning{
			{3, "the endpoint has no effect: 127.0.0.1 is the sandbox itself, which its programs reach without the policy; a server on the machine that runs the sandbox is host.openshell.internal, with its port"},
			{3, "the endpoint has no effect: localhost is the sandbox itself, which its programs reach without the policy; a server on the machine that runs the sandbox is host.openshell.internal, with its port"},
			{3, "the endpoint has no effect: 169.254.169.254 is always blocked: a loopback, link-local, unspecified or metadata address"},
			{3, "host *.docker.internal: each * is any text within one label, so names with more labels do not match"},
			{3, "host *.docker.internal does not cover host.docker.internal, a name of the machine that runs the sandbox: write it out"},
		}},
		{"a wide prefix without a host", inEntry("binaries: [/b], endpoints: [{port: 1, allowed_ips: ['::/0']}]"), []Warning{
			{3, "an endpoint without host reaches every name with addresses in allowed_ips"},
			{3, "every connection to the endpoint is refused: allowed_ips: ::/0 overlaps loopback, link-local or unspecified addresses, which no rule can allow; for every public address write the prefixes of docs/public-addresses.yaml"},
		}},
		{"connections that are always refused", inEntry("binaries: [/b], endpoints: [{host: a.x, port: 1, allowed_ips: [300.1.1.1]}, {host: b.x, port: 1, allowed_ips: [8.8.8.8, 0.0.0.0/0]}, {host: c.x, port: 1, allowed_ips: [127.0.0.0/8]}, {host: d.x, port: 1, allowed_ips: [169.254.169.254]}, {host: e.x, port: 1, allowed_ips: [168.63.129.16, 100.100.100.200/32]}, {host: f.x, port: 1, allowed_ips: [168.63.129.16, 8.8.8.8]}, {host: 10.0.0.1, port: 1, allowed_ips: [10.1.0.0/16]}, {host: '::ffff:10.0.0.1', port: 2}]"), []Warning{
			{3, `every connection to the endpoint is refused: allowed_ips: "300.1.1.1" is not an address or a prefix`},
			{3, "every connection to the endpoint is refused: allowed_ips: 0.0.0.0/0 overlaps loopback, link-local or unspecified addresses, which no rule can allow; for every public address write the prefixes of docs/public-addresses.yaml, or leave allowed_ips out"},
			{3, "every connection to the endpoint is refused: allowed_ips: 127.0.0.0/8 overlaps loopback, link-local or unspecified addresses, which no rule can allow"},
			{3, "every connection to the endpoint is refused: allowed_ips: 169.254.169.254 overlaps loopback, link-local or unspecified addresses, which no rule can allow"},
			{3, "every connection to the endpoint is refused: allowed_ips has only addresses that no rule can allow"},
			{3, "every connection to the endpoint is refused: allowed_ips does not have its host, 10.0.0.1"},
		}},
		{"control-plane ports", inEntry("binaries: [/b], endpoints: [{host: a, ports: [443, 6443, 10250]}]"), []Warning{
			{3, "port 6443 is a blocked control-plane port: every connection to it is refused unless the operator's configuration has it in control_plane_ports"},
			{3, "port 10250 is a blocked control-plane port: every connection to it is refused unless the operator's configuration has it in control_plane_ports"},
		}},
		{"endpoints", inEntry("binaries: [/b], endpoints: [{host: a, port: 1, access: full}, {host: b, port: 1, protocol: rest, access: full}, {host: c, port: 1, protocol: rest, access: full, tls: skip, enforcement: audit, path: /a//b}]"), []Warning{
			{3, "access and rules have no effect without protocol: rest; every request on the connection passes"},
			{3, "enforcement is not set, which means audit: requests that the rules refuse are recorded and pass; write enforcement: enforce"},
			{3, "tls: skip with protocol: rest: requests inside TLS cannot be judged"},
			{3, "path /a//b selects no request: // and dots are resolved before rules are asked"},
		}},
		{"credentials", inEntry("binaries: [/b], endpoints: [{host: a, port: 1, websocket_credential_rewrite: true, request_body_credential_rewrite: true, credential_binding: {provider: p}, path: /a}, {host: b, port: 1, credential_signing: sigv4, signing_service: s3}, {host: c, port: 1, protocol: websocket, enforcement: enforce, rules: [{allow: {method: websocket_text, path: /a}}, {allow: {method: POST, path: /b}}], request_body_credential_rewrite: true, signing_region: x}, {host: d, port: 1, protocol: tcp, credential_binding: {provider: p}, allow_uninspected_credentials: true, allow_unsearched_answers: true}]"), []Warning{
			{3, "websocket_credential_rewrite is ignored unless protocol is rest or websocket"},
			{3, "request_body_credential_rewrite is ignored unless protocol is rest"},
			{3, "credential_binding with path is ignored unless protocol is rest or websocket: paths are not looked at"},
			{3, "credential_signing is ignored unless protocol is rest or websocket"},
			{3, "request_body_credential_rewrite is ignored unless protocol is rest"},
			{3, "signing_service and signing_region have no effect without credential_signing"},
			{3, `rule has the unusual method "POST"`},
			{3, "credential_binding has no effect: the proxy does not read this traffic, so it inserts no credential"},
			{3, "allow_uninspected_credentials lets traffic that cannot be searched pass to an endpoint with credentials"},
			{3, "allow_unsearched_answers lets the endpoint's answers show credentials to the sandbox"},
		}},
		{"rules", `version: 1
network_policies:
  a:
    binaries: [/b]
    endpoints:
    - host: h
      port: 1
      protocol: rest
      enforcement: enforce
      path: /v1/**
      rules:
      - allow: {path: /v1/a}
      - allow: {method: GTE, path: /v1/a}
      - allow: {method: GET, path: v1/a}
      - allow: {method: GET, path: /v2/a}
      - allow: {method: GET, path: /v1}
      - allow: {method: GET, path: "**", query: {a: b}}
      - allow: {method: GET}
      - allow: {method: get, path: /v1/a}
      - allow: {method: POST, path: /v1/a}
      deny_rules:
      - {method: PUT, path: /v1, query: {a: "x*", b: {any: ["**", c]}}}
      - {method: PUT, path: /v2}
      - {method: "*", path: /**}
      - {method: DELETE, path: /v1/x}
      - {method: PATCH, path: "/v1/x?force=true"}
      - {method: PATCH, path: "/v1/a?/{b,c}=d"}
      - {method: PATCH, path: "/v1%2fx"}
      - {method: PATCH, path: "/v2%2fx"}
`, []Warning{
			{12, "rule has no method, so it matches no request; write method: \"*\" for all"},
			{13, `rule has the unusual method "GTE"`},
			{14, "rule path v1/a matches no request: paths begin with /"},
			{15, "rule path /v2/a lies outside the endpoint's path /v1/**"},
			{16, "rule path /v1 lies outside the endpoint's path /v1/**"},
			{19, "rule adds nothing to the rule in line 18, which is for every path"},
			{22, `deny rule query a: "x*": * stops at a dot, so a value with a dot there passes; for any value write "**"`},
			{23, "deny rule path /v2 lies outside the endpoint's path /v1/**"},
			{25, "deny rule adds nothing to the rule in line 24, which is for every path"},
			{26, "deny rule path /v1/x?force=true: ? matches any one character; write parameters under query"},
			{26, "deny rule adds nothing to the rule in line 24, which is for every path"},
			{27, "deny rule adds nothing to the rule in line 24, which is for every path"},
			{28, "deny rule adds nothing to the rule in line 24, which is for every path"},
			{29, "deny rule path /v2%2fx lies outside the endpoint's path /v1/**"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Parse("p", []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, Lint(p, CompileOptions{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNeverMatches(t *testing.T) {
	const (
		begin   = "paths begin with /"
		dots    = "// and dots are resolved before rules are asked"
		cut     = "what follows a ; is not part of a path"
		escapes = "no path may have one of its escapes: of a control byte or a backslash, not UTF-8, or %2F without allow_encoded_slash"
	)
	for _, tc := range []struct {
		path         string
		encodedSlash bool
		want         string
	}{
		{"", false, ""},
		{"/", false, ""},
		{"/a/", false, ""},
		{"**", false, ""},
		{"/a/**/b?", false, ""},
		{"/a%20b", false, ""},
		{"/%E2%82%AC%20/x", false, ""},
		{"/a%2Fb", true, ""},
		{"/{a//b,c}", false, ""},
		{"{/a,/b}", false, ""},
		{`\/a`, false, ""},
		{"a", false, begin},
		{"//", false, dots},
		{"/a//b", false, dots},
		{"/./a", false, dots},
		{"/a/..", false, dots},
		{"/a;b", false, cut},
		{"/a%3bb", false, cut},
		{"/a#b", false, ""},
		{"/é", false, ""},
		{"/a%2e/%2e%2e", false, dots},
		{"/a%2Fb", false, escapes},
		{"/a%2fb", true, ""},
		{"/%41", false, ""},
		{"/%00", false, escapes},
		{"/%5C", false, escapes},
		{"/%", false, escapes},
		{"/%e2", false, escapes},
		{"/%E2", false, escapes},
		{"/a%2", false, escapes},
	} {
		if got := neverMatches(tc.path, tc.encodedSlash); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.path, got, tc.want)
		}
	}
}

func TestAuditedByDefault(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`version: 1
network_policies:
  a:
    endpoints:
      - {host: a.test, port: 1, protocol: rest, access: full}
      - {host: b.test, port: 1, protocol: rest, access: full, enforcement: audit}
      - {host: c.test, port: 1}
  b:
    endpoints:
      - {host: d.test, port: 1, protocol: rest, access: full, enforcement: enforce}
      - {host: e.test, port: 1, protocol: rest, access: full}
`))
	if err != nil {
		t.Fatal(err)
	}
	count := func(o CompileOptions) (n int) {
		for _, w := range Lint(p, o) {
			if strings.Contains(w.Msg, "which means audit") {
				n++
			}
		}
		return n
	}
	if unset, block := count(CompileOptions{}), count(CompileOptions{UnspecifiedEnforcement: EnforcementBlock}); unset != 2 || block != 0 {
		t.Errorf("%d warnings, and %d where an operator has it block", unset, block)
	}
	if d := cmp.Diff([]int{5, 11}, AuditedByDefault(p)); d != "" {
		t.Error(d)
	}
}
