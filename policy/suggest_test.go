// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"regexp"
	"strconv"
	"testing"

	"gopkg.in/yaml.v3"
)

const suggestPolicy = `version: 1
network_policies:
  api:
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, path: "/v1/**", rules: [{allow: {method: GET, path: "/v1/a"}}]}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, path: "/v2/**", access: read-only}
      - {host: "*.lan.example.com", port: 443, allowed_ips: [10.0.0.0/8]}
      - {host: skip.example.com, port: 443, tls: skip}
      - {host: auto.example.com, port: 443, tls: auto, protocol: rest, access: read-only, deny_rules: [{method: POST, path: "/no"}]}
      - {host: s3.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/a"}}], credential_signing: sigv4, signing_service: s3, signing_region: r, credential_binding: {provider: p}}
      - {host: ws.example.com, port: 443, protocol: websocket, enforcement: enforce, access: read-only, websocket_credential_rewrite: true}
      - {host: bad.example.com, port: 443, allowed_ips: [nonsense]}
    binaries: [/usr/bin/curl]
  api_new_example: {}
`

// Every suggestion, added to the document, is valid and allows the request.
func TestSuggestionsWork(t *testing.T) {
	for name, tt := range map[string]struct {
		r     Request
		where string
	}{
		"rule":               {Request{Host: "api.example.com", HTTP: &HTTP{Method: "PUT", Path: "/v1/%7Ba%7D*%5Bb%5D,@"}}, "network_policies.api.endpoints[0].rules"},
		"rule beside access": {Request{Host: "api.example.com", HTTP: &HTTP{Method: "PUT", Path: "/v2/a"}}, "network_policies.api.endpoints"},
		"no endpoint's path": {Request{Host: "api.example.com", HTTP: &HTTP{Method: "PUT", Path: "/v3/a"}}, "network_policies.api.endpoints"},
		"not the rules'":     {Request{Host: "api.example.com", HTTP: &HTTP{Method: "GET", Path: "/v1"}}, "network_policies.api.endpoints"},
		"encoded slash":      {Request{Host: "api.example.com", HTTP: &HTTP{Method: "GET", Path: "/v2/a%2Fb"}}, "network_policies.api.endpoints"},
		"encoded slash, *":   {Request{Host: "api.example.com", HTTP: &HTTP{Method: "GET", Path: "/v2/*%2Fb"}}, "network_policies.api.endpoints"},
		"audit":              {Request{Host: "auto.example.com", HTTP: &HTTP{Method: "PUT", Path: "/a"}}, "network_policies.api.endpoints"},
		"binary":             {Request{Host: "skip.example.com", Binary: "/usr/bin/git"}, "network_policies.api.binaries"},
		"binary, connection": {Request{Host: "api.example.com", Binary: "/usr/bin/git"}, "network_policies.api.binaries"},
		"binary and rule":    {Request{Host: "api.example.com", Binary: "/usr/bin/git", HTTP: &HTTP{Method: "PUT", Path: "/v2/a"}}, "network_policies"},
		"binary, addresses":  {Request{Host: "x.lan.example.com", Binary: "/usr/bin/git"}, "network_policies.api.binaries"},
		"host":               {Request{Host: "api.new.example"}, "network_policies"},
		"host with request":  {Request{Host: "api.new.example", HTTP: &HTTP{Method: "get", Path: "/a%2Fb"}}, "network_policies"},
		"signed, of a path":  {Request{Host: "s3.example.com", Binary: "/usr/bin/git", HTTP: &HTTP{Method: "PUT", Path: "/b"}}, "network_policies"},
		"message":            {Request{Host: "ws.example.com", HTTP: &HTTP{Method: MethodText, Path: "/b", WebSocket: true}}, "network_policies.api.endpoints"},
		"new websocket":      {Request{Host: "new.example.com", HTTP: &HTTP{Method: "GET", Path: "/b", WebSocket: true}}, "network_policies"},
		"address":            {Request{Host: "2001:db8::1"}, "network_policies"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tt.r
			r.Port = 443
			if r.Binary == "" {
				r.Binary = "/usr/bin/curl"
			}
			p := parsed(t, suggestPolicy)
			if d := compiled(t, p, CompileOptions{}).Decide(&r); d.Verdict == Allow {
				t.Fatal("allowed before")
			}
			c, ok := Suggest(p, SuggestOptions{}, &r)
			if !ok || c.Where != tt.where {
				t.Fatalf("%v, %+v", ok, c)
			}
			changed := parsed(t, splice(t, suggestPolicy, c))
			if d := compiled(t, changed, CompileOptions{}).Decide(&r); d.Verdict != Allow {
				t.Errorf("%s\n%+v", c.YAML, d)
			}
		})
	}
}

// TestSuggestsEveryProgram checks that a suggestion for a sandbox whose programs can trace
// each other names no program, so that the sandbox accepts it.
func TestSuggestsEveryProgram(t *testing.T) {
	const document = "version: 1\nnetwork_policies:\n  api:\n    endpoints: [{host: api.example.com, port: 443}]\n    binaries: []\n"
	for host, where := range map[string]string{"api.example.com": "network_policies.api.binaries", "new.example.com": "network_policies"} {
		r := Request{Host: host, Port: 443, Binary: "/usr/bin/git"}
		for _, every := range []bool{true, false} {
			c, ok := Suggest(parsed(t, document), SuggestOptions{EveryProgram: every}, &r)
			if !ok || c.Where != where {
				t.Fatalf("%v, %+v", ok, c)
			}
			changed := parsed(t, splice(t, document, c))
			if d := compiled(t, changed, CompileOptions{}).Decide(&r); d.Verdict != Allow || changed.NamesPrograms() == every {
				t.Errorf("%s\n%+v", c.YAML, d)
			}
		}
	}
}

func TestNoSuggestionIfNoneHelps(t *testing.T) {
	for name, r := range map[string]Request{
		"deny rule":       {Host: "auto.example.com", HTTP: &HTTP{Method: "POST", Path: "/no"}},
		"no websocket":    {Host: "ws.example.com", HTTP: &HTTP{Method: "POST", Path: "/"}},
		"bad addresses":   {Host: "bad.example.com"},
		"malformed query": {Host: "auto.example.com", HTTP: &HTTP{Method: "GET", Path: "/", RawQuery: "%"}},
		"no program":      {Host: "skip.example.com", Binary: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			r.Port = 443
			switch r.Binary {
			case "":
				r.Binary = "/usr/bin/curl"
			case "-":
				r.Binary = ""
			}
			if c, ok := Suggest(parsed(t, suggestPolicy), SuggestOptions{}, &r); ok {
				t.Errorf("%+v", c)
			}
		})
	}
}

// splice adds c to the document at the place that it names.
func splice(t *testing.T, document string, c Change) string {
	t.Helper()
	var doc, add yaml.Node
	if err := yaml.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(c.YAML), &add); err != nil {
		t.Fatal(err)
	}
	at := doc.Content[0]
	for _, step := range regexp.MustCompile(`[^.\[\]]+`).FindAllString(c.Where, -1) {
		if n, err := strconv.Atoi(step); err == nil {
			at = at.Content[n]
			continue
		}
		for i := 0; i < len(at.Content); i += 2 {
			if at.Content[i].Value == step {
				at = at.Content[i+1]
				break
			}
		}
	}
	if at.Kind != add.Content[0].Kind {
		t.Fatalf("%s is no place for %s", c.Where, c.YAML)
	}
	at.Content = append(at.Content, add.Content[0].Content...)
	text, err := yaml.Marshal(&doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}
