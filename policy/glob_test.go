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
	for _, p := range []string{"[", "[]", "[!]", "[/]", "[z-a]", "{a", "a}", "\\", "é", strings.Repeat("a", MaxGlob+1)} {
		if g, err := CompileGlob(p, '/'); err == nil || g.Match("") {
			t.Errorf("%q accepted", p)
		}
	}
}
