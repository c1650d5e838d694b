// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"net/netip"

	"openshell.dev/runtime/policy"
)

const document = `version: 1
network_policies:
  github:
    name: GitHub, read only
    endpoints:
      - host: api.github.com
        port: 443
        protocol: rest
        enforcement: enforce
        access: read-only
    binaries:
      - path: /usr/bin/curl
`

// engine compiles the document of the examples.
func engine() *policy.Engine {
	p, err := policy.Parse("policy.yaml", []byte(document))
	if err != nil {
		panic(err)
	}
	e, err := policy.Compile(p, policy.CompileOptions{})
	if err != nil {
		panic(err)
	}
	return e
}

// Parse reports every error of a document, each with its line.
func ExampleParse() {
	_, err := policy.Parse("policy.yaml", []byte("version: 2\nnetwork_polices: {}\n"))
	fmt.Println(err)
	// Output:
	// policy.yaml:1:10: version must be 1, got "2"
	// policy.yaml:2:1: unknown field "network_polices" in policy (did you mean "network_policies"?)
}

// The caller judges the connection, and then each address that the name resolves to.
func ExampleEngine_Decide_connection() {
	host, err := policy.NormalizeHost("API.GitHub.com.")
	if err != nil {
		panic(err)
	}
	d := engine().Decide(&policy.Request{Host: host, Port: 443, Binary: "/usr/bin/curl"})
	fmt.Println(d.Verdict, "by", d.Policy, "- judge its requests:", d.Inspect)

	for _, address := range []string{"140.82.121.6", "169.254.169.254"} {
		reason, ok := d.Destination.Check(netip.MustParseAddr(address), 443)
		fmt.Println(address, ok, reason)
	}
	// Output:
	// allow by github - judge its requests: true
	// 140.82.121.6 true allowed
	// 169.254.169.254 false always-blocked address
}

// If the decision about the connection has Inspect set, the caller judges each request.
func ExampleEngine_Decide_request() {
	e := engine()
	r := policy.Request{Host: "api.github.com", Port: 443, Binary: "/usr/bin/curl"}
	connection := e.Decide(&r)
	for _, method := range []string{"GET", "DELETE"} {
		path, err := policy.CanonicalPath("/repos/./owner//repo", connection.AllowEncodedSlash)
		if err != nil {
			panic(err)
		}
		r.HTTP = &policy.HTTP{Method: method, Path: path}
		fmt.Println(method, path, e.Decide(&r).Verdict)
	}
	// Output:
	// GET /repos/owner/repo allow
	// DELETE /repos/owner/repo deny
}

// A refusal has a reason. If a rule or an endpoint refused the request, it has its line, too.
func ExampleDecision_refusal() {
	e := engine()
	for _, r := range []policy.Request{
		{Host: "example.com", Port: 443, Binary: "/usr/bin/curl"},
		{Host: "api.github.com", Port: 443, Binary: "/usr/bin/wget"},
		{Host: "api.github.com", Port: 443, Binary: "/usr/bin/curl", HTTP: &policy.HTTP{Method: "DELETE", Path: "/user"}},
	} {
		d := e.Decide(&r)
		fmt.Println(d.Layer, d.Line, d.Reason)
	}
	// Output:
	// l4 0 endpoint example.com:443 is not allowed by any policy
	// l4 0 binary '/usr/bin/wget' not allowed in policy 'github' (ancestors: [], cmdline: [])
	// l7 6 DELETE /user not permitted by policy
}

// Suggest returns the smallest addition that allows a refused request.
func ExampleSuggest() {
	p, err := policy.Parse("policy.yaml", []byte(document))
	if err != nil {
		panic(err)
	}
	change, ok := policy.Suggest(p, policy.SuggestOptions{}, &policy.Request{Host: "api.github.com", Port: 443, Binary: "/usr/bin/wget"})
	fmt.Println(ok, change.Where, change.Line)
	fmt.Print(change.YAML)
	// Output:
	// true network_policies.github.binaries 3
	// - path: /usr/bin/wget
}
