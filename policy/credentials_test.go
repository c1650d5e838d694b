// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCredentials(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       Credentials
	}{
		{"rewriting", rest("access: full, request_body_credential_rewrite: true, websocket_credential_rewrite: true"), Credentials{BodyRewrite: true, MessageRewrite: true}},
		{"signing", rest("access: full, credential_signing: 'sigv4:no_body', signing_service: s3, signing_region: eu-west-1, allow_uninspected_credentials: true"), Credentials{Signing: SigningNoBody, Service: "s3", Region: "eu-west-1", AllowUninspected: true}},
		{"unsearched", inEndpoint("host: a, port: 1, allow_unsearched_answers: true"), Credentials{AllowUnsearched: true}},
		{"binding", inEndpoint("host: a, port: 1, credential_binding: {provider: my aws}"), Credentials{Provider: "my aws"}},
		{"nothing said", rest("access: full, credential_binding: null, credential_signing: \"\", signing_service: \"\", request_body_credential_rewrite: false"), Credentials{}},
		{"websocket", inEndpoint("host: a, port: 1, protocol: websocket, access: full, websocket_credential_rewrite: true, deny_rules: [{method: WEBSOCKET_TEXT}]"), Credentials{MessageRewrite: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, p.Network[0].Endpoints[0].Credentials); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefusesCredentials(t *testing.T) {
	const about = "network policy 'a': endpoint 'h.example' "
	for _, tc := range []struct{ name, text, want string }{
		{"signing unknown", rest("access: full, signing_service: s3, credential_signing: sigv5"), "p.yaml:5:106: " + about + "has unrecognized credential_signing value 'sigv5' (expected sigv4, sigv4:body, or sigv4:no_body)"},
		{"signing for nobody", rest("access: full, credential_signing: sigv4"), "p.yaml:5:85: " + about + "has credential_signing set but signing_service is empty"},
		{"signing what is rewritten", rest("access: full, signing_service: s3, credential_signing: sigv4, request_body_credential_rewrite: true"), "p.yaml:5:146: " + about + "has both credential_signing and request_body_credential_rewrite set; these options are mutually exclusive"},
		{"service with a line's end", rest("access: full, credential_signing: sigv4, signing_service: \"a\\nb\""), "p.yaml:5:109: " + about + "has a signing_service with other characters than letters, digits and -._, or of more than 1024 bytes"},
		{"long region", rest("access: full, signing_region: " + strings.Repeat("a", MaxKey+1)), "p.yaml:5:81: " + about + "has a signing_region with other characters than letters, digits and -._, or of more than 1024 bytes"},
		{"binding of nothing", rest("access: full, credential_binding: {}"), "p.yaml:5:85: credential_binding.provider is required for endpoint 'h.example'"},
		{"binding with spaces", rest("access: full, credential_binding: {provider: ' a'}"), "p.yaml:5:85: credential_binding.provider ' a' must not contain leading or trailing whitespace"},
		{"long binding", rest("access: full, credential_binding: {provider: " + strings.Repeat("a", MaxKey+1) + "}"), "p.yaml:5:85: credential_binding.provider is longer than 1024 bytes"},
		{"binding with more", rest("access: full, credential_binding: {provider: a, key: b}"), "p.yaml:5:99: unknown field \"key\" in network policy 'a': endpoint 0: credential_binding"},
		{"flag that is a word", rest("access: full, request_body_credential_rewrite: \"true\""), "p.yaml:5:98: network policy 'a': endpoint 0: request_body_credential_rewrite must be true or false, got \"true\""},
		{"unsearched that is a word", rest("access: full, allow_unsearched_answers: yes please"), "p.yaml:5:91: network policy 'a': endpoint 0: allow_unsearched_answers must be true or false, got \"yes please\""},
		{"tcp", inEndpoint("host: a, port: 1, protocol: tcp, websocket_credential_rewrite: true, request_body_credential_rewrite: true"), "p.yaml:5:71: network policy 'a': endpoint 0 has invalid L7 configuration: protocol tcp does not support L7-only fields: websocket_credential_rewrite, request_body_credential_rewrite; remove those fields"},
		{"tcp, signed", inEndpoint("host: a, port: 1, protocol: tcp, credential_signing: sigv4, signing_service: s3"), "p.yaml:5:61: network policy 'a': endpoint 0 has invalid L7 configuration: protocol tcp does not support L7-only fields: credential_signing; remove those fields"},
		{"websocket without rules", inEndpoint("host: a, port: 1, protocol: websocket"), "p.yaml:5:7: network policy 'a': endpoint 0 has invalid L7 configuration: protocol requires rules or access to define allowed traffic"},
	} {
		t.Run(tc.name, func(t *testing.T) { refuses(t, tc.text, tc.want) })
	}
}

func TestCheckBindings(t *testing.T) {
	p := parsed(t, inEntry("endpoints: [{host: a, port: 1, credential_binding: {provider: work}}, {host: b, port: 1, credential_binding: {provider: home}}, {host: c, port: 1}]"))
	if err := p.CheckBindings([]Attached{{Name: "home"}, {Name: "work"}}); err != nil {
		t.Error(err)
	}
	err := p.CheckBindings([]Attached{{Name: "work"}})
	if err == nil || err.Error() != "line 3: credential_binding references provider 'home', but that provider is not attached to the sandbox" {
		t.Error(err)
	}
}

// TestCheckBindingsOfSigning checks that an endpoint that signs needs a provider which has
// both AWS keys and covers the endpoint.
func TestCheckBindingsOfSigning(t *testing.T) {
	keys := []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
	at := func(host, path string, ports ...uint16) []AttachedEndpoint {
		return []AttachedEndpoint{{Host: host, Ports: ports, Path: path}}
	}
	const s3 = "host: s3.example.com, port: 443"
	for _, tc := range []struct {
		name, endpoint string
		attached       []Attached
		ok             bool
	}{
		{"covered", s3, []Attached{{"aws", keys, at("s3.example.com", "", 443)}}, true},
		{"the second provider", s3, []Attached{{"a", nil, at("s3.example.com", "", 443)}, {"aws", keys, at("*.example.com", "/**", 80, 443)}}, true},
		{"bound", s3 + ", credential_binding: {provider: aws}", []Attached{{"aws", keys, nil}}, true},
		{"none", s3, nil, false},
		{"one key", s3, []Attached{{"aws", keys[:1], at("s3.example.com", "", 443)}}, false},
		{"the keys of two", s3, []Attached{{"a", keys[:1], at("s3.example.com", "", 443)}, {"b", keys[1:], at("s3.example.com", "", 443)}}, false},
		{"not bound", s3, []Attached{{"aws", keys, nil}}, false},
		{"another is bound", s3 + ", credential_binding: {provider: a}", []Attached{{"a", nil, nil}, {"aws", keys, at("s3.example.com", "", 443)}}, false},
		{"another host", s3, []Attached{{"aws", keys, at("s3.example.org", "", 443)}}, false},
		{"another port", s3, []Attached{{"aws", keys, at("s3.example.com", "", 80)}}, false},
		{"broken host", s3, []Attached{{"aws", keys, at("{", "", 443)}}, false},
		{"ports of two endpoints", "host: s3.example.com, ports: [80, 443]", []Attached{{"aws", keys, append(at("s3.example.com", "", 80), at("*.example.com", "", 443)...)}}, true},
		{"one of two ports", "host: s3.example.com, ports: [80, 443]", []Attached{{"aws", keys, at("s3.example.com", "", 443)}}, false},
		{"hosts", "host: '*.example.com', port: 443", []Attached{{"aws", keys, at("*.example.com", "", 443)}}, true},
		{"some of the hosts", "host: '*.example.com', port: 443", []Attached{{"aws", keys, at("s3.example.com", "", 443)}}, false},
		{"trees", "host: '**.example.com', port: 443", []Attached{{"aws", keys, at("**.example.com", "", 443)}}, true},
		{"some of the tree", "host: '**.example.com', port: 443", []Attached{{"aws", keys, append(at("*.example.com", "", 443), at("*.*.example.com", "", 443)...)}}, false},
		{"a path below", s3 + ", path: /a/b/**", []Attached{{"aws", keys, at("s3.example.com", "/a", 443)}}, true},
		{"the path", s3 + ", path: /a", []Attached{{"aws", keys, at("s3.example.com", "/a/**", 443)}}, true},
		{"a path beside", s3 + ", path: /ab/**", []Attached{{"aws", keys, at("s3.example.com", "/a", 443)}}, false},
		{"every path", s3, []Attached{{"aws", keys, at("s3.example.com", "/a/**", 443)}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := parsed(t, inEndpoint(tc.endpoint+", protocol: rest, access: full, credential_signing: sigv4, signing_service: s3"))
			err := p.CheckBindings(tc.attached)
			if (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "line 5: credential_signing at endpoint '"+p.Network[0].Endpoints[0].Host+"' needs an attached provider that has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and covers each host, port and path") {
				t.Error(err)
			}
		})
	}
}

// A decision has the credential settings of the selected endpoint and none of the other
// ones.
func TestDecisionsCarryCredentials(t *testing.T) {
	e := compiled(t, parsed(t, `version: 1
network_policies:
  api:
    binaries: [/bin/a]
    endpoints:
      - {host: s3.example.com, port: 443, protocol: rest, access: full, path: "/signed/**", credential_signing: sigv4, signing_service: s3, credential_binding: {provider: aws}}
      - {host: s3.example.com, port: 443, protocol: rest, access: full, path: "/plain/**", request_body_credential_rewrite: true, allow_uninspected_credentials: true}
      - {host: one.example.com, port: 443, protocol: rest, access: full, path: "/a/**", credential_binding: {provider: aws}}
      - {host: raw.example.com, port: 443, tls: skip, allow_uninspected_credentials: true}
      - {host: open.example.com, port: 443, allow_unsearched_answers: true}
      - {host: half.example.com, port: 443, allow_unsearched_answers: true}
      - {host: half.example.com, port: 443}
      - {host: judged.example.com, port: 443, protocol: rest, access: full, allow_unsearched_answers: true}
      - {host: l4.example.com, port: 443, credential_binding: {provider: aws}}
      - {host: path.example.com, port: 443, path: /a, credential_binding: {provider: aws}}
`), CompileOptions{})
	for _, tc := range []struct {
		host, path string
		want       Credentials
	}{
		{"s3.example.com", "", Credentials{}},
		{"s3.example.com", "/signed/x", Credentials{Signing: SigningAuto, Service: "s3", Provider: "aws"}},
		{"s3.example.com", "/plain/x", Credentials{BodyRewrite: true, AllowUninspected: true}},
		{"s3.example.com", "/none", Credentials{}},
		{"one.example.com", "/a/x", Credentials{Provider: "aws"}},
		{"one.example.com", "/b", Credentials{}},
		{"raw.example.com", "", Credentials{AllowUninspected: true}},
		{"open.example.com", "/x", Credentials{AllowUnsearched: true}},
		{"half.example.com", "/x", Credentials{}},
		{"judged.example.com", "/x", Credentials{AllowUnsearched: true}},
		{"l4.example.com", "", Credentials{Provider: "aws"}},
		{"path.example.com", "", Credentials{}},
		{"unknown.example.com", "", Credentials{}},
	} {
		r := &Request{Host: tc.host, Port: 443, Binary: "/bin/a"}
		if tc.path != "" {
			r.HTTP = &HTTP{Method: "GET", Path: tc.path}
		}
		if d := cmp.Diff(tc.want, e.Decide(r).Credentials); d != "" {
			t.Errorf("%s%s: %s", tc.host, tc.path, d)
		}
	}
}

// OptionsNamed is true for the paths and queries of a rule with the method OPTIONS.
func TestOptionsNamed(t *testing.T) {
	e := compiled(t, parsed(t, `version: 1
network_policies:
  api:
    binaries: [/bin/a]
    endpoints:
      - {host: preset.example.com, port: 443, protocol: rest, access: read-only}
      - {host: full.example.com, port: 443, protocol: rest, access: full}
      - {host: l4.example.com, port: 443}
      - host: rules.example.com
        port: 443
        path: /v1/**
        protocol: rest
        rules:
          - allow: {method: "*", path: /**}
          - allow: {method: options, path: /v1/named}
          - allow: {method: OPTIONS, path: /v2/named}
          - allow: {method: GET, path: /**}
        deny_rules: [{method: OPTIONS, path: /v1/named, query: {no: "*"}}]
`), CompileOptions{})
	for _, tc := range []struct {
		host, method, path, query string
		want                      bool
	}{
		{"rules.example.com", "OPTIONS", "/v1/named", "", true},
		{"rules.example.com", "options", "/v1/named", "", true},
		{"rules.example.com", "OPTIONS", "/v1/named", "no=1", false},
		{"rules.example.com", "OPTIONS", "/v1/other", "", false},
		{"rules.example.com", "OPTIONS", "/v2/named", "", false},
		{"rules.example.com", "GET", "/v1/named", "", false},
		{"preset.example.com", "OPTIONS", "/", "", false},
		{"full.example.com", "OPTIONS", "/", "", false},
		{"l4.example.com", "OPTIONS", "/", "", false},
	} {
		d := e.Decide(&Request{Host: tc.host, Port: 443, Binary: "/bin/a", HTTP: &HTTP{Method: tc.method, Path: tc.path, RawQuery: tc.query}})
		if d.OptionsNamed != tc.want {
			t.Errorf("%s %s%s?%s: %v, %s", tc.method, tc.host, tc.path, tc.query, d.OptionsNamed, d.Verdict)
		}
	}
}
