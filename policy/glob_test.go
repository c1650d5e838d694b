// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func globs(t *testing.T, sep byte, pattern string, yes, no []string) {
	t.Helper()
	g, err := CompileGlob(pattern, sep)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range yes {
		if !g.Match(s) {
			t.Errorf("%q does not match %q", pattern, s)
		}
	}
	for _, s := range no {
		if g.Match(s) {
			t.Errorf("%q matches %q", pattern, s)
		}
	}
}

type list = []string

func TestBypass_B2_LabelBoundaries(t *testing.T) {
	globs(t, '.', "trusted.com", list{"trusted.com"}, list{"trusted.com.attacker.com", "eviltrusted.com", "trustedxcom", "trusted.com\n"})
	globs(t, '.', "*.example.com", list{"api.example.com"}, list{"a.b.example.com", "example.com", "evilexample.com"})
	globs(t, '.', "**.example.com", list{"api.example.com", "a.b.example.com"}, list{"example.com", "evilexample.com"})
	globs(t, '.', "*.s3.*.amazonaws.com", list{"b.s3.us-east-1.amazonaws.com"}, list{"b.s3.a.b.amazonaws.com"})
}

func TestGlobPaths(t *testing.T) {
	globs(t, '/', "/repos/*/issues", list{"/repos/a/issues"}, list{"/repos/a/b/issues"})
	globs(t, '/', "/repos/**", list{"/repos/", "/repos/a/b"}, list{"/repos"})
	globs(t, '/', "/a**", list{"/a", "/ab"}, list{"/ab/c"})
	globs(t, '/', "**secret**", list{"secret"}, list{"/x/secret/y"})
	globs(t, '/', "/**/info/refs*", list{"/info/refs", "/o/r/info/refs"}, list{"/xinfo/refs"})
	globs(t, '/', "**", list{"", "/", "/a/b"}, nil)
	globs(t, '/', "/v?/[a-c][!x]{p,q*}\\*", list{"/v1/abp*", "/v1/cyqz*"}, list{"/v//abp*", "/v1/axp*", "/v1/a/p*", "/v1/abpx"})
	globs(t, '/', "/a.b", list{"/a.b"}, list{"/axb"})
}

func TestGlobQueries(t *testing.T) {
	globs(t, '.', "1.*", list{"1.2"}, list{"1.2.3"})
	globs(t, '.', "*", list{"a/b"}, list{"a.b"})
}

func TestGlobRefused(t *testing.T) {
	for _, p := range []string{"{a", "{a,{b", "{a[}", "{a,\\", "[é]", strings.Repeat("{a,b}", 9), "{" + strings.Repeat("a,", MaxAlternatives) + "}", "[", "[]", "[!]", "[/]", "[z-a]", "{a", "a}", "\\", "é", strings.Repeat("a", MaxGlob+1)} {
		if g, err := CompileGlob(p, '/'); err == nil || g.Match("") {
			t.Errorf("%q accepted", p)
		}
	}
}

func TestGlobClasses(t *testing.T) {
	globs(t, '/', "[a-]", list{"a", "-"}, list{"b", "", "a-"})
	globs(t, '.', "[!-a]x", list{"bx", "éx"}, list{"-x", "ax", ".x", "x"})
	globs(t, '/', "[+-0]", list{"+", ".", "0"}, list{"/", "1"})
	globs(t, '/', "*???", list{"abc", "éab"}, list{"😀", "éa"}) // characters, not bytes
	globs(t, '/', "[^a]?", list{"bé", "éb"}, list{"b/", "/b", "ab"})
}

func TestGlobAlternatives(t *testing.T) {
	globs(t, '/', "/{a,b{c,d}}/{,x*}", list{"/a/", "/bc/", "/bd/xy"}, list{"/b/", "/a/y", "/bc"})
	globs(t, '/', "{}a,b", list{"a,b"}, list{"a", "b"})
	globs(t, '/', "{**,a}", list{"a", "x"}, list{"x/y"})
}

// The matcher of an endpoint's path differs from that of rules.
func TestSelector(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no list
	}{
		{"", list{"/", "/a/b"}, nil},
		{"**", list{"/", "/a/b"}, nil},
		{"/**", list{"/", "/a/b"}, nil},
		{"/v1/**", list{"/v1", "/v1/", "/v1/a/b"}, list{"/v10", "/v2", "/"}},
		{"/a*/c", list{"/a/c", "/ax/y/c"}, list{"/a", "/b/c"}},
		{"/a?c", list{"/a/c", "/abc"}, list{"/ac"}},
		{"/a/**/b", list{"/a/b", "/a/x/y/b"}, list{"/a/xb", "/ab"}},
		{"/[a-c]", list{"/b"}, list{"/d", "/"}},
		{"/[!a]x", list{"/bx", "//x"}, list{"/ax"}},
		{"/[]]", list{"/]"}, list{"/a"}},
		{"/[z-a]", nil, list{"/a", "/m", "/z"}},
		// These are not valid globs, so they match only their own text.
		{"/a**", list{"/a**"}, list{"/a", "/ab"}},
		{"/***", list{"/***"}, list{"/a"}},
		{"/[", list{"/["}, list{"/a"}},
		// Literal text is in canonical spelling.
		{"/%40a", list{"/@a"}, list{"/%40a", "/a"}},
		{"/é/**", list{"/%C3%A9", "/%C3%A9/a"}, list{"/é"}},
		{"/%2a", list{"/*"}, list{"/a"}},
		{"/%2A/**", list{"/*", "/*/a"}, list{"/a/b"}},
		{"/[a", list{"/[a"}, list{"/a"}},
		{"/[ab", list{"/[ab"}, list{"/a"}},
		{"/[!]", list{"/[!]"}, list{"/a", "/!"}},
		{"/{a,b}", list{"/%7Ba,b%7D"}, list{"/a", "/{a,b}"}},
		{`/\*`, list{`/%5C*`, `/%5Ca`}, list{"/*"}},
	} {
		s := newSelector(tt.pattern)
		for _, p := range tt.yes {
			if !s.match(p) {
				t.Errorf("%q does not select %q", tt.pattern, p)
			}
		}
		for _, p := range tt.no {
			if s.match(p) {
				t.Errorf("%q selects %q", tt.pattern, p)
			}
		}
	}
}

func TestSelectorRank(t *testing.T) {
	for pattern, want := range map[string]int{"": 0, "**": 0, "/**": 1, "/v1/**": 4, "/a/*/b": 5, "/é": 7, "/%C3%A9": 7, "/@": 2, "/%40": 2} {
		s := newSelector(pattern)
		if got := s.rank(); got != want {
			t.Errorf("%q: %d, want %d", pattern, got, want)
		}
	}
}
