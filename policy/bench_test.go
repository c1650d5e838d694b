// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// manyRules returns a policy with n rules. Half of the hosts are patterns, and one host has
// as many rules as all others have endpoints.
func manyRules(t testing.TB, n int) *Engine {
	p := &Policy{Network: []NetworkPolicy{{
		Key: "api", Binaries: []Binary{{Path: "/usr/bin/curl"}},
		Endpoints: []Endpoint{{Host: "api.example.com", Ports: []uint16{443}, Protocol: ProtocolREST, Enforcement: EnforcementBlock}},
	}}}
	api := &p.Network[0].Endpoints[0]
	api.DenyRules = []Rule{{Method: "DELETE", Path: "/**"}}
	for i := range (n + 1) / 2 {
		api.Rules = append(api.Rules, Rule{Method: "GET", Path: fmt.Sprintf("/repos/r%d/**", i), Query: []QueryRule{{Key: "page", Globs: []string{"*"}}}})
	}
	for i := range n / 2 {
		host := fmt.Sprintf("h%d.example.net", i)
		if i%2 == 0 {
			host = fmt.Sprintf("*.d%d.example", i)
		}
		p.Network = append(p.Network, NetworkPolicy{
			Key: fmt.Sprintf("p%05d", i), Binaries: []Binary{{Path: "/usr/bin/*"}},
			Endpoints: []Endpoint{{Host: host, Ports: []uint16{443}}},
		})
	}
	e, err := Compile(p, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func allowedRequests(n int) map[string]*Request {
	ancestors := []string{"/usr/bin/node", "/bin/bash"}
	l7 := &Request{Host: "api.example.com", Port: 443, Binary: "/bin/x", Ancestors: append([]string{"/usr/bin/curl"}, ancestors...)}
	l7.HTTP = &HTTP{Method: "get", Path: fmt.Sprintf("/repos/r%d/issues/1", (n-1)/2), RawQuery: "page=2&sort=up"}
	l4 := *l7
	l4.HTTP = nil
	out := map[string]*Request{"l7": l7, "l4": &l4}
	if n > 2 {
		wildcard := l4
		wildcard.Host = fmt.Sprintf("x.d%d.example", (n/2-1)/2*2)
		out["wildcard"] = &wildcard
	}
	return out
}

func TestAllowedDecisionsDoNotAllocate(t *testing.T) {
	for _, n := range []int{1, 100, 10000} {
		e := manyRules(t, n)
		for name, r := range allowedRequests(n) {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				var d Decision
				if got := testing.AllocsPerRun(100, func() { d = e.Decide(r) }); got != 0 || d.Verdict != Allow {
					t.Errorf("%s with %v allocations: %+v", d.Verdict, got, d)
				}
				if got := testing.AllocsPerRun(100, func() { e.MayResolve(r.Host) }); got != 0 {
					t.Errorf("MayResolve: %v allocations", got)
				}
			})
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		e := manyRules(b, n)
		for name, r := range allowedRequests(n) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e.Decide(r)
				}
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		manyRules(b, 10000)
	}
}

// The workload controls the text, so no text may take long to match.
func TestGlobTimeIsBounded(t *testing.T) {
	path := "/" + strings.Repeat("a", MaxURLPath-1)
	segments := strings.Repeat("/a", MaxURLPath/2)
	for name, pattern := range map[string]string{
		"stars":             "/" + strings.Repeat("a*", MaxGlob/2-2) + "b",
		"trees":             "/" + strings.Repeat("**/a/", MaxGlob/5-2) + "b",
		"tree and stars":    "/**/" + strings.Repeat("*a", MaxGlob/2-4) + "b",
		"tree and segments": "/**/" + strings.Repeat("*/", MaxGlob/2-4) + "b",
		"braces":            "/" + strings.Repeat("{a,*}", 8) + "b",
	} {
		t.Run(name, func(t *testing.T) {
			g, err := CompileGlob(pattern, '/')
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if g.Match(path) || g.Match(segments) {
				t.Error("matches")
			}
			if s := newSelector(pattern); s.match(path) || s.match(segments) {
				t.Error("selects")
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}
