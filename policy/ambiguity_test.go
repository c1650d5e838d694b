// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// ambiguous returns a document with two endpoints.
func ambiguous(a, b string) string {
	return "version: 1\nnetwork_policies:\n  a: {endpoints: [{" + a + "}]}\n  b: {endpoints: [{" + b + "}], name: B}\n"
}

func TestParseRefusesAmbiguity(t *testing.T) {
	const text = "p.yaml:4:19: network policies 'a' endpoint[0] (%s) and 'B' endpoint[0] (%s) overlap on port(s) %s with conflicting metadata: %s (the other is in line 3)"
	const rest = "host: h.example.com, port: 1, protocol: rest, access: full, "
	for _, tc := range []struct{ name, a, b, nameA, nameB, ports, conflict string }{
		{"tls", "host: h, ports: [2, 1, 3, 1], tls: skip", "host: H, ports: [3, 4, 2]", "h:1,2,3", "h:2,3,4", "2,3", `tls="skip" vs "auto"`},
		{"tcp", "host: h, port: 1, protocol: tcp", "host: h, port: 1", "h:1", "h:1", "1", "transparent_tcp_eligible=true vs false"},
		{"allowed_ips", "host: h, port: 1, allowed_ips: [10.0.0.2, 10.0.0.1, 10.0.0.2]", "host: h, port: 1", "h:1", "h:1", "1", `allowed_ips=["10.0.0.1", "10.0.0.2"] vs []`},
		{"a pattern", "host: '*.b.c', port: 1, tls: skip", "host: a.b.c, port: 1", "*.b.c:1", "a.b.c:1", "1", `tls="skip" vs "auto"`},
		{"a pattern that comes later", "host: a.b.c, port: 1, tls: skip", "host: '**.b.c', port: 1", "a.b.c:1", "**.b.c:1", "1", `tls="skip" vs "auto"`},
		{"two patterns", "host: 'a*.b.c', port: 1, tls: skip", "host: '*z.b.c', port: 1", "a*.b.c:1", "*z.b.c:1", "1", `tls="skip" vs "auto"`},
		{"any host", "port: 1, allowed_ips: [10.0.0.1]", "host: h, port: 1", "<any-host>:1", "h:1", "1", `allowed_ips=["10.0.0.1"] vs []`},
		{"searching answers or not", rest + "allow_unsearched_answers: true", rest, "h.example.com:1", "h.example.com:1", "1", `allow_unsearched_answers=true vs false`},
		{"enforcement", rest + "enforcement: enforce", rest, "h.example.com:1", "h.example.com:1", "1", `enforcement="enforce" vs "audit"`},
		{"encoded slash", rest + "path: /a", rest + "path: '/?', allow_encoded_slash: true", "h.example.com:1/a", "h.example.com:1/?", "1", "allow_encoded_slash=false vs true"},
		{"two spellings of a path", rest + "path: '/%40é'", rest + "path: '/@%C3%A9', enforcement: enforce", "h.example.com:1/%40é", "h.example.com:1/@%C3%A9", "1", `enforcement="audit" vs "enforce"`},
		{"rewriting", rest + "request_body_credential_rewrite: true", rest + "websocket_credential_rewrite: true", "h.example.com:1", "h.example.com:1", "1", "websocket_credential_rewrite=false vs true; request_body_credential_rewrite=true vs false"},
		{"signing", rest + "credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1", rest, "h.example.com:1", "h.example.com:1", "1", `credential_signing="sigv4" vs ""; signing_service="s3" vs ""; signing_region="eu-west-1" vs ""`},
		{"bindings without a protocol", "host: h, port: 1, credential_binding: {provider: a}", "host: h, port: 1, credential_binding: {provider: b}", "h:1", "h:1", "1", `credential_binding.provider="a" vs "b"`},
		{"websocket beside rest", "host: h.example.com, port: 1, protocol: websocket, access: full", rest, "h.example.com:1", "h.example.com:1", "1", `protocol="websocket" vs "rest"`},
		{"lists that share entries", "host: h, port: 1, allowed_ips: [10.0.0.1, 10.0.0.2, 10.0.0.3]", "host: h, port: 1, allowed_ips: [10.0.0.3, 10.0.0.4, 10.0.0.1]", "h:1", "h:1", "1", `allowed_ips=["10.0.0.2"] vs ["10.0.0.4"]`},
		{"all of it", rest + "tls: skip", rest + "enforcement: enforce", "h.example.com:1", "h.example.com:1", "1", `tls="skip" vs "auto"; enforcement="audit" vs "enforce"`},
		{"a connection beside paths that do not meet", rest + "tls: skip, path: /a", rest + "path: /b", "h.example.com:1/a", "h.example.com:1/b", "1", `tls="skip" vs "auto"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refuses(t, ambiguous(tc.a, tc.b), fmt.Sprintf(text, tc.nameA, tc.nameB, tc.ports, tc.conflict))
		})
	}
}

func TestParseAcceptsDisjointEndpoints(t *testing.T) {
	const rest = "host: h.example.com, port: 1, protocol: rest, access: full, "
	for _, tc := range []struct{ name, a, b string }{
		{"the same twice", rest, rest},
		{"a literal * is no pattern", rest + "path: '/%2Ab'", rest + "path: '/ab', enforcement: enforce"},
		{"audit is the default", rest + "enforcement: audit", rest},
		{"other words for auto", "host: h, port: 1, tls: terminate", "host: h, port: 1, tls: passthrough"},
		{"allowed_ips in another order", "host: h, port: 1, allowed_ips: [10.0.0.1, FD00::1]", "host: h, port: 1, allowed_ips: [fd00::1, 10.0.0.1, 10.0.0.1]"},
		{"other ports", "host: h, ports: [1, 2], tls: skip", "host: h, port: 3"},
		{"other hosts", "host: h, port: 1, tls: skip", "host: i, port: 1"},
		{"a pattern for other hosts", "host: '*.b.c', port: 1, tls: skip", "host: a.a.b.c, port: 1"},
		{"patterns for other hosts", "host: '*.x.c', port: 1, tls: skip", "host: '*.y.c', port: 1"},
		{"searching or not", rest + "allow_uninspected_credentials: true", rest},
		{"a tls field that means nothing", rest, "host: h.example.com, port: 1, tls: terminate"},
		{"L4 beside L7", rest + "enforcement: enforce", "host: h.example.com, port: 1"},
		{"a path with a higher rank", rest + "enforcement: enforce, path: /a/**", rest + "path: /a/b"},
		{"paths that do not meet", rest + "enforcement: enforce, path: /a/**", rest + "path: /b/**"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Parse("p", []byte(ambiguous(tc.a, tc.b))); err != nil {
				t.Error(err)
			}
		})
	}
}

// All contradicting endpoints are reported, in order.
func TestParseRefusesAmbiguityOfEach(t *testing.T) {
	_, err := Parse("p.yaml", []byte(ambiguous("host: '*.b.c', port: 1}, {host: x, port: 1, tls: skip}, {host: x, port: 1", "host: a.b.c, port: 1, tls: skip")))
	if err == nil {
		t.Fatal("accepted")
	}
	var places []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		place, _, _ := strings.Cut(l, ": ")
		places = append(places, place)
	}
	if got := strings.Join(places, " "); got != "p.yaml:4:19 p.yaml:3:76" {
		t.Error(err)
	}
}

// TestAmbiguitiesOfOneHost checks that the search ends after one contradiction more than
// the reader reports, also among endpoints of one host.
func TestAmbiguitiesOfOneHost(t *testing.T) {
	e := entry{}
	for i := range 2 * (MaxProblems + 2) {
		e.Endpoints = append(e.Endpoints, Endpoint{Host: "h", Ports: []uint16{1}, TLSSkip: i%2 == 0})
	}
	e.nodes = make([]*yaml.Node, len(e.Endpoints))
	found, left := contradictions(contenders([]entry{e}))
	if len(found) != MaxProblems+1 || left < 0 {
		t.Errorf("%d found, %d steps left", len(found), left)
	}
}

// TestParseBoundsAmbiguity checks that no document keeps the reader busy for long. It
// counts steps instead of time, because on a loaded machine any time limit is too short.
func TestParseBoundsAmbiguity(t *testing.T) {
	half := MaxEndpoints / 2
	for _, tc := range []struct {
		name, endpoints string
		steps           int // at most
		ok              bool
	}{
		{"distinct hosts", numbered(half, "    - {host: h%d.example.com, port: 1}\n") + numbered(half, "    - {host: i%d.example.com, port: 1, tls: skip}\n"), 0, true},
		{"one host", numbered(half, "    - {host: h, port: 1, path: /%05d}\n") + numbered(half, "    - {host: h, port: 1, path: /%05d/x}\n"), 0, true},
		{"some patterns", numbered(100, "    - {host: '*.h%d.example.com', port: 1, tls: skip}\n") + numbered(half, "    - {host: i%d.example.com, port: 1}\n"), 100 * (half + 100), true},
		// The last step is the comparison that exceeds the bound.
		{"many patterns", numbered(half, "    - {host: 'a%d*.*.*.*.com', port: 1, tls: skip}\n") + numbered(half, "    - {host: 'b%d*.*.*.*.com', port: 1}\n"), MaxOverlapWork + 4*overlapCost, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints:\n" + tc.endpoints)
			_, err := Parse("p.yaml", text)
			if (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "p.yaml:5:7: network_policies have too many endpoints with overlapping hosts") {
				t.Error(err)
			}
			var p struct {
				Network map[string]struct {
					Endpoints []struct {
						Host, Path, TLS string
						Port            uint16
					}
				} `yaml:"network_policies"`
			}
			if err := yaml.Unmarshal(text, &p); err != nil {
				t.Fatal(err)
			}
			e := entry{}
			for _, ep := range p.Network["a"].Endpoints {
				e.Endpoints = append(e.Endpoints, Endpoint{Host: ep.Host, Path: ep.Path, TLSSkip: ep.TLS == "skip", Ports: []uint16{ep.Port}})
			}
			e.nodes = make([]*yaml.Node, len(e.Endpoints))
			found, left := contradictions(contenders([]entry{e}))
			if steps := MaxOverlapWork - left; steps > tc.steps || tc.ok && len(found) > 0 {
				t.Errorf("%d steps of at most %d, %d found", steps, tc.steps, len(found))
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		d    dialect
		want bool
	}{
		{"/a", "/a", ruleDialect, true},
		{"/a", "/b", ruleDialect, false},
		{"/a", "/ab", ruleDialect, false},
		{"/*", "/a/b", ruleDialect, false},
		{"/*", "/a/b", selectorDialect, true},
		{"/**", "/a/b", ruleDialect, true},
		{"/**/b", "/b", ruleDialect, true},
		{"/a**", "/a/b", ruleDialect, false},
		{"/?", "/a", ruleDialect, true},
		{"/?", "//", ruleDialect, false},
		{"/[a-c]", "/b", ruleDialect, true},
		{"/[a-c]", "/d", ruleDialect, false},
		{"/[!a-c]", "/b", ruleDialect, false},
		{"/[^a]", "/b", ruleDialect, true},
		{"/[ab", "/a", ruleDialect, false},
		{"/{a,{b,\\}}}/x", "/b/x", ruleDialect, true},
		{"/{a,b}/x", "/b/y", ruleDialect, false},
		{"/{a", "/{a", selectorDialect, true},
		{"/{a", "/zzz", ruleDialect, true},
		{`/\*`, "/*", ruleDialect, true},
		{`/\*`, "/a", ruleDialect, false},
		{"/a*c", "/*bc", ruleDialect, true},
		{"/a*c", "/b*c", ruleDialect, false},
		{"/x*", "/*", ruleDialect, true},
	} {
		for _, p := range [][2]string{{tc.a, tc.b}, {tc.b, tc.a}} {
			work := 1000
			if got := overlap(tokens(p[0], '/', tc.d), tokens(p[1], '/', tc.d), &work); got != tc.want {
				t.Errorf("%q and %q: %v", p[0], p[1], got)
			}
		}
	}
	work := overlapCost + 6
	if !overlap(tokens("/aaaa", '/', ruleDialect), tokens("/aaab", '/', ruleDialect), &work) {
		t.Error("said no without having looked at all of it")
	}
}

// overlap must return true for two patterns that match the same text.
func FuzzOverlap(f *testing.F) {
	f.Add("/**/[a-c]?", "/{x,y}/b*", "/x/bz")
	f.Add("*.a.com", "**.com", "b.a.com")
	f.Fuzz(func(t *testing.T, a, b, s string) {
		if len(a)+len(b)+len(s) > 200 {
			return
		}
		for _, sep := range []byte("/.") {
			ga, erra := CompileGlob(a, sep)
			gb, errb := CompileGlob(b, sep)
			if erra != nil || errb != nil || !ga.Match(s) || !gb.Match(s) {
				continue
			}
			work := 1 << 20
			if !overlap(tokens(a, sep, ruleDialect), tokens(b, sep, ruleDialect), &work) {
				t.Errorf("%q and %q both match %q, and do not overlap", a, b, s)
			}
		}
	})
}
