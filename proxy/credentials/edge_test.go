// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// compareEdge is the slow form of startEdge. It compares the content with each end of each
// pattern. It returns how many bytes at the start of b are the end of a value, where b
// begins at a cut of the content. It returns 0 for fewer than MinEdge bytes. If more is
// true, b is too short to decide. If final is true, nothing follows b, and the whole of b
// may lie within a value.
func (s *scrubber) compareEdge(b []byte, final bool) (n int, more bool) {
	// If the cut lies in an escape, b begins with the rest of that escape.
	for skip := 0; skip < len(b) && (skip == 0 || skip < maxEscape && escapeRest(b[skip-1])); skip++ {
		for _, p := range s.patterns {
			for k := 1; k <= len(p)-MinEdge; k++ {
				if c := b[skip]; c != p[k] && c != '%' && c != '\\' && c != '+' && c != '&' {
					continue
				}
				for how := range writings {
					size, m := matchAs(b[skip:], p[k:], how)
					if m && final && len(b)-skip >= MinEdge {
						return len(b), false
					}
					if more = more || m && !final; size > 0 {
						n = max(n, skip+size)
					}
				}
			}
		}
	}
	return n, more
}

// edgeValues are values of which an end may begin a content.
var edgeValues = []string{
	"sk-ant-0123456789", "aaaaaaaaaaaaaaaa", "abababababababab", "line one\nline two\r\nend", `qu"ote\slash&<tag>`, "größe-ключ-鍵-value", "with space+plus 1", "----\n",
}

// TestStartEdgeFindsAll: startEdge masks at least the bytes that the comparison with each
// end of each pattern finds, in every writing and at every cut.
func TestStartEdgeFindsAll(t *testing.T) {
	t.Parallel()
	for _, v := range edgeValues {
		s := newScrubber([]string{v})
		if s == nil {
			continue
		}
		for name, text := range map[string]string{
			"plain": v, "url": url.QueryEscape(v), "json": escapedAs(v, `\u%04x`, false), "markup": escapedAs(v, "&#x%x;", false), "percent": escapedAs(v, "%%%02X", true), "lines": strings.Join(strings.SplitAfter(v, ""), "\n"),
		} {
			for cut := range len(text) {
				for _, rest := range []string{"", "x", "\n and more", text} {
					for _, final := range []bool{false, true} {
						b := []byte(text[cut:] + rest)
						want, waits := s.compareEdge(bytes.Clone(b), final)
						got, more := s.startEdge(b, final)
						if trimmed := len(bytes.TrimRight(b[:want], "\r\n")); got < trimmed && !more || waits && !more {
							t.Fatalf("%q, %s: %q, final %v: %d, %v, want %d, %v", v, name, b, final, got, more, want, waits)
						}
					}
				}
			}
		}
	}
}

// TestStartEdgeFindsNoMore: text that is no end of a value stays.
func TestStartEdgeFindsNoMore(t *testing.T) {
	t.Parallel()
	s := newScrubber([]string{"sk-ant-0123456789"})
	for _, text := range []string{"789 is short", "0123456788 and more", `{"id": 6789}`, "%36%37%38 ", "\n\n789"} {
		if n, more := s.startEdge([]byte(text), true); n != 0 || more {
			t.Errorf("%q: %d, %v", text, n, more)
		}
	}
	if n, more := s.startEdge(nil, false); n != 0 || !more {
		t.Errorf("before the first byte: %d, %v", n, more)
	}
}

// TestStartEdgeOfRepeats: the search takes no longer for a value of one repeated byte than
// for another value. The comparison of each end takes minutes for it.
func TestStartEdgeOfRepeats(t *testing.T) {
	t.Parallel()
	v := strings.Repeat("a", MaxValue)
	s := newScrubber([]string{v})
	done := make(chan bool)
	go func() {
		defer close(done)
		if n, more := s.startEdge([]byte(v[1:]+"b"), false); n != MaxValue-1 || more {
			t.Errorf("%d, %v", n, more)
		}
		if n, more := s.startEdge([]byte(v[5:]), false); n != MaxValue-5 || !more {
			t.Errorf("%d, %v", n, more)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the search takes more than a minute")
	}
}

// FuzzStartEdge: startEdge finds what the comparison with each end of each pattern finds.
func FuzzStartEdge(f *testing.F) {
	for _, v := range edgeValues {
		f.Add(v, v[2:]+" more", true)
		f.Add(v, url.QueryEscape(v)[1:], false)
		f.Add(v, escapedAs(v, `\u%04x`, false)[2:], false)
		f.Add(v, escapedAs(v, "&#x%x;", false)[3:], true)
	}
	f.Fuzz(func(t *testing.T, v, content string, final bool) {
		if len(v) < MinScrub || len(v) > 64 || len(content) > 512 || content == "" {
			t.Skip()
		}
		s := newScrubber([]string{v})
		want, waits := s.compareEdge([]byte(content), final)
		got, more := s.startEdge([]byte(content), final)
		if trimmed := len(strings.TrimRight(content[:want], "\r\n")); got < trimmed && !more || waits && !more {
			t.Errorf("%d, %v, want %d, %v", got, more, want, waits)
		}
	})
}

// BenchmarkStartEdge measures the search beside the comparison of each end. Repeated values
// have 1 KiB: the comparison takes a time that grows with the square of the length.
func BenchmarkStartEdge(b *testing.B) {
	for name, v := range map[string]string{"repeated": strings.Repeat("a", 1<<10), "random": strings.Repeat("k7Qz-91xW_fP0dTe", 64)} {
		s := newScrubber([]string{v})
		for how, search := range map[string]func([]byte, bool) (int, bool){"search": s.startEdge, "compare": s.compareEdge} {
			b.Run(name+"/"+how, func(b *testing.B) {
				content := []byte(v[1:] + "\nmore")
				for b.Loop() {
					search(content, true)
				}
			})
		}
	}
}

// escapedAs returns v with each character, or each byte, written by a format.
func escapedAs(v, format string, bytewise bool) string {
	var out strings.Builder
	for _, c := range v {
		switch {
		case bytewise:
			for _, b := range []byte(string(c)) {
				fmt.Fprintf(&out, format, b)
			}
		case c > 0xffff:
			hi, lo := utf16.EncodeRune(c)
			fmt.Fprintf(&out, format+format, hi, lo)
		default:
			fmt.Fprintf(&out, format, c)
		}
	}
	return out.String()
}
