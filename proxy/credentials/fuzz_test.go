// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// chunks reads in pieces whose lengths are steps, over and over.
type chunks struct {
	b     []byte
	steps []byte
	at    int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := min(len(c.b), len(p))
	if len(c.steps) > 0 {
		n = min(n, int(c.steps[c.at%len(c.steps)])%40+1)
		c.at++
	}
	copy(p, c.b[:n])
	c.b = c.b[n:]
	return n, nil
}

// FuzzRewrite checks that what holds no placeholder passes as it is, that no
// placeholder passes, and that neither depends on how the body arrives.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		"", "openshell:resolve:env:", Marker + "GITHUB_TOKEN", `{"a":"openshell\u003aresolve:env:TELEGRAM"}`, "x-OPENSHELL-RESOLVE-ENV-TELEGRAM.y",
		"a=openshell%3Aresolve%3Aenv%3ATELEGRAM", `\\\\nOPENSHELL-RESOLVE-ENV-TELEGRAM`, "%25" + Marker, `\\u006fpenshell:`, strings.Repeat("ab-.~", 40) + AliasMarker + "TELEGRAM",
	} {
		f.Add([]byte(s), []byte{1}, uint8(0))
		f.Add([]byte(s+s), []byte{3, 30}, uint8(1))
		f.Add([]byte(s+"\\"+s), []byte{}, uint8(2))
	}
	set := testSet(f)
	types := []string{jsonCT, formCT, "text/plain", "application/octet-stream"}
	f.Fuzz(func(t *testing.T, body, steps []byte, kind uint8) {
		ct := types[int(kind)%len(types)]
		run := func(o Options, steps []byte) ([]byte, error) {
			r, err := set.Request(github(), o, "/", "", nil, ct, -1, &chunks{b: body, steps: steps})
			if err != nil {
				t.Fatal(err)
			}
			return io.ReadAll(r.Body)
		}
		for _, o := range []Options{{}, {BodyRewrite: true}} {
			whole, werr := run(o, nil)
			split, serr := run(o, steps)
			if (werr == nil) != (serr == nil) || werr == nil && !bytes.Equal(whole, split) {
				t.Errorf("%v: whole %q, %v; split %q, %v", o, whole, werr, split, serr)
			}
			if o.BodyRewrite && scan(split) {
				t.Errorf("%v: a placeholder left: %q", o, split)
			}
			if !o.BodyRewrite {
				checkPassed(t, set, body, split, serr)
			}
			if !scan(body) && (serr != nil || !bytes.Equal(split, body)) {
				t.Errorf("%v: %q, %v", o, split, serr)
			}
			if o.BodyRewrite && ct != types[3] {
				r, err := set.Request(github(), o, "/", "", nil, ct, int64(len(body)), bytes.NewReader(body))
				if (err == nil) != (serr == nil) {
					t.Fatalf("of known length: %v; of unknown %v", err, serr)
				}
				if err == nil {
					if b, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(b, split) || r.Length != int64(len(b)) {
						t.Errorf("of known length %d: %q, %v; of unknown %q", r.Length, b, err, split)
					}
				}
			}
		}
	})
}

// plainPlaceholder is a placeholder without escapes.
var plainPlaceholder = regexp.MustCompile(regexp.QuoteMeta(Marker) + "([A-Za-z0-9_]*)")

// checkPassed checks what became of a body that is not rewritten: it passes unchanged, or its
// beginning does, with no placeholder that the sandbox was not given.
func checkPassed(t *testing.T, set *Set, body, out []byte, err error) {
	if !bytes.HasPrefix(body, out) || err == nil && len(out) != len(body) {
		t.Errorf("%q became %q, %v", body, out, err)
	}
	for _, m := range plainPlaceholder.FindAllSubmatch(out, -1) {
		key := string(m[1])
		issued := slices.ContainsFunc(set.providers, func(p *provider) bool {
			_, exact := p.exact[key]
			_, newest := p.newest[key]
			return exact || newest
		})
		if !issued && err == nil {
			t.Errorf("%q passed in %q", m[0], body)
		}
	}
}

// FuzzTarget checks path, query and header the same way.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/" + Marker + "TELEGRAM", "/a%2f" + Marker + "TELEGRAM/b", "x-" + AliasMarker + "TELEGRAM", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+Marker+"TELEGRAM"))} {
		f.Add(s)
	}
	set := testSet(f)
	f.Fuzz(func(t *testing.T, s string) {
		r := &resolver{set: set, to: github()}
		for _, pl := range []*place{inPath, inQuery} {
			out, err := r.text(s, pl)
			if err == nil && (scan([]byte(out)) || !scan([]byte(s)) && out != s) {
				t.Errorf("%s: %q became %q", pl.where, s, out)
			}
		}
		out, err := r.header("Authorization", s)
		if err == nil && (scan([]byte(out)) || strings.ContainsAny(out, "\r\n\x00") && !strings.ContainsAny(s, "\r\n\x00")) {
			t.Errorf("header: %q became %q", s, out)
		}
	})
}

// FuzzText checks messages the same way.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "auth " + Marker + "TELEGRAM", `{"a":"openshell\u003aresolve:env:TELEGRAM"}`, "x-" + AliasMarker + "TELEGRAM.", `\u006fpenshell:`, " [" + Marker} {
		f.Add([]byte(s))
	}
	r := upgraded(f, testSet(f), github())
	f.Fuzz(func(t *testing.T, msg []byte) {
		was := bytes.Clone(msg)
		for _, o := range []Options{{}, {MessageRewrite: true}} {
			out, err := r.Text(o, msg)
			if err == nil && (scan(out) || !scan(was) && !bytes.Equal(out, was)) || err != nil && !scan(was) {
				t.Errorf("%v: %q became %q, %v", o, was, out, err)
			}
		}
	})
}

// FuzzScrub checks that no rendering passes, that nothing else changes, and that
// neither depends on how the body arrives.
func FuzzScrub(f *testing.F) {
	f.Add("s3cret-value", "a s3cret-valu", " b", []byte{1, 2})
	f.Add("sp ace+sl/ash\"\\", "%73\\u0073", "\\", []byte{7})
	f.Add("ééééé", "\\u00e9\\u00", "\u00e9", []byte{})
	f.Add("aaaaaaaaab", "aaaaaaaaaaaaaaaa", "aaaaaaaab", []byte{3})
	f.Fuzz(func(t *testing.T, value, before, behind string, steps []byte) {
		if len(value) < MinScrub || len(value) > 200 || len(before)+len(behind) > 4096 {
			return
		}
		s := newScrubber([]string{value})
		if strings.ContainsRune(strings.Join(s.patterns, ""), rune(s.mask)) {
			return // no byte is left that means nothing
		}
		forms := []string{value, url.QueryEscape(value), string(percentStrict(nil, value)), base64.StdEncoding.EncodeToString([]byte("u:" + value))}
		if checkUTF8(value) == "" {
			forms = append(forms, string(jsonEscape(nil, value)))
		}
		for _, form := range forms {
			body := before + form + behind
			run := func(steps []byte) string {
				b, err := io.ReadAll(&scrubReader{s: s, src: &chunks{b: []byte(body), steps: steps}, least: MinScrub})
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			out := run(steps)
			if whole := run(nil); whole != out {
				t.Errorf("whole %q, split %q", whole, out)
			}
			for _, other := range forms {
				if strings.Contains(out, other) {
					t.Errorf("%q shows %q", out, other)
				}
			}
			if len(out) != len(body) {
				t.Fatalf("%d bytes became %d", len(body), len(out))
			}
			for i := range len(out) {
				if out[i] != body[i] && out[i] != s.mask {
					t.Fatalf("byte %d of %q became %q", i, body, out[i])
				}
			}
		}
		rest := before + "|" + behind
		clean := []byte(rest)
		s.scrub(clean, false)
		if at := strings.IndexByte(string(clean), s.mask); at >= 0 && string(clean) != rest && !shownAnyhow(rest, s) {
			t.Errorf("%q became %q", rest, clean)
		}
	})
}

// shownAnyhow says, slowly, whether a value is in text in one of the writings.
func shownAnyhow(text string, s *scrubber) bool {
	for i := range len(text) {
		for _, p := range s.patterns {
			for how := range writings {
				if n, _ := matchAs([]byte(text[i:]), p, how); n > 0 {
					return true
				}
			}
		}
	}
	return false
}

// FuzzOpens checks that the test of the first bytes lets every match through.
func FuzzOpens(f *testing.F) {
	f.Add("s3cret-value", []byte(`\u0073%33+`))
	f.Add("a b+c%41\\n", []byte(`a%20b%2Bc%2541%5Cn`))
	f.Add("\u00e9\U0001f600\ud7ff....", []byte(`\u00e9\ud83d\ude00\ud7ff....`))
	f.Fuzz(func(t *testing.T, value string, b []byte) {
		if len(value) < MinScrub || len(value) > 64 {
			return
		}
		s := newScrubber([]string{value})
		forms := [][]byte{b, percentStrict(nil, value), []byte(url.QueryEscape(value)), jsonEscape(nil, value)}
		forms = append(forms, []byte(html.EscapeString(value)))
		for _, end := range []string{"\n", "\r\n", `\r\n`, "%0A"} {
			at := len(b)%4 + 1
			forms = append(forms, []byte(value[:at]+end+value[at:]))
		}
		for _, form := range forms {
			form = append(bytes.Clone(form), bytes.Repeat([]byte("."), openingSpan)...)
			if n, _ := s.at(form); n > 0 && !s.opens(form) {
				t.Errorf("%q is not seen in %q", value, form)
			}
		}
	})
}

// FuzzPart checks that no part within a value's length is asked for or taken.
func FuzzPart(f *testing.F) {
	f.Add("bytes=0-6", "bytes 0-6/100")
	f.Add("bytes=-5", "bytes 95-99/100")
	f.Add("bytes=131072-262143", "bytes 131072-262143/*")
	f.Add("bytes=1-2, 3-4", "bytes */100")
	f.Fuzz(func(t *testing.T, asked, told string) {
		h := http.Header{"Range": {asked}, "If-Range": {"x"}}
		p := limitRange(http.MethodGet, h)
		if (p == nil) != (h["Range"] == nil) || (p == nil) != (h["If-Range"] == nil) {
			t.Fatalf("%q: %v stays", asked, h)
		}
		got, err := p.answer(http.Header{"Content-Range": {told}})
		if err != nil {
			return
		}
		if p == nil || got.first < 0 || got.first > 0 && !got.toEnd() && got.last-got.first < MinPart-1 {
			t.Errorf("%q answered with %q: %+v", asked, told, got)
		}
	})
}
