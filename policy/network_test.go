// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wholeNetwork = `version: 1
network_policies:
  z:
    name: the last
    endpoints:
      - host: API.Example.com
        port: 80
        ports: [443, 8443]
        path: /v1/**
        protocol: rest
        tls: terminate
        enforcement: enforce
        rules:
          - allow: {method: GET, path: /v1/*}
          - allow:
              method: "*"
              path: /v1/search
              query: {page: "1", q: {any: ["a*", b]}}
        deny_rules:
          - {method: DELETE, path: "**", query: {force: "true"}}
        allowed_ips: [10.0.0.0/8, not an address]
        allow_encoded_slash: true
        websocket_credential_rewrite: false
        credential_signing: ""
        graphql_max_body_bytes: 0
        graphql_persisted_queries: {}
        persisted_queries: ""
    binaries:
      - {path: /usr/bin/curl, harness: true}
      - /usr/bin/git*
  a:
    endpoints:
      - {host: "2001:DB8::0:1", port: 22, tls: skip}
      - {host: "::ffff:10.0.0.1", port: 22}
      - {host: db.example.com, port: 5432, protocol: tcp, tls: auto, access: ""}
      - {port: 9000, allowed_ips: [10.1.2.3], protocol: "", rules: []}
      - {host: "**.example.org", port: 443, protocol: rest, access: read-only, path: "**", enforcement: audit, tls: ""}
  empty: {}
`

func TestParseNetwork(t *testing.T) {
	p, err := Parse("p.yaml", []byte(wholeNetwork))
	if err != nil {
		t.Fatal(err)
	}
	want := []NetworkPolicy{
		{Key: "a", Name: "a", Line: 31, Endpoints: []Endpoint{
			{Host: "2001:db8::1", Ports: []uint16{22}, TLSSkip: true, Line: 33},
			{Host: "10.0.0.1", Ports: []uint16{22}, Line: 34},
			{Host: "db.example.com", Ports: []uint16{5432}, Protocol: ProtocolTCP, Line: 35},
			{Ports: []uint16{9000}, AllowedIPs: []string{"10.1.2.3"}, Line: 36},
			{Host: "**.example.org", Ports: []uint16{443}, Protocol: ProtocolREST, Access: AccessReadOnly, Path: "**", Enforcement: EnforcementAudit, Line: 37},
		}},
		{Key: "empty", Name: "empty", Line: 38},
		{Key: "z", Name: "the last", Line: 3, Endpoints: []Endpoint{{
			Host: "api.example.com", Ports: []uint16{443, 8443}, Protocol: ProtocolREST, Path: "/v1/**", Enforcement: EnforcementBlock,
			Rules: []Rule{
				{Method: "GET", Path: "/v1/*", Line: 14},
				{Method: "*", Path: "/v1/search", Query: []QueryRule{{"page", []string{"1"}}, {"q", []string{"a*", "b"}}}, Line: 15},
			},
			DenyRules:         []Rule{{Method: "DELETE", Path: "**", Query: []QueryRule{{"force", []string{"true"}}}, Line: 20}},
			AllowedIPs:        []string{"10.0.0.0/8", "not an address"},
			AllowEncodedSlash: true, Line: 6,
		}}, Binaries: []Binary{{"/usr/bin/curl", 29}, {"/usr/bin/git*", 30}}},
	}
	if d := cmp.Diff(want, p.Network); d != "" {
		t.Error(d)
	}
	notes := []Warning{
		{7, "OpenShell 0.1 refuses port beside ports; ports counts"},
		{11, "OpenShell 0.1 refuses tls: terminate; it means the same as no tls field"},
		{29, "OpenShell 0.1 refuses harness; it has no effect"},
		{35, "OpenShell 0.1 refuses tls: auto; it means the same as no tls field"},
	}
	if d := cmp.Diff(notes, p.Notes); d != "" {
		t.Error(d)
	}
}

// inEntry returns a document with the given fields of one entry.
func inEntry(fields string) string {
	return "version: 1\nnetwork_policies:\n  a: {" + fields + "}\n"
}

// inEndpoint returns a document with the given fields of one endpoint, in line 5 from
// column 8 on.
func inEndpoint(fields string) string {
	return "version: 1\nnetwork_policies:\n  a:\n   endpoints:\n    - {" + fields + "}\n"
}

// rest returns an endpoint with protocol rest; further fields begin in column 46.
func rest(fields string) string {
	return inEndpoint("host: h.example, port: 80, protocol: rest, " + fields)
}

func TestParseRefusesNetwork(t *testing.T) {
	const l7 = "network policy 'a': endpoint 0 has invalid L7 configuration: "
	for _, tc := range []struct{ name, text, want string }{
		{"entry that is null", "version: 1\nnetwork_policies:\n  a:\n", "p.yaml:3:5: network_policies.a must be a mapping"},
		{"entry without a key", "version: 1\nnetwork_policies:\n  \"\": {}\n", "p.yaml:3:3: a network policy needs a name"},
		{"entry twice", "version: 1\nnetwork_policies:\n  a: {}\n  a: {}\n", `p.yaml:4:3: duplicate field "a" in network_policies`},
		{"typo in an entry", inEntry("binarys: []"), `p.yaml:3:7: unknown field "binarys" in network_policies.a (did you mean "binaries"?)`},
		{"long key", "version: 1\nnetwork_policies:\n  ? " + strings.Repeat("a", MaxKey+1) + "\n  : {}\n", "p.yaml:3:5: a key of network_policies is longer than 1024 bytes"},
		{"long name", inEntry("name: " + strings.Repeat("a", MaxKey+1)), "p.yaml:3:13: network_policies.a.name is longer than 1024 bytes"},
		{"long host", inEndpoint("host: '*." + strings.Repeat("a", MaxSize/2) + ".c', port: 1"), "p.yaml:5:14: pattern is longer than 1024 bytes"},
		{"long port", inEndpoint("host: a, port: " + strings.Repeat("1", MaxSize/2)), "p.yaml:5:23: network policy 'a': endpoint 'a' has invalid port " + strings.Repeat("1", MaxMessage-len("network policy 'a': endpoint 'a' has invalid port ")) + "…"},
		{"name that is a list", inEntry("name: []"), "p.yaml:3:13: network_policies.a.name must be a string"},
		{"endpoints that are null", inEntry("endpoints: ~"), "p.yaml:3:18: network_policies.a.endpoints must be a list"},
		{"binaries that are null", inEntry("binaries: "), "p.yaml:3:17: network_policies.a.binaries must be a list"},
		{"binary without path", inEntry("binaries: [{harness: false}]"), "p.yaml:3:18: a binary of network_policies.a.binaries has no path"},
		{"binary with more", inEntry("binaries: [{path: /a, sha256: x}]"), `p.yaml:3:29: unknown field "sha256" in network_policies.a.binaries`},
		{"binary that is no pattern", inEntry("binaries: ['/a[*']"), `p.yaml:3:18: pattern "/a[*": [ without ]`},
		{"binary that is long", inEntry("binaries: [/" + strings.Repeat("a", MaxPathLength) + "]"), "p.yaml:3:18: path exceeds maximum length (4097 > 4096): /" + strings.Repeat("a", 63) + "…"},
		{"alias in a list", "version: 1\nprocess: &a {}\nnetwork_policies: {a: {endpoints: [*a]}}\n", "p.yaml:3:36: YAML aliases are not accepted in policies"},

		{"typo in an endpoint", inEndpoint("hosts: a"), "p.yaml:5:8: unknown field \"hosts\" in network policy 'a': endpoint 0 (did you mean \"host\"?)"},
		{"endpoint that is no mapping", "version: 1\nnetwork_policies: {a: {endpoints: [x]}}\n", "p.yaml:2:36: network policy 'a': endpoint 0 must be a mapping"},
		{"no host", inEndpoint("port: 1"), "p.yaml:5:7: network policy 'a': endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"},
		{"host of spaces", inEndpoint("host: ' ', port: 1"), "p.yaml:5:14: network policy 'a': endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"},
		{"host that is null", inEndpoint("host: null, port: 1"), "p.yaml:5:14: network policy 'a': endpoint 0: host must be a string"},
		{"the name in messages", inEntry("endpoints: [{port: 1}], name: N"), "p.yaml:3:19: network policy 'N': endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"},
		{"all hosts", inEndpoint("host: '*', port: 1"), "p.yaml:5:14: network policy 'a': invalid host wildcard '*'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label"},
		{"all hosts at any depth", inEndpoint("host: '**', port: 1"), "p.yaml:5:14: network policy 'a': invalid host wildcard '**'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label"},
		{"** within a label", inEndpoint("host: 'a**.b.c', port: 1"), "p.yaml:5:14: network policy 'a': invalid host wildcard 'a**.b.c'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label"},
		{"** later", inEndpoint("host: 'a.**.c', port: 1"), "p.yaml:5:14: network policy 'a': invalid host wildcard 'a.**.c'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label"},
		{"part of a later label", inEndpoint("host: 'a.b*.c', port: 1"), "p.yaml:5:14: network policy 'a': invalid host wildcard 'a.b*.c'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label"},
		{"TLD", inEndpoint("host: '*.com', port: 1"), "p.yaml:5:14: network policy 'a': TLD wildcard '*.com' is not allowed; use subdomain wildcards like '*.example.com' instead"},
		{"TLD at any depth", inEndpoint("host: '**.com', port: 1"), "p.yaml:5:14: network policy 'a': TLD wildcard '**.com' is not allowed; use subdomain wildcards like '*.example.com' instead"},
		{"part of a TLD's label", inEndpoint("host: 'a*.com', port: 1"), "p.yaml:5:14: network policy 'a': TLD wildcard 'a*.com' is not allowed; use subdomain wildcards like '*.example.com' instead"},
		{"host that is no pattern", inEndpoint("host: '*[.b.c', port: 1"), `p.yaml:5:14: pattern "*[.b.c": [ without ]`},
		{"host that only looks like a pattern", inEndpoint("host: '{a,b}.example.com', port: 1"), "p.yaml:5:14: network policy 'a': host '{a,b}.example.com' has a character that is not valid in a name, and without a * it is not a pattern"},
		{"host that is not ASCII", inEndpoint("host: bücher.example, port: 1"), "p.yaml:5:14: network policy 'a': host 'bücher.example' has a character that is not valid in a name, and without a * it is not a pattern"},

		{"no port", inEndpoint("host: a.b"), "p.yaml:5:7: network policy 'a': endpoint 'a.b' must declare at least one port"},
		{"port 0 is none", inEndpoint("host: a.b, port: 0, ports: []"), "p.yaml:5:7: network policy 'a': endpoint 'a.b' must declare at least one port"},
		{"port 0 in ports", inEndpoint("host: a.b, ports: [0]"), "p.yaml:5:27: network policy 'a': endpoint 'a.b' has invalid port 0; expected 1..=65535"},
		{"port too high", inEndpoint("host: a.b, port: 65536"), "p.yaml:5:25: network policy 'a': endpoint 'a.b' has invalid port 65536; expected 1..=65535"},
		{"bad port that ports would win over", inEndpoint("host: a.b, port: -1, ports: [1]"), "p.yaml:5:25: network policy 'a': endpoint 'a.b' has invalid port -1; expected 1..=65535"},
		{"port in quotes", inEndpoint("host: a.b, port: '80'"), "p.yaml:5:25: network policy 'a': endpoint 'a.b' has invalid port 80; expected 1..=65535"},
		{"port that YAML 1.1 reads as octal", inEndpoint("host: a.b, port: 0443"), "p.yaml:5:25: network policy 'a': endpoint 'a.b' has invalid port 0443; expected 1..=65535"},
		{"ports that are no list", inEndpoint("host: a.b, ports: 80"), "p.yaml:5:26: network policy 'a': endpoint 0: ports must be a list"},

		{"relative path", inEndpoint("host: a.b, port: 1, path: v1/*"), "p.yaml:5:34: " + l7 + "path must start with '/' or be '**'"},
		{"path that is no pattern", inEndpoint("host: a.b, port: 1, path: '/{'"), `p.yaml:5:34: pattern "/{": { without }`},
		{"tls with a typo", inEndpoint("host: a.b, port: 1, tls: skp"), `p.yaml:5:33: unsupported tls value "skp" (remove the tls field to keep automatic TLS termination)`},
		{"tls in capitals", inEndpoint("host: a.b, port: 1, tls: SKIP"), `p.yaml:5:33: unsupported tls value "SKIP" (did you mean "skip"?)`},
		{"tls: skip with rules that are enforced", rest("access: full, enforcement: enforce, tls: skip"), "p.yaml:5:92: " + l7 + "with tls: skip the requests inside TLS are not judged, so the rules would block nothing although enforcement is enforce (remove tls: skip, or the protocol and its rules)"},
		{"mcp that is null", rest("access: full, mcp: null"), "p.yaml:5:70: network policy 'a': endpoint 0: mcp is not enforced by this version, so a policy that sets it is refused"},
		{"json_rpc that is null", rest("access: full, json_rpc: ~"), "p.yaml:5:75: network policy 'a': endpoint 0: json_rpc is not enforced by this version, so a policy that sets it is refused"},
		{"reserved key", "version: 1\nnetwork_policies:\n  _provider_github: {}\n", `p.yaml:3:3: rule keys that begin with "_provider_" are reserved (choose another key for _provider_github)`},
		{"enforcement with a typo", rest("enforcement: enforced, access: full"), `p.yaml:5:64: unknown enforcement "enforced" (did you mean "enforce"?)`},
		{"enforcement of another tool", rest("enforcement: block, access: full"), `p.yaml:5:64: unknown enforcement "block" (one of audit, enforce)`},
		{"access with a typo", rest("access: readonly"), `p.yaml:5:59: unknown access "readonly" (did you mean "read-only"?)`},
		{"allowed_ips that is null", inEndpoint("port: 1, allowed_ips: "), "p.yaml:5:30: network policy 'a': endpoint 0: allowed_ips must be a list"},
		{"allowed_ips with null", inEndpoint("port: 1, allowed_ips: [~]"), "p.yaml:5:31: network policy 'a': endpoint 0: allowed_ips must be a string"},
		{"encoded slash that is a word", rest("allow_encoded_slash: x, access: full"), "p.yaml:5:72: network policy 'a': endpoint 0: allow_encoded_slash must be true or false, got \"x\""},

		{"protocol unknown", inEndpoint("host: a.b, port: 1, protocol: http"), "p.yaml:5:38: " + l7 + "unknown protocol 'http' (expected tcp, rest, websocket, graphql, sql, json-rpc, or mcp) (did you mean \"tcp\"?)"},
		{"protocol far off", inEndpoint("host: a.b, port: 1, protocol: spdy-and-so-on"), "p.yaml:5:38: " + l7 + "unknown protocol 'spdy-and-so-on' (expected tcp, rest, websocket, graphql, sql, json-rpc, or mcp)"},
		{"protocol in capitals", inEndpoint("host: a.b, port: 1, protocol: REST, access: full"), "p.yaml:5:38: " + l7 + "unknown protocol 'REST' (expected tcp, rest, websocket, graphql, sql, json-rpc, or mcp) (did you mean \"rest\"?)"},
		{"protocol graphql", inEndpoint("host: a.b, port: 1, protocol: graphql, access: full"), "p.yaml:5:38: " + l7 + "protocol graphql is not enforced by this version, so a policy that has it is refused"},
		{"protocol sql", inEndpoint("host: a.b, port: 1, protocol: sql, access: full"), "p.yaml:5:38: " + l7 + "protocol sql is not enforced by this version, and OpenShell does not inspect it either: every statement would pass (leave protocol out to allow the whole connection)"},

		{"rest without rules", rest("rules: []"), "p.yaml:5:7: " + l7 + "protocol requires rules or access to define allowed traffic"},
		{"rules and access", rest("access: full, rules: [{allow: {method: GET}}]"), "p.yaml:5:59: " + l7 + "rules and access are mutually exclusive"},
		{"rules that say nothing", rest("rules: [{allow: {query: {a: b}}}, {allow: {}}]"), "p.yaml:5:58: " + l7 + "rules would deny all traffic (no allow clause found). Use `access: full` or add allow clauses to rules."},
		{"rules that are null", rest("rules: "), "p.yaml:5:58: network policy 'a': endpoint 0: rules must be a list"},
		{"rule without allow", rest("rules: [{}]"), "p.yaml:5:59: network policy 'a': endpoint 0: rules[0] has no allow (write - allow: {method: …, path: …})"},
		{"rule that denies", rest("rules: [{deny: {}}]"), "p.yaml:5:60: unknown field \"deny\" in network policy 'a': endpoint 0: rules[0]\np.yaml:5:59: network policy 'a': endpoint 0: rules[0] has no allow (write - allow: {method: …, path: …})"},
		{"rule that is null", rest("rules: [null]"), "p.yaml:5:59: network policy 'a': endpoint 0: rules[0] must be a mapping"},
		{"rule path that is no pattern", rest("rules: [{allow: {method: GET, path: '/['}}]"), `p.yaml:5:87: pattern "/[": [ without ]`},
		{"query that is no pattern", rest("rules: [{allow: {method: GET, query: {a: '{'}}}]"), `p.yaml:5:92: pattern "{": { without }`},
		{"query without patterns", rest("rules: [{allow: {method: GET, query: {a: {any: []}}}}]"), "p.yaml:5:98: network policy 'a': endpoint 0: rules[0].allow.query.a.any: list must not be empty"},
		{"query of nothing", rest("rules: [{allow: {method: GET, query: {a: {}}}}]"), "p.yaml:5:92: network policy 'a': endpoint 0: rules[0].allow.query.a has no pattern (write \"glob\" or {any: [\"glob\", …]})"},
		{"query with glob", rest("rules: [{allow: {method: GET, query: {a: {any: [b], glob: b}}}}]"), "p.yaml:5:103: unknown field \"glob\" in network policy 'a': endpoint 0: rules[0].allow.query.a"},
		{"query with a list", rest("rules: [{allow: {method: GET, query: {a: [b]}}}]"), "p.yaml:5:92: network policy 'a': endpoint 0: rules[0].allow.query.a must be a string"},
		{"query that is a number", rest("rules: [{allow: {method: GET, query: {a: 123}}}]"), "p.yaml:5:92: network policy 'a': endpoint 0: rules[0].allow.query.a must be a string, got 123 (write \"123\")"},
		{"query of a deny rule that is a number", rest("access: full, deny_rules: [{method: GET, query: {force: 010}}]"), "p.yaml:5:107: network policy 'a': endpoint 0: deny_rules[0].query.force must be a string, got 010 (write \"010\")"},
		{"query of a deny rule that is true", rest("access: full, deny_rules: [{method: GET, query: {force: {any: [x, true]}}}]"), "p.yaml:5:117: network policy 'a': endpoint 0: deny_rules[0].query.force.any must be a string, got true (write \"true\")"},
		{"query of a deny rule that is null", rest("access: full, deny_rules: [{method: GET, query: {force: ~}}]"), "p.yaml:5:107: network policy 'a': endpoint 0: deny_rules[0].query.force must be a string"},
		{"query key twice", rest("rules: [{allow: {method: GET, query: {a: b, a: c}}}]"), "p.yaml:5:95: duplicate field \"a\" in network policy 'a': endpoint 0: rules[0].allow.query"},
		{"deny rule with allow", rest("access: full, deny_rules: [{allow: {}}]"), "p.yaml:5:79: unknown field \"allow\" in network policy 'a': endpoint 0: deny_rules[0]\np.yaml:5:78: network policy 'a': endpoint 0: deny_rules[0] has no method, so it would deny nothing (write method: \"*\" for all)"},
		{"deny rule without method", rest("access: full, deny_rules: [{path: /admin/**}]"), "p.yaml:5:78: network policy 'a': endpoint 0: deny_rules[0] has no method, so it would deny nothing (write method: \"*\" for all)"},
		{"deny rules alone", rest("deny_rules: [{method: GET}]"), "p.yaml:5:7: " + l7 + "protocol requires rules or access to define allowed traffic\np.yaml:5:63: " + l7 + "deny_rules require rules or access to define the base allow set"},
		{"deny rules without protocol", inEndpoint("host: a.b, port: 1, access: full, deny_rules: [{method: GET}]"), "p.yaml:5:54: " + l7 + "deny_rules require protocol (L7 inspection must be enabled)"},

		{"tcp without host", inEndpoint("port: 1, protocol: tcp, allowed_ips: [10.0.0.1]"), "p.yaml:5:7: network policy 'a': protocol tcp requires a DNS hostname; hostless allowed_ips endpoints are supported only by the forward proxy"},
		{"tcp to an address", inEndpoint("host: 10.0.0.1, port: 1, protocol: tcp"), "p.yaml:5:14: network policy 'a': protocol tcp endpoint '10.0.0.1' must use a DNS hostname, not an IP literal; direct IP connections bypass policy DNS and are blocked"},
		{"tcp with a trailing dot", inEndpoint("host: a.b., port: 1, protocol: tcp"), "p.yaml:5:14: network policy 'a': protocol tcp endpoint has invalid DNS host selector 'a.b.': omit the trailing DNS root dot"},
		{"tcp with a space", inEndpoint("host: ' a.b', port: 1, protocol: tcp"), "p.yaml:5:14: network policy 'a': protocol tcp endpoint has invalid DNS host selector ' a.b': leading or trailing whitespace is not allowed"},
		{"tcp with an empty label", inEndpoint("host: '*.b..c', port: 1, protocol: tcp"), "p.yaml:5:14: network policy 'a': protocol tcp endpoint has invalid DNS host selector '*.b..c': selector cannot represent a valid DNS name: host \"x.b..c\": name has an empty label or one over 63 bytes"},
		{"tcp with rules", inEndpoint("host: a.b, port: 1, protocol: tcp, rules: [{allow: {method: GET}}]"), "p.yaml:5:38: " + l7 + "protocol tcp does not support access, rules, or deny_rules; remove those L7 fields"},
		{"tcp with access", inEndpoint("host: a.b, port: 1, protocol: tcp, access: full"), "p.yaml:5:38: " + l7 + "protocol tcp does not support access, rules, or deny_rules; remove those L7 fields"},
		{"tcp with L7 fields", inEndpoint("host: a.b, port: 1, protocol: tcp, enforcement: audit, path: /, allow_encoded_slash: true"), "p.yaml:5:56: " + l7 + "protocol tcp does not support L7-only fields: enforcement, path, allow_encoded_slash; remove those fields"},
	} {
		t.Run(tc.name, func(t *testing.T) { refuses(t, tc.text, tc.want) })
	}
}

// A field that is accepted but not enforced would be a hole.
func TestParseRefusesWhatIsNotEnforced(t *testing.T) {
	for field, value := range map[string]string{
		"persisted_queries": "deny", "graphql_persisted_queries": "{a: {}}", "graphql_max_body_bytes": "1",
		"json_rpc": "{}", "mcp": "{strict_tool_names: true}",
	} {
		t.Run(field, func(t *testing.T) {
			refuses(t, rest("access: full, "+field+": "+value), fmt.Sprintf("p.yaml:5:%d: network policy 'a': endpoint 0: %s is not enforced by this version, so a policy that sets it is refused", 67+len(field), field))
		})
	}
	for field, value := range map[string]string{
		"command": "SELECT", "operation_type": "query", "operation_name": "x", "fields": "[a]", "tool": "x", "params": "{a: b}",
	} {
		t.Run("allow "+field, func(t *testing.T) {
			refuses(t, rest("rules: [{allow: {method: GET, "+field+": "+value+"}}]"), fmt.Sprintf("p.yaml:5:%d: network policy 'a': endpoint 0: rules[0].allow.%s is not enforced by this version, so a policy that sets it is refused", 83+len(field), field))
		})
		t.Run("deny "+field, func(t *testing.T) {
			refuses(t, rest("access: full, deny_rules: [{method: GET, "+field+": "+value+"}]"), fmt.Sprintf("p.yaml:5:%d: network policy 'a': endpoint 0: deny_rules[0].%s is not enforced by this version, so a policy that sets it is refused", 94+len(field), field))
		})
	}
	for _, p := range []string{"graphql", "sql", "json-rpc", "mcp"} {
		t.Run("protocol "+p, func(t *testing.T) {
			if _, err := Parse("p", []byte(inEndpoint("host: a.b, port: 1, access: full, protocol: "+p))); err == nil || !strings.Contains(err.Error(), "protocol "+p+" is not enforced by this version") {
				t.Error(err)
			}
		})
	}
}

func TestParseAcceptsNetwork(t *testing.T) {
	for _, tc := range []struct{ name, text string }{
		{"wildcard for part of the first label", inEndpoint("host: 'api-*x.example.com', port: 1")},
		{"wildcard label in the middle", inEndpoint("host: '*.s3.*.amazonaws.com', port: 1")},
		{"an address", inEndpoint("host: 10.0.0.1, port: 1")},
		{"the trailing dot without tcp", inEndpoint("host: a.b., port: 1")},
		{"tcp with a wildcard", inEndpoint("host: '**.b.c', port: 1, protocol: tcp")},
		{"allowed_ips are judged when a connection is made", inEndpoint("host: a.b, port: 1, allowed_ips: [127.0.0.1, x]")},
		{"rules without a protocol", inEndpoint("host: a.b, port: 1, rules: [{allow: {method: GET}}]")},
		{"an unusual method", rest("rules: [{allow: {method: BREW, path: /pot}}]")},
		{"no path is every path", rest("rules: [{allow: {method: GET}}]")},
		{"no rules without a protocol", inEndpoint("host: a.b, port: 1, rules: [], deny_rules: []")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Parse("p", []byte(tc.text)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	entry := "version: 1\nnetwork_policies:\n  a:\n"
	for _, tc := range []struct{ name, text, want string }{
		{"policies", "version: 1\nnetwork_policies:\n" + numbered(MaxPolicies+1, "  p%d: {}\n"), "p.yaml:10003:3: too many network policies in the policy (more than 10000)"},
		{"endpoints", entry + "    endpoints:\n" + numbered(MaxEndpoints-1, "    - {host: h%d, port: 1}\n") + "  b: {endpoints: [{host: x, port: 1}, {host: y, port: 1}]}\n", "p.yaml:10004:39: too many endpoints in the policy (more than 10000)"},
		{"endpoints of one entry", entry + "    endpoints:\n" + numbered(MaxEndpoints+1, "    - {host: h%d, port: 1}\n"), "p.yaml:10005:7: network_policies.a.endpoints has too many elements (10001 > 10000)"},
		{"binaries", entry + "    binaries:\n" + numbered(MaxBinaries, "    - /b%d\n") + "  b: {binaries: [/x]}\n", "p.yaml:10005:18: too many binaries in the policy (more than 10000)"},
		{"ports", inEndpoint("host: a, ports: [" + numbered(MaxPorts+1, "%d,") + "]"), "p.yaml:5:4038: network policy 'a': endpoint 0: ports has too many elements (1025 > 1024)"},
		{"allowed_ips", inEndpoint("port: 1, allowed_ips: [" + numbered(MaxAllowedIPs+1, "%d,") + "]"), "p.yaml:5:4044: network policy 'a': endpoint 0: allowed_ips has too many elements (1025 > 1024)"},
		{"rules", entry + "    endpoints:\n    - host: a\n      port: 1\n      protocol: rest\n      rules:\n" + strings.Repeat("      - {allow: {method: GET}}\n", MaxRules) + "      deny_rules: [{method: GET}]\n", "p.yaml:50009:20: too many rules in the policy (more than 50000)"},
		{"query patterns", entry + "    endpoints:\n    - host: a\n      port: 1\n      protocol: rest\n      rules: [{allow: {method: GET, query: {a: {any: [" + strings.Repeat("a,", MaxQueryGlobs) + "]}, b: b}}}]\n", "p.yaml:8:100062: too many query patterns in the policy (more than 50000)"},
	} {
		t.Run(tc.name, func(t *testing.T) { refuses(t, tc.text, tc.want) })
	}
}

func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i+1)
	}
	return b.String()
}

func BenchmarkParse10000Rules(b *testing.B) {
	var doc strings.Builder
	doc.WriteString("version: 1\nnetwork_policies:\n")
	for i := range 1000 {
		fmt.Fprintf(&doc, "  p%d:\n    binaries: [/usr/bin/curl]\n    endpoints:\n    - host: h%d.example.com\n      port: 443\n      protocol: rest\n      enforcement: enforce\n      rules:\n", i, i)
		doc.WriteString(numbered(10, "      - allow: {method: GET, path: /repos/%d/*/issues/**}\n"))
	}
	text := []byte(doc.String())
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("p", text); err != nil {
			b.Fatal(err)
		}
	}
}
