// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func hosts(t *testing.T, want map[string]string) {
	t.Helper()
	for in, out := range want {
		got, err := NormalizeHost(in)
		if got != out || (err == nil) != (out != "") {
			t.Errorf("NormalizeHost(%q) = %q, %v; want %q", in, got, err, out)
		}
	}
}

func TestBypass_B1_ControlBytesInHost(t *testing.T) {
	hosts(t, map[string]string{
		"evil.com\x00.allowed.com": "", "a.com\r": "", "a.com\t": "", "a .com": "", "a%00.com": "", "a.com\x7f": "",
		"allowed.com": "allowed.com",
	})
}

func TestBypass_B9_EncodedAddresses(t *testing.T) {
	hosts(t, map[string]string{
		"2852039166": "", "0xA9FEA9FE": "", "0251.0376.0251.0376": "", "127.1": "", "127.0.0.1.": "", "①⑥⑨.254.169.254": "",
		"1.2.3.0x": "", "a.0x7f": "", "[1.2.3.4]": "", "[::1": "", "fe80::1%eth0": "", "[fe80::1%25eth0]": "",
		"[::ffff:a9fe:a9fe]": "169.254.169.254", "::FFFF:10.0.0.1": "10.0.0.1", "[2001:DB8::1]": "2001:db8::1", "8.8.8.8": "8.8.8.8",
	})
}

func TestBypass_B10_OneSpellingOfAName(t *testing.T) {
	hosts(t, map[string]string{
		"GITHUB.com": "github.com", "github。com": "github.com", "ｇithub.com": "github.com", "bücher.example": "xn--bcher-kva.example",
		"gıthub.com": "xn--gthub-n4a.com", "xn--github-.com": "", "xn--\u00ff.com": "", "0\x8a": "", "r3---sn-a.example": "r3---sn-a.example",
	})
}

func TestBypass_B11_DotsUserinfoPorts(t *testing.T) {
	hosts(t, map[string]string{
		"host.example.": "host.example", "host..": "", "a..b": "", ".a": "", "": "", ".": "", "a@host": "", "host:443": "", "host:": "",
		"-a.com": "", "a-.com": "", "github.com。.": "",
		strings.Repeat("a", 64) + ".com": "", strings.Repeat("a.", 130) + "com": "", strings.Repeat("a.", 999) + "com": "",
	})
}

func TestBypass_B29_PathSpellings(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/": "/a/", "//a///b": "/a/b", "/a/./b": "/a/b", "/a/.": "/a/", "/a/..": "/", "/a/b/..": "/a/",
		"/public/../secret": "/secret", "/public/%2e%2E/secret": "/secret", "/..;x/a": "", "/a/..;x/b": "/b", "/a;p=1/b;q": "/a/b",
		"/%61%7e%2d": "/a~-", "/%c3%a9": "/%C3%A9", "/a%20b": "/a%20b", "/%252e": "/%252e", "/%c0%af": "/%C0%AF", "/caf%e9": "/caf%E9", "/%00": "", "/a;%": "/a",
		"/..": "", "/a/../..": "", "a": "", "": "", "*": "", "/%": "", "/%4": "", "/%zz": "", "/a%3Bp": "/a", "/a%3b%": "/a", "/..%3B/a": "", "/a/..%3Bx/b": "/b", "/%2521": "/%2521",
		"/%21%24%26%27%28%29%2A%2B%2C%3D%3A%40": "/!$&'()*+,=:@", "/%22%3c%3E%5B%5D%5E%60%7B%7C%7d%25": "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D%25",
		"/\"<>[]^`{|}": "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D", "/.a/..b/c.": "/.a/..b/c.", "/a/%2e": "/a/", "/%23%3F": "/%23%3F",
		"/a\\b": "", "/a%5cb": "", "/a#b": "", "/a?b": "",
		"/a;\x01": "", "/é": "/%C3%A9", "/é%e9": "/%C3%A9%E9", "/\xe9": "", "/\xc3\xa9\xff": "", "/a b": "", "/a%2fb": "", "/" + strings.Repeat("a", MaxURLPath): "",
	} {
		got, err := CanonicalPath(in, false)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("CanonicalPath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"/a%2fb": "/a%2Fb", "/a%2f..": "", "/%2e%2f": "", "/a%2f..%3bx": "", "/a%3b%2f..": "/a", "/%2f%2f": "/%2F%2F"} {
		if got, err := CanonicalPath(in, true); got != want || (err == nil) != (want != "") {
			t.Errorf("CanonicalPath(%q, true) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// TestQuerySpellings (issue 11, point 12) checks that unescaped UTF-8 is escaped.
func TestQuerySpellings(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a=b&c": "a=b&c", "q=é": "q=%C3%A9", "é=%c3%a9&x=日": "%C3%A9=%c3%a9&x=%E6%97%A5", "q=%E9": "q=%E9", "[]|\"<>?\\": "[]|\"<>?\\",
	} {
		if got, err := CanonicalQuery(in); got != want || err != nil {
			t.Errorf("CanonicalQuery(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a b", "a\tb", "a\x00", "a\x7f", "a#b", "\xe9", "é\xff", "\xc0\xae"} {
		if got, err := CanonicalQuery(in); err == nil {
			t.Errorf("CanonicalQuery(%q) = %q", in, got)
		}
	}
}

// FuzzCanonicalQuery checks that the canonical spelling is ASCII, decodes to the same text
// and is its own canonical spelling.
func FuzzCanonicalQuery(f *testing.F) {
	for _, s := range append(slices.Clone(someQueries), "q=é", "é=%E9", "\xff") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := CanonicalQuery(s)
		if err != nil {
			return
		}
		if again, err := CanonicalQuery(q); err != nil || again != q || !isASCII(q) || unescapeQuery(q) != unescapeQuery(s) {
			t.Fatalf("%q → %q → %q, %v", s, q, again, err)
		}
	})
}

func FuzzNormalizeHost(f *testing.F) {
	for _, s := range []string{"GitHub.com.", "[::ffff:1.2.3.4]", "bücher.de", "127.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := NormalizeHost(s)
		if err != nil {
			return
		}
		if again, err := NormalizeHost(h); err != nil || again != h {
			t.Fatalf("%q → %q → %q, %v", s, h, again, err)
		}
	})
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2f", "/;x//", "/%c3%a9", "/a/..%3B/b", "/%40[|]", "/%252e", "/@a:b"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, slash bool) {
		p, err := CanonicalPath(s, slash)
		if err != nil {
			return
		}
		if again, err := CanonicalPath(p, slash); err != nil || again != p {
			t.Fatalf("%q → %q → %q, %v", s, p, again, err)
		}
		if strings.Contains(p, "//") || strings.Contains(p+"/", "/../") || strings.Contains(p+"/", "/./") || strings.ContainsAny(p, ";#?\"<>[]\\^`{|}") {
			t.Fatalf("%q → %q", s, p)
		}
		for i := range len(p) {
			if c, ok := unescapeByte(p[i:]); ok && (pchar.has(c) || p[i:i+3] != strings.ToUpper(p[i:i+3])) {
				t.Fatalf("%q → %q has an escape that is not canonical", s, p)
			}
		}
		// The pattern of the path itself must match the path and deny it.
		pattern := escapeGlob(p)
		if len(pattern) > MaxGlob {
			return
		}
		g, err := compilePath(pattern)
		d, err2 := compileDenyPath(pattern)
		if err != nil || err2 != nil || !g.Match(p) || !d.covers(p) || !d.covers(strings.TrimSuffix(p, "/")+"/") {
			t.Fatalf("%q does not match %q: %v %v", pattern, p, err, err2)
		}
	})
}
