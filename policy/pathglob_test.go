// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestPathPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern         string
		yes, no, denied list
	}{
		{"/users/@alice", list{"/users/@alice"}, list{"/users/%2540alice", "/users/alice", "/Users/@alice"}, list{"/users/@alice/"}},
		{"/users/%40alice", list{"/users/@alice"}, nil, list{"/users/@alice/"}},
		{"/*:setIamPolicy", list{"/x:setIamPolicy"}, list{"/a/x:setIamPolicy"}, list{"/x:setIamPolicy/"}},
		{"/café", list{"/caf%C3%A9"}, list{"/cafe"}, list{"/caf%C3%A9/"}},
		{"/caf%c3%a9", list{"/caf%C3%A9"}, nil, nil},
		{"/%2A", list{"/*"}, list{"/a"}, nil},
		{`/\*`, list{"/*"}, list{"/a"}, nil},
		{`/\[\{`, list{"/%5B%7B"}, nil, nil},
		{"/{a%2Cb,c}", list{"/a,b", "/c"}, list{"/a"}, list{"/c/"}},
		{"/a%2fb", list{"/a%2Fb"}, list{"/a", "/ab"}, list{"/a/b", "/a/b/"}},
		{"/a%2F/[%2F]", nil, list{"/a/b"}, list{"/a/2", "/a%2F/F/"}},
		{"/{a%2fb,c}/**", list{"/a%2Fb/x", "/c/x"}, list{"/a/x"}, list{"/a/b/x", "/a/b"}},
		{"/a%25b", list{"/a%25b"}, list{"/ab"}, nil},
		{"/%x*", list{"/%x1"}, list{"/x"}, nil},
		{"/repo/**", list{"/repo/", "/repo/a/b"}, list{"/repository"}, list{"/repo"}},
		{"/repo/**/**", list{"/repo/a"}, nil, list{"/repo"}},
		{"/repo/**/", list{"/repo/", "/repo/a/"}, nil, list{"/repo", "/repo/a"}},
		{"/users/alice{,.*}", list{"/users/alice", "/users/alice.json"}, list{"/users/alicia", "/users/alice/x"}, list{"/users/alice.json/"}},
		{"/admin.php/**", list{"/admin.php/x"}, list{"/admin.phpx"}, list{"/admin.php"}},
		{"/dir/", list{"/dir/"}, list{"/dirs"}, list{"/dir"}},
		{"/orgs/*", list{"/orgs/a", "/orgs/"}, list{"/orgs", "/orgs/a/b"}, list{"/orgs/a/"}},
		{"/orgs/*/**", list{"/orgs/a/b"}, list{"/orgs/", "/orgs"}, list{"/orgs/a"}},
		{"/a/**/b", list{"/a/b", "/a/x/b"}, list{"/a"}, list{"/a/b/", "/a/x/b/"}},
		{"/**", list{"/", "/a"}, nil, nil},
		{"/?", list{"/a"}, list{"/ab"}, list{"/%20", "/%C3%A9", "/%E2%82%AC", "/%F0%9F%98%80", "/%2F", "/a/"}},
		{"/[ |]", nil, list{"/a", "/%5D"}, list{"/%20", "/%7C"}},
		{"/[!a]", list{"/b"}, list{"/a"}, list{"/%C3%A9", "/%7C"}},
		{"/[ab]", list{"/a"}, list{"/%20", "/%C3%A9", "/%2F"}, nil},
	} {
		g, err := compilePath(tt.pattern)
		d, err2 := compileDenyPath(tt.pattern)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for _, p := range tt.yes {
			if !g.Match(p) || !d.covers(p) {
				t.Errorf("%s: %s: allows %v, denies %v", tt.pattern, p, g.Match(p), d.covers(p))
			}
		}
		for _, p := range tt.no {
			if g.Match(p) || d.covers(p) {
				t.Errorf("%s: %s: allows %v, denies %v", tt.pattern, p, g.Match(p), d.covers(p))
			}
		}
		for _, p := range tt.denied {
			if g.Match(p) || !d.covers(p) {
				t.Errorf("%s: %s: allows %v, denies %v", tt.pattern, p, g.Match(p), d.covers(p))
			}
		}
	}
}

func TestInvalidPathPatterns(t *testing.T) {
	for _, p := range (list{"/[", `/a\`, "/[]", "/{a", strings.Repeat("a", MaxGlob+1)}) {
		if _, err := compilePath(p); err == nil {
			t.Errorf("%.20q is accepted", p)
		}
		if _, err := compileDenyPath(p); err == nil {
			t.Errorf("%.20q is accepted in a deny rule", p)
		}
		if _, err := compileQueryGlob(p); err == nil && p != "/a\\" {
			t.Errorf("%.20q is accepted in a query", p)
		}
	}
}

// FuzzPathPattern compares path patterns with regular expressions, and checks that a deny
// rule covers everything that an allow rule with the same pattern matches.
func FuzzPathPattern(f *testing.F) {
	for _, pattern := range append(slices.Clone(somePatterns), "/[ |]", "/**/**", "/%2C{a,b}", "/%", `/\%41`, "/é*", "/[^a]?", "**/", "/a//", "/%2f?") {
		for _, path := range somePaths {
			f.Add(pattern, path)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		g, err := compilePath(pattern)
		path, err2 := CanonicalPath(path, true)
		if err != nil || err2 != nil || !escapesUTF8(path) { // which Decide refuses where a rule reads paths
			return
		}
		if got, want := g.Match(path), refPath(pattern, path); got != want {
			t.Errorf("%q allows %q: %v, want %v", pattern, path, got, want)
		}
		d, err := compileDenyPath(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if g.Match(path) && !d.covers(path) || d.covers(path) && path != "/" && !d.covers(strings.TrimSuffix(path, "/")+"/") {
			t.Errorf("%q denies %q: %v", pattern, path, d.covers(path))
		}
		if strings.ContainsAny(refCanon(pattern, false), "{}") { // which refCovers does not read
			return
		}
		if got, want := d.covers(path), refCovers(pattern, path); got != want {
			t.Errorf("%q denies %q: %v, want %v", pattern, path, got, want)
		}
	})
}

// FuzzQueryRule compares query rules with the reference.
func FuzzQueryRule(f *testing.F) {
	for _, g := range queryGlobs {
		for _, q := range someQueries {
			f.Add("q", g, q)
			f.Add("a.b[]", g, q)
			f.Add("k_q", g, q)
		}
	}
	f.Fuzz(func(t *testing.T, key, glob, query string) {
		allow, err := compileQuery(QueryRule{key, []string{glob}}, false)
		deny, err2 := compileQuery(QueryRule{key, []string{glob}}, true)
		values, err3 := refQuery(query, len(query)%2 == 0)
		if err := checkQuery(query, len(query)%2 == 0); (err3 != nil) != (err != nil) {
			t.Fatalf("%q: %v, want %v", query, err, err3)
		}
		// Regular expressions and the reference agree only on ASCII.
		if err != nil || err2 != nil || err3 != nil || !isASCII(key+glob+query) || strings.Contains(glob, "%") {
			return
		}
		exact, variants := values[key], refVariants(key, query)
		want := len(exact) > 0 && glob != ""
		for _, v := range append(slices.Clone(exact), variants...) {
			want = want && refAny([]string{glob}, refUnescape(v), false)
		}
		if got := allow.allows(query); got != want && key != "" {
			t.Errorf("%q: %q allows %q: %v, want %v", key, glob, query, got, want)
		}
		want = slices.ContainsFunc(variants, func(v string) bool {
			stages, deep := refStages(v)
			return deep || slices.ContainsFunc(stages, func(v string) bool { return refAny([]string{glob}, v, true) })
		})
		if got := deny.denies(query); got != want {
			t.Errorf("%q: %q denies %q: %v, want %v", key, glob, query, got, want)
		}
	})
}

func TestNamesOfParameters(t *testing.T) {
	for _, tt := range []struct {
		key     string
		yes, no list
	}{
		{"force", list{"force", "FORCE", "force[]", "force[0]", "Force[a][b]", " force", "force[", "[force]", "]force", "force]", "[[force]]", "[force][x]", "force]x", "\tforce\r\n", "force\n[]"}, list{"forced", "forse", "", "x[force]", "[]", "force "}},
		{"user_id", list{"user.id", "User id", "user_id", "user[id", "[user_id]", " user[id\n"}, list{"user-id", "userXid", "userid", "user[id]"}},
		{"ids[]", list{"ids", "ids[]", "IDS[3]"}, list{"id"}},
		{"größe", list{"GRÖßE"}, list{"grösse"}},
	} {
		q := queryRule{key: tt.key}
		for _, name := range tt.yes {
			if !q.names(name) {
				t.Errorf("%q is not %q", name, tt.key)
			}
		}
		for _, name := range tt.no {
			if q.names(name) {
				t.Errorf("%q is %q", name, tt.key)
			}
		}
	}
}

func TestQueriesOfPatternsWithEscapes(t *testing.T) {
	for _, tt := range []struct {
		glob, query string
		allow, deny bool
	}{
		{"café", "q=caf%C3%A9", true, true},
		{"caf%c3%a9", "q=caf%C3%A9", true, true},
		{"caf?", "q=caf%C3%A9", true, true},
		{"caf[!e]", "q=caf%C3%A9", true, true},
		{"caf%E9", "q=caf%C3%A9", false, false},
		{"%2A", "q=a", false, false},
		{"%2A", "q=%2a", true, true},
		{"a%20b", "q=a+b", true, true},
		{"a%20b", "q=a%20b", true, true},
		{"a%2520b", "q=a%2520b", true, true}, // the text a%20b; as it is written, for deny
		{`a\%41`, "q=a%2541", true, true},
		{"a[%41]", "q=a4", true, true},
		{"true", "q=%2574rue", false, true},
		{"true", "q=%25252574rue", false, true},
		{"true", "q=%2525252574rue", false, true}, // encoded too often to look
		{"true", "q=%2525252575rue", false, true},
		{"1.*", "q=1.2", true, true},
	} {
		allow, err := compileQuery(QueryRule{"q", []string{tt.glob}}, false)
		deny, err2 := compileQuery(QueryRule{"q", []string{tt.glob}}, true)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if a, d := allow.allows(tt.query), deny.denies(tt.query); a != tt.allow || d != tt.deny {
			t.Errorf("%s, %s: allows %v, denies %v", tt.glob, tt.query, a, d)
		}
	}
}

func TestCanonicalPathDoesNotAllocate(t *testing.T) {
	for _, p := range (list{"/", "/repos/acme/widgets.git/info/refs", "/@types/node", "/v1/projects/x:get/", "/.well-known/a"}) {
		if n := testing.AllocsPerRun(100, func() { _, _ = CanonicalPath(p, false) }); n != 0 {
			t.Errorf("%s: %v allocations", p, n)
		}
	}
}

func TestOrdinaryRequestsOverrideNothing(t *testing.T) {
	header := map[string][]string{"User-Agent": {"curl/8"}, "Accept": {"*/*"}, "X-Request-Id": {"1"}, "X-Forwarded-For": {"10.0.0.1"}}
	h := &HTTP{Method: "GET", Path: "/a", RawQuery: "page=2&sort=up"}
	var all []Override
	if n := testing.AllocsPerRun(100, func() { all, _ = Overrides(header, h, false) }); n != 0 || len(all) != 0 {
		t.Errorf("%v allocations, %v", n, all)
	}
}

func BenchmarkCanonicalPath(b *testing.B) {
	for _, p := range (list{"/repos/acme/widgets.git/info/refs", "/a%20b/%40c"}) {
		b.Run(p[1:2], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = CanonicalPath(p, false)
			}
		})
	}
}
