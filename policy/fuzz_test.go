// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// choices converts a fuzzer's bytes to small policies and requests.
type choices struct{ data []byte }

func (c *choices) n(limit int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % limit
}

func (c *choices) yes(oneIn int) bool { return c.n(oneIn) == oneIn-1 }

func pick[T any](c *choices, from []T) T { return from[c.n(len(from))] }

var (
	somePatterns = list{"", "**", "/**", "/a/**", "/a", "/a/*", "/*/b", "/a/**/b", "/a*", "/a**", "/{a,b}/c", "/[ab]/?", "/a/b/*", "/**/b", "/[!a]/**", "/a/*b*/c", `/\a`, "/*", "/a/", "/%40x", "/@x/**", "/é", "/%2A/**", "/a/b/**", "/[@!]?", "/a?b", "/a/**/", "/%7b", "/a%2fb", "/a%2F/**"}
	somePaths    = list{"/", "/a", "/a/", "/a/b", "/a/b/c", "/b/c", "/b", "/ab", "/a%2Fb", "/a/xbx/c", "/x/y/b", "/a/b/b", "/a/b/", "/@x", "/@x/", "/%C3%A9", "/%C3%A9/", "/*", "/a", "/a/", "/a%20b", "/@%20", "/%7B", "/%2Fa", "/a%2F", "/a%2Fb%2Fc", "/@x%2Fy", "/caf%E9", "/a/%FF/b"}
	someHosts    = list{"a.example.com", "a.example.com", "a.example.com", "b.example.com", "a.b.example.com", "example.com", "10.1.2.3", "x.s3.eu.aws.com", "other.org"}
	hostPatterns = list{"a.example.com", "a.example.com", "a.example.com", "b.example.com", "*.example.com", "**.example.com", "a*.example.com", "10.1.2.3", "*.s3.*.aws.com", "*.b.example.com", "{a,b}*.example.com", `*.exam\ple.com`, "*.exa[lm]ple.com"}
	// selectorHosts are host patterns of middlewares.
	selectorHosts = list{"**", "*", "a.example.com", "A.Example.com", "*.example.com", "**.example.com", "a.**.com", "?.example.com", "[ab].example.com", "[!a].example.com", "**.**.com", "x*.s3.**.com", "10.1.2.*", "other.org"}
	somePorts     = []uint16{443, 443, 80}
	someMethods   = list{"GET", "get", "HEAD", "POST", "DELETE", "*", "", "QUERY", "websocket_text"}
	someBinaries  = list{"/usr/bin/curl", "/usr/bin/curl", "/bin/sh", "/usr/bin/git", "/opt/a/b", ""}
	binPatterns   = list{"/usr/bin/curl", "/usr/bin/curl", "/bin/sh", "/usr/bin/*", "/**", "/opt/**", "/usr/bin/gi?", "**"}
	queryGlobs    = list{"1", "*", "**", "1.*", "a b", "", "{x,y}", "é", "%c3%A9", "%31", `%2a`}
	someQueries   = list{"", "q=1", "q=1&q=2", "q=1.2", "q=a+b", "q=%31", "q=%zz", "k=x&q=y", "q", "&&q=1.2.3", "q=%ff", "%71=1", "Q=1", "q[]=1", "k=1;q=1", "q=%2531", "q=%25252525252531", "q=%00", "q=%C3%A9", "q=1;k=x", "q=1&Q=2", "[q]=1", "]q=1", "q]=1&q=x", "k[q=1", "q=a%0Ab", "k=%09", "q=1%0D", "%0Aq=1", "q%5b0%5D=1&q=x", "q=%31;", "q=*"}
	someIPs       = list{"10.0.0.0/8", "10.1.2.3", "8.8.8.8", "127.0.0.1", "nonsense"}
)

func (c *choices) rules(most int) []Rule {
	var out []Rule
	for range c.n(most + 1) {
		r := Rule{Method: pick(c, someMethods), Path: pick(c, somePatterns)}
		if c.yes(3) {
			q := QueryRule{Key: pick(c, list{"q", "k", "k_q"})}
			for range 1 + c.n(2) {
				q.Globs = append(q.Globs, pick(c, queryGlobs))
			}
			r.Query = append(r.Query, q)
		}
		out = append(out, r)
	}
	return out
}

func (c *choices) endpoint() Endpoint {
	ep := Endpoint{Host: pick(c, hostPatterns), Protocol: pick(c, []Protocol{"rest", "", "rest", "tcp", "websocket"}), Enforcement: pick(c, []Enforcement{"enforce", "", "audit"}), AllowEncodedSlash: c.yes(4)}
	for range 1 + c.n(2) {
		ep.Ports = append(ep.Ports, pick(c, somePorts))
	}
	if c.yes(2) {
		ep.Path = pick(c, somePatterns)
	}
	ep.TLSSkip = c.yes(6) && c.yes(2) && (!ep.Protocol.judges() || ep.Enforcement == EnforcementAudit)
	if c.yes(5) {
		ep.AllowedIPs = list{pick(c, someIPs)}
		if c.yes(2) {
			ep.Host = ""
		}
	}
	if ep.Rules = c.rules(3); len(ep.Rules) == 0 {
		ep.Access = pick(c, []Access{"", "read-only", "read-write", "full"})
	}
	ep.DenyRules = c.rules(1)
	if c.yes(3) {
		ep.Credentials = Credentials{
			BodyRewrite: c.yes(2), MessageRewrite: c.yes(2), AllowUninspected: c.yes(2), Signing: pick(c, []Signing{"", "sigv4", "sigv4:body"}),
			Provider: pick(c, list{"", "work", "home"}),
		}
	}
	return ep
}

func (c *choices) policy() (*Policy, CompileOptions) {
	p, o := &Policy{}, CompileOptions{Revision: c.n(3)}
	for i := range (c.n(5) + 3) % 5 {
		n := NetworkPolicy{Key: string(rune('a' + i))}
		for range c.n(4) {
			n.Endpoints = append(n.Endpoints, c.endpoint())
		}
		for range c.n(3) {
			n.Binaries = append(n.Binaries, Binary{Path: pick(c, binPatterns)})
		}
		p.Network = append(p.Network, n)
	}
	for i := range c.n(4) {
		m := Middleware{Key: string(rune('m' + i)), Uses: RegexMiddleware, Order: int32(10 * ((i + c.n(3)) % 4)), Include: list{pick(c, selectorHosts), pick(c, selectorHosts)}}
		if c.yes(2) {
			m.Exclude = list{pick(c, selectorHosts)}
		}
		m.Order += int32(i)
		p.Middlewares = append(p.Middlewares, m)
	}
	if c.yes(3) {
		o.UnspecifiedEnforcement = EnforcementBlock
	}
	if c.yes(3) {
		o.Aliases = map[string][]string{"/bin/sh": {"/usr/bin/git"}}
	}
	return p, o
}

func (c *choices) request() *Request {
	r := &Request{Host: pick(c, someHosts), Port: pick(c, somePorts), Binary: pick(c, someBinaries), Forward: c.yes(3)}
	for range c.n(3) {
		r.Ancestors = append(r.Ancestors, pick(c, someBinaries))
	}
	if !c.yes(4) {
		r.HTTP = &HTTP{Method: pick(c, list{"GET", "get", "HEAD", "POST", "DELETE", "QUERY", MethodText}), Path: pick(c, somePaths), RawQuery: pick(c, someQueries), WebSocket: c.yes(2)}
		if c.yes(3) {
			for range 1 + c.n(3) {
				o := Override{Source: pick(c, list{"header X", "parameter y"})}
				if c.yes(2) {
					o.Method = pick(c, list{"GET", "POST", "DELETE", "PUT"})
				} else {
					o.Path, o.RawQuery = pick(c, somePaths), pick(c, someQueries)
				}
				r.HTTP.Overrides = append(r.HTTP.Overrides, o)
			}
		}
	}
	return r
}

// difference returns in what the Engine and the reference differ, or "".
func difference(data []byte) error {
	c := &choices{data}
	p, o := c.policy()
	e, err := Compile(p, o)
	if err != nil {
		return err
	}
	ref := reference{p, o}
	for range 8 {
		r := c.request()
		got, want := e.Decide(r), ref.decide(r)
		if before, _, ok := strings.Cut(got.Reason, "query component "); ok {
			got.Reason = before + "query"
		}
		got.Rule, got.Line = "", 0
		if (got.DestinationErr == nil) == (want.DestinationErr == nil) {
			got.DestinationErr, want.DestinationErr = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			return errors.New(describe(p, o, r, got, want))
		}
		var chain []string
		for _, m := range e.Middlewares(r.Host) {
			chain = append(chain, m.Key)
		}
		if want := ref.middlewares(r.Host); !slices.Equal(chain, want) {
			return fmt.Errorf("%s goes through %q, want %q of %+v", r.Host, chain, want, p.Middlewares)
		}
		if got.Verdict != Deny && !e.MayResolve(r.Host) {
			return errors.New("allows a name that may not be resolved: " + r.Host)
		}
	}
	return nil
}

// TestDecideAsReference runs the comparison without a fuzzer and checks that it compares
// enough decisions of each kind.
func TestDecideAsReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[Verdict]int{}
	l7 := map[Verdict]int{}
	for range 10000 {
		data := make([]byte, 300)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		if err := difference(data); err != nil {
			t.Fatal(err)
		}
		c := &choices{slices.Clone(data)}
		p, o := c.policy()
		d := reference{p, o}.decide(c.request())
		seen[d.Verdict]++
		if d.Layer == L7 {
			l7[d.Verdict]++
		}
	}
	for _, v := range []Verdict{Deny, Audit, Allow} {
		if seen[v] < 50 || l7[v] < 50 {
			t.Errorf("%s: only %d decisions, %d of them L7", v, seen[v], l7[v])
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add([]byte("\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := difference(data); err != nil {
			t.Error(err)
		}
	})
}

// FuzzGlob compares the matcher with regular expressions.
func FuzzGlob(f *testing.F) {
	for _, p := range append(append(slices.Clone(somePatterns), hostPatterns...), queryGlobs...) {
		f.Add(p, "/a/b")
		f.Add(p, "a.b.example.com")
	}
	for _, p := range (list{"[!-a]", "[+-0]", "?*é", "{a,{b,c}}*", "/**/**/a", "**/a/*/b*c", "[a-]", "\\{"}) {
		f.Add(p, "/a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		for _, sep := range (list{"/", "."}) {
			g, err := CompileGlob(pattern, sep[0])
			if err != nil {
				continue
			}
			re, err := refGlobRegexp(pattern, sep[0])
			if err != nil {
				t.Fatalf("%q accepted: %v", pattern, err)
			}
			if got, want := g.Match(s), re.MatchString(s); got != want {
				t.Errorf("%q %s %q: %v, want %v", pattern, sep, s, got, want)
			}
		}
	})
}

// FuzzSelector compares the matcher of endpoint paths with regular expressions.
func FuzzSelector(f *testing.F) {
	for _, p := range append(slices.Clone(somePatterns), "/[]]", "/[!]]", "/[^a]", "/[z-a]", "/[a-]", "/a/**/b/**/c", "/***", "/a[", "/[!", "/[!]", "/[a") {
		for _, s := range somePaths {
			f.Add(p, s)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if !isASCII(pattern) || !isASCII(path) {
			return
		}
		s := newSelector(pattern)
		if got, want := s.match(path), refSelects(pattern, path); got != want {
			t.Errorf("%q %q: %v, want %v", pattern, path, got, want)
		}
	})
}

func describe(p *Policy, o CompileOptions, r *Request, got, want Decision) string {
	text := fmt.Sprintf("got  %+v\nwant %+v\nrequest %+v\n", got, want, *r)
	if r.HTTP != nil {
		text += fmt.Sprintf("http %+v\n", *r.HTTP)
	}
	return text + fmt.Sprintf("options %+v\npolicy %+v", o, *p)
}
