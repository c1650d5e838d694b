// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parsed(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func compiled(t *testing.T, p *Policy, o CompileOptions) *Engine {
	t.Helper()
	e, err := Compile(p, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Requests of an attacker to an endpoint that allows everything.
func openEndpoint() Endpoint {
	return Endpoint{Host: "api.example.com", Ports: []uint16{443}, Protocol: ProtocolREST, Access: AccessFull, AllowEncodedSlash: true}
}

func onePolicy(ep Endpoint, binaries ...string) *Policy {
	n := NetworkPolicy{Key: "api", Endpoints: []Endpoint{ep}}
	for _, b := range binaries {
		n.Binaries = append(n.Binaries, Binary{Path: b})
	}
	return &Policy{Network: []NetworkPolicy{n}}
}

func TestZeroEngineDenies(t *testing.T) {
	var e Engine
	d := e.Decide(&Request{Host: "api.example.com", Port: 443, Binary: "/usr/bin/curl", HTTP: &HTTP{Method: "GET", Path: "/"}})
	if d.Verdict != Deny || d.Reason != "network connections not allowed by policy" || e.MayResolve("api.example.com") {
		t.Errorf("%+v", d)
	}
}

func TestUnknownIsDenied(t *testing.T) {
	hostless := openEndpoint()
	hostless.Host, hostless.AllowedIPs = "", []string{"10.0.0.0/8"}
	tests := []struct {
		name string
		ep   Endpoint
		r    Request
		why  string
	}{
		{"no program", openEndpoint(), Request{Host: "api.example.com"}, "binary '' not allowed"},
		{"no program but ancestors", openEndpoint(), Request{Host: "api.example.com", Ancestors: []string{"/usr/bin/curl"}}, "binary '' not allowed"},
		{"no host", hostless, Request{Binary: "/x"}, "endpoint :443 is not allowed by any policy"},
		{"no method", openEndpoint(), Request{Host: "api.example.com", Binary: "/x", HTTP: &HTTP{Path: "/"}}, "request has no method or no path"},
		{"no path", openEndpoint(), Request{Host: "api.example.com", Binary: "/x", HTTP: &HTTP{Method: "GET"}}, "request has no method or no path"},
		{"path that is none", openEndpoint(), Request{Host: "api.example.com", Binary: "/x", HTTP: &HTTP{Method: "OPTIONS", Path: "*"}}, "request has no method or no path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.r.Port = 443
			e := compiled(t, onePolicy(tt.ep, "**", "/**"), CompileOptions{Revision: 7})
			d := e.Decide(&tt.r)
			if d.Verdict != Deny || !strings.Contains(d.Reason, tt.why) || d.Revision != 7 {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestEmptyAncestorMatchesNoBinary(t *testing.T) {
	e := compiled(t, onePolicy(openEndpoint(), "**"), CompileOptions{})
	if e.policies[0].binaries.has("") {
		t.Error("an empty path matches **")
	}
}

func TestCompileRefuses(t *testing.T) {
	endpoint := func(change func(*Endpoint)) *Policy {
		ep := openEndpoint()
		change(&ep)
		return onePolicy(ep, "/x")
	}
	rule := func(r Rule) *Policy {
		return endpoint(func(e *Endpoint) { e.Access, e.Rules = AccessNone, []Rule{r} })
	}
	query := func(globs ...string) []QueryRule { return []QueryRule{{Key: "k", Globs: globs}} }
	tests := []struct {
		name string
		p    *Policy
		o    CompileOptions
		want string
	}{
		{"unspecified enforcement", &Policy{}, CompileOptions{UnspecifiedEnforcement: "block"}, `unspecified enforcement: unknown enforcement "block"`},
		{"enforcement", endpoint(func(e *Endpoint) { e.Enforcement = "Enforce" }), CompileOptions{}, `network policy "api": endpoints[0]: unknown enforcement "Enforce"`},
		{"protocol", endpoint(func(e *Endpoint) { e.Protocol = "sql" }), CompileOptions{}, `protocol "sql" is not enforced`},
		{"access", endpoint(func(e *Endpoint) { e.Access = "readonly" }), CompileOptions{}, `access: unknown preset "readonly"`},
		{"access and rules", endpoint(func(e *Endpoint) { e.Rules = []Rule{{Method: "GET", Path: "/"}} }), CompileOptions{}, "access: excludes rules"},
		{"no host", endpoint(func(e *Endpoint) { e.Host = "" }), CompileOptions{}, "host is empty without allowed_ips"},
		{"host pattern", endpoint(func(e *Endpoint) { e.Host = "*.{a.example.com" }), CompileOptions{}, "{ without }"},
		{"path", endpoint(func(e *Endpoint) { e.Path = "/[" }), CompileOptions{}, "[ without ]"},
		{"rule path", rule(Rule{Method: "GET", Path: "/["}), CompileOptions{}, "rules[0].path: "},
		{"query pattern", rule(Rule{Method: "GET", Path: "/", Query: query("[")}), CompileOptions{}, "rules[0].query.k: "},
		{"query without patterns", rule(Rule{Method: "GET", Path: "/", Query: query()}), CompileOptions{}, "rules[0].query: has no pattern for k"},
		{"binary", onePolicy(openEndpoint(), "/*["), CompileOptions{}, `network policy "api": binaries[0]: `},
		{"key twice", &Policy{Network: []NetworkPolicy{{Key: "a"}, {Key: "b"}, {Key: "a"}}}, CompileOptions{}, `network policy "a" occurs twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Compile(tt.p, tt.o)
			if e != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestMayResolve(t *testing.T) {
	e := compiled(t, parsed(t, `version: 1
network_policies:
  a:
    endpoints: [{host: api.example.com, port: 1}, {host: "*.example.org", port: 443}]
`), CompileOptions{Revision: 3})
	for host, want := range map[string]bool{
		"api.example.com": true, "x.example.org": true, "example.org": false, "a.x.example.org": false,
		"secret.api.example.com": false, "": false, "org": false,
	} {
		if e.MayResolve(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if e.Revision() != 3 {
		t.Error("revision", e.Revision())
	}
}

func TestDecisionTakesConnectionFromFirstConfig(t *testing.T) {
	p := parsed(t, `version: 1
network_policies:
  b:
    endpoints: [{host: skip.example.com, port: 443, tls: skip}]
    binaries: [/x]
  c:
    endpoints: [{host: raw.example.com, port: 5432, protocol: tcp}, {host: rest.example.com, port: 443, protocol: rest, access: full, allow_encoded_slash: true}]
    binaries: [/x]
`)
	e := compiled(t, p, CompileOptions{})
	type flags struct{ Inspect, TLSSkip, TCP, AllowEncodedSlash bool }
	for _, tt := range []struct {
		host string
		port uint16
		want flags
	}{
		{"skip.example.com", 443, flags{TLSSkip: true}},
		{"raw.example.com", 5432, flags{TCP: true}},
		{"rest.example.com", 443, flags{Inspect: true, AllowEncodedSlash: true}},
		{"other.example.com", 443, flags{}},
	} {
		d := e.Decide(&Request{Host: tt.host, Port: tt.port, Binary: "/x"})
		if diff := cmp.Diff(tt.want, flags{d.Inspect, d.TLSSkip, d.TCP, d.AllowEncodedSlash}); diff != "" {
			t.Errorf("%s: %s", tt.host, diff)
		}
	}
}

// A name with many endpoints gets the same decisions as one with few.
func TestManyMatches(t *testing.T) {
	p := onePolicy(openEndpoint(), "/x")
	for range 2 * usualMatches {
		p.Network[0].Endpoints = append(p.Network[0].Endpoints, openEndpoint())
	}
	last := openEndpoint()
	last.DenyRules = []Rule{{Method: "GET", Path: "/no"}}
	last.Enforcement = EnforcementBlock
	p.Network[0].Endpoints = append(p.Network[0].Endpoints, last)
	e := compiled(t, p, CompileOptions{})
	for path, want := range map[string]Verdict{"/no": Deny, "/yes": Allow} {
		d := e.Decide(&Request{Host: "api.example.com", Port: 443, Binary: "/x", HTTP: &HTTP{Method: "GET", Path: path}})
		if d.Verdict != want {
			t.Errorf("%s: %+v", path, d)
		}
	}
}

func TestReasonIsBounded(t *testing.T) {
	p := &Policy{}
	for i := range maxMisses + 3 {
		p.Network = append(p.Network, NetworkPolicy{Key: fmt.Sprintf("p%02d", i), Endpoints: []Endpoint{openEndpoint(), openEndpoint()}})
	}
	d := compiled(t, p, CompileOptions{}).Decide(&Request{Host: "api.example.com", Port: 443, Binary: "/x"})
	if n := strings.Count(d.Reason, "not allowed in policy"); n != maxMisses || !strings.HasSuffix(d.Reason, "; and 3 more") {
		t.Errorf("%d policies: %s", n, d.Reason)
	}
}

func TestVerdictTexts(t *testing.T) {
	got := []string{Verdict(0).String(), Audit.String(), Allow.String(), Layer(0).String(), L7.String()}
	if diff := cmp.Diff([]string{"deny", "audit", "allow", "l4", "l7"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestBinaries(t *testing.T) {
	p := parsed(t, `version: 1
network_policies:
  a: {binaries: [/usr/bin/git, "/opt/**", /bin/sh]}
  b: {binaries: [/bin/sh, {path: "/bin/[x]"}]}
`)
	if diff := cmp.Diff([]string{"/bin/[x]", "/bin/sh", "/usr/bin/git"}, p.Binaries()); diff != "" {
		t.Error(diff)
	}
}

// TestBypass_B37_ProgramFields: every rule that names a program is found, whatever binary
// other than /** it has.
func TestBypass_B37_ProgramFields(t *testing.T) {
	for document, want := range map[string][]string{
		"":                            nil,
		"network_policies: {a: {}}\n": nil,
		`network_policies: {a: {binaries: ["/**"]}, b: {binaries: [{path: "/**"}]}}` + "\n":                 nil,
		"network_policies: {a: {binaries: [/bin/git]}}\n":                                                   {"network_policies.a.binaries[0]"},
		`network_policies: {a: {binaries: ["/**", "/usr/**"]}, b: {binaries: ["/*/**"]}}` + "\n":            {"network_policies.a.binaries[1]", "network_policies.b.binaries[0]"},
		`network_policies: {a: {binaries: ["/**"]}, b: {binaries: [{path: /bin/x, harness: true}]}}` + "\n": {"network_policies.b.binaries[0]"},
	} {
		p := parsed(t, "version: 1\n"+document)
		if got := p.ProgramFields(); !slices.Equal(got, want) || p.NamesPrograms() != (len(want) > 0) {
			t.Errorf("%s%q, want %q", document, got, want)
		}
	}
	many := &Policy{Network: make([]NetworkPolicy, 2*MaxProgramFields)}
	for i := range many.Network {
		many.Network[i].Binaries = []Binary{{Path: "/bin/x"}}
	}
	if n := len(many.ProgramFields()); n != MaxProgramFields {
		t.Errorf("%d fields", n)
	}
}

func TestStaticDiff(t *testing.T) {
	id := func(n uint32) *uint32 { return &n }
	base := func() *Policy {
		return &Policy{
			Filesystem: Filesystem{ReadOnly: []string{"/usr", "/etc"}, ReadWrite: []string{"/tmp"}},
			Process:    Process{User: id(1000)},
		}
	}
	for name, tt := range map[string]struct {
		change func(*Policy)
		want   []string
	}{
		"nothing":          {func(*Policy) {}, nil},
		"order, repeated":  {func(p *Policy) { p.Filesystem.ReadOnly = []string{"/etc", "/usr", "/etc"} }, nil},
		"the network":      {func(p *Policy) { p.Network = []NetworkPolicy{{Key: "a"}} }, nil},
		"equal user":       {func(p *Policy) { p.Process.User = id(1000) }, nil},
		"read_only":        {func(p *Policy) { p.Filesystem.ReadOnly = []string{"/usr"} }, []string{"filesystem_policy.read_only"}},
		"read_write":       {func(p *Policy) { p.Filesystem.ReadWrite = nil }, []string{"filesystem_policy.read_write"}},
		"include_workdir":  {func(p *Policy) { p.Filesystem.IncludeWorkdir = true }, []string{"filesystem_policy.include_workdir"}},
		"compatibility":    {func(p *Policy) { p.Landlock.Hard = true }, []string{"landlock.compatibility"}},
		"user":             {func(p *Policy) { p.Process.User = id(1001) }, []string{"process.run_as_user"}},
		"no user":          {func(p *Policy) { p.Process.User = nil }, []string{"process.run_as_user"}},
		"sandbox and more": {func(p *Policy) { p.Process = Process{SandboxUser: true, SandboxGroup: true} }, []string{"process.run_as_user", "process.run_as_group"}},
		"group":            {func(p *Policy) { p.Process.Group = id(5) }, []string{"process.run_as_group"}},
	} {
		t.Run(name, func(t *testing.T) {
			changed := base()
			tt.change(changed)
			if diff := cmp.Diff(tt.want, StaticDiff(base(), changed)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.want, StaticDiff(changed, base())); diff != "" {
				t.Error("the other way round", diff)
			}
		})
	}
}

func TestDenyAll(t *testing.T) {
	e := DenyAll(7, "because")
	for _, r := range []*Request{{}, {Host: "api.example.com", Port: 443, Binary: "/bin/x", HTTP: &HTTP{Method: "GET", Path: "/"}}} {
		if d := e.Decide(r); d.Verdict != Deny || d.Reason != "because" || d.Revision != 7 {
			t.Errorf("%+v", d)
		}
	}
	if e.MayResolve("api.example.com") || e.Revision() != 7 {
		t.Error("it knows a name")
	}
}
