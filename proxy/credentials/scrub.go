// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// writing is an encoding in which a text may appear: unchanged, in a URL, in a JSON
// string, or in HTML.
type writing uint8

const (
	plainly writing = iota
	inURL
	inString
	inMarkup // HTML character references
	writings
)

// scrubber masks values in the answers of an upstream. It finds a value unchanged and in
// base64, alone or as part of a longer text. Both may be in any writing, percent-encoded
// in whole or in part, and broken into lines. A mask has the length of the value, so that
// lengths such as Content-Length stay correct.
type scrubber struct {
	opaque

	patterns []string // by their first byte
	// from has, for each first byte c, the index in patterns of the first pattern that
	// begins with c. from[c+1] is the index behind the last one.
	from [257]int
	// beginnings are the pairs of bytes that a match can begin with, in any writing.
	beginnings pairs
	// firsts has the first two bytes of each pattern. openings has a hash of its first
	// four bytes.
	firsts, openings pairs
	mask             byte
	wide             bool // a pattern begins with a character beyond Latin-1
	spaces           bool // a pattern has a space in its first four bytes
	lines            bool // a pattern has a carriage return or line feed there
	// names has the patterns in lower case. It searches the names of header fields.
	names *scrubber
}

// newScrubber returns the scrubber of some values; nil if none is long enough to be
// searched for.
func newScrubber(values []string) *scrubber {
	var patterns []string
	for _, v := range values {
		if len(v) >= MinScrub {
			patterns = append(append(patterns, base64Inside(v)...), v)
		}
	}
	if patterns == nil {
		return nil
	}
	s := compilePatterns(patterns)
	// Field names are not case-sensitive, and proxies change their case.
	for i, p := range patterns {
		patterns[i] = strings.ToLower(p)
	}
	s.names = compilePatterns(patterns)
	return s
}

// compilePatterns returns a scrubber that finds the patterns. It sorts patterns.
func compilePatterns(patterns []string) *scrubber {
	slices.Sort(patterns)
	s := &scrubber{patterns: slices.Clone(slices.Compact(slices.Clone(patterns)))}
	for _, p := range s.patterns {
		s.index(p)
		s.firsts.add(p[0], p[1])
		h := openingHash(p[0], p[1], p[2], p[3])
		s.openings.add(byte(h>>8), byte(h))
		s.spaces = s.spaces || strings.Contains(p[:opening], " ")
		s.lines = s.lines || strings.ContainsAny(p[:opening], "\r\n")
		s.from[int(p[0])+1]++
		s.wide = s.wide || p[0] > 0xc3
	}
	for c := range 256 {
		s.from[c+1] += s.from[c]
	}
	s.mask = '*'
	for _, c := range []byte("*#xX.-_~0") { // a mask must not become part of a value
		if !strings.ContainsRune(strings.Join(s.patterns, ""), rune(c)) {
			s.mask = c
			break
		}
	}
	return s
}

// index adds the pairs of bytes that p can begin with, in each writing, to s.beginnings.
func (s *scrubber) index(p string) {
	const hex = "0123456789abcdef0123456789ABCDEF"
	a, b := p[0], p[1]
	for _, x := range written(a) {
		for _, y := range append(written(b), '\r', '\n') {
			s.beginnings.add(x, y)
		}
	}
	s.beginnings.add('%', hex[a>>4])
	s.beginnings.add('%', hex[16+a>>4])
	s.beginnings.add('\\', 'u')
	s.beginnings.add('&', '#')
	for name, c := range namedReferences {
		if byte(c) == a {
			s.beginnings.add('&', name[0])
		}
	}
	for x, c := range shortEscapes {
		if c == a && c != 0 {
			s.beginnings.add('\\', byte(x))
		}
	}
}

// written returns the bytes that c can begin with in the different writings.
func written(c byte) []byte {
	out := []byte{c, '%', '\\', '&'}
	if c == ' ' {
		out = append(out, '+')
	}
	return out
}

// shortEscapes has the byte that \x stands for in JSON, by x; 0 if \x is no escape.
var shortEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// scrub masks every match in b. It returns how many bytes of b may be sent: a match may
// begin in the others and continue behind b. If final is true, nothing follows b, and
// scrub returns the length of b.
func (s *scrubber) scrub(b []byte, final bool) (safe int) {
	least := 0
	if final {
		least = MinScrub
	}
	return s.scrubTo(b, least)
}

// scrubTo is scrub with a bound for the end of the content. If least is 0, more bytes
// follow b. Otherwise b ends the content, and scrubTo also masks the beginning of a value
// at the end of b if it has least bytes or more.
func (s *scrubber) scrubTo(b []byte, least int) (safe int) {
	for i := 0; ; {
		start, n := s.find(b, i, least)
		if n == 0 {
			return start
		}
		s.hide(b[start : start+n])
		i = start + n
	}
}

func (s *scrubber) hide(b []byte) {
	for i := range b {
		b[i] = s.mask
	}
}

// find returns the start and the length of the first match at or after b[from]. If there
// is none, n is 0, and a match may begin at b[start] and end behind b. least is that of
// scrubTo.
func (s *scrubber) find(b []byte, from, least int) (start, n int) {
	for i := from; ; i++ {
		if i = s.beginnings.next(b, i); i >= len(b) {
			return len(b), 0
		}
		if len(b)-i >= openingSpan && !s.opens(b[i:]) {
			continue
		}
		n, more := s.at(b[i:])
		switch {
		case more && least == 0:
			return i, 0
		case more && len(b)-i >= least:
			n = len(b) - i // the content ends within a value: mask its beginning
		}
		if n > 0 {
			return i, n
		}
	}
}

// inName reports whether a field name holds a value.
func (s *scrubber) inName(name string) bool {
	b := []byte(strings.ToLower(name))
	_, n := s.names.find(b, 0, MinScrub)
	return n > 0
}

// startEdge returns how many bytes at the start of b are the end of a value, where b
// begins at a cut of the content. It ignores line ends, and does not count fewer than
// MinEdge bytes. If more is true, b is too short to decide. If final is true, nothing
// follows b, and the whole of b may lie within a value.
//
// The time is linear in the length of the patterns, also for values that repeat one byte.
func (s *scrubber) startEdge(b []byte, final bool) (n int, more bool) {
	if len(b) == 0 {
		return 0, !final
	}
	limit := 0
	for _, p := range s.patterns {
		limit = max(limit, len(p))
	}
	var e edge
	// If the cut lies in an escape, b begins with the rest of that escape.
	for skip := 0; skip < len(b) && (skip == 0 || skip < maxEscape && escapeRest(b[skip-1])); skip++ {
		for how := range writings {
			if !e.decode(b[skip:], how, limit) {
				continue
			}
			for _, p := range s.patterns {
				size, m := e.endOf(p)
				if m && final && len(b)-skip >= MinEdge {
					return len(b), false
				}
				if more = more || m && !final; size > 0 {
					n = max(n, skip+size)
				}
			}
		}
	}
	return n, more
}

// maxEscape is the length of the longest escape, a JSON string's surrogate pair.
const maxEscape = len(`\ud83d\ude00`)

// escapeRest reports whether c may stand in an escape behind its first byte.
func escapeRest(c byte) bool {
	return hexDigit(c) >= 0 || strings.IndexByte("#;xglmopqst", c) >= 0 || c == 'u' || c == '\\' || c == '\r' || c == '\n'
}

// opening is the number of bytes of a pattern that opens compares before the whole
// pattern is compared. openingSpan is the most bytes that they take in any writing.
// MinScrub is larger than opening.
const (
	opening     = 4
	openingSpan = opening * maxEscape
)

// openingHash hashes the first four bytes of a pattern.
func openingHash(a, b, c, d byte) uint16 {
	return uint16((uint32(a)<<24 | uint32(b)<<16 | uint32(c)<<8 | uint32(d)) * 0x9e3779b1 >> 16)
}

// opens reports whether b, in any writing, may begin with the first bytes of a pattern.
// Preconditions: b has openingSpan bytes.
func (s *scrubber) opens(b []byte) bool {
	if s.openings.has(openingHash(b[0], b[1], b[2], b[3])) {
		return true
	}
	if b[0] == '\\' && b[1] == 'u' && !s.wide && (b[2] != '0' || b[3] != '0') {
		return false // the usual case in texts of many languages
	}
	var how [writings]bool
	for _, c := range b[:opening] {
		line := c == '\r' || c == '\n'
		how[plainly] = how[plainly] || line
		how[inURL] = how[inURL] || line || c == '%' || c == '+' && s.spaces
		how[inString] = how[inString] || line || c == '\\'
		how[inMarkup] = how[inMarkup] || line || c == '&'
	}
	for w := range writings {
		if how[w] && s.opensAs(b, w) {
			return true
		}
	}
	return false
}

// opensAs reports whether b, in one writing, may begin with the first bytes of a pattern.
func (s *scrubber) opensAs(b []byte, how writing) bool {
	var out [opening + utf8.UTFMax]byte
	for n := 0; n < opening; {
		if len(b) < maxEscape {
			return true // the lines are too short to decide here
		}
		size, took := 1, 1
		switch out[n] = b[0]; {
		case how == inURL && b[0] == '+' && s.spaces:
			return true // it stands for itself or a space
		case how == inURL && b[0] == '%':
			if hi, lo := hexDigit(b[1]), hexDigit(b[2]); hi >= 0 && lo >= 0 {
				out[n], size = byte(hi<<4|lo), 3
			}
		case how == inMarkup && b[0] == '&':
			if k, c, _ := reference(b); k > 0 {
				size, took = k, utf8.EncodeRune(out[n:n+utf8.UTFMax], c)
			}
		case how == inString && b[0] == '\\':
			if size, took = unescape(out[n:], b); size == 0 {
				return false
			}
		}
		if n == 0 && !s.begins(out[0]) {
			return false
		}
		switch line := n > 0 && (out[n] == '\r' || out[n] == '\n'); {
		case line && s.lines:
			return true // it may be the value's
		case !line:
			if n == 1 && !s.firsts.has(uint16(out[0])<<8|uint16(out[1])) {
				return false
			}
			n += took
		}
		b = b[size:]
	}
	return s.openings.has(openingHash(out[0], out[1], out[2], out[3]))
}

// unescape writes the character of the JSON escape at the start of b to out. It returns
// the length of the escape, 0 if there is none, and of the character, in bytes.
// Preconditions: b has maxEscape bytes.
func unescape(out, b []byte) (size, took int) {
	if b[1] != 'u' {
		if out[0] = shortEscapes[b[1]]; out[0] == 0 {
			return 0, 0
		}
		return 2, 1
	}
	r, _ := hex4(b[2:])
	if r < 0 {
		return 0, 0
	}
	size = 6
	if 0xd800 <= r && r < 0xdc00 {
		low, _ := hex4(b[8:])
		if b[6] != '\\' || b[7] != 'u' || low < 0xdc00 || low > 0xdfff {
			return 0, 0
		}
		r, size = 0x10000+(r-0xd800)<<10+(low-0xdc00), 12
	}
	return size, utf8.EncodeRune(out[:utf8.UTFMax], r)
}

// begins reports whether a pattern begins with c.
func (s *scrubber) begins(c byte) bool { return s.from[c] < s.from[int(c)+1] }

// at returns the length of the longest match at the start of b, 0 if there is none. If more
// is true, the bytes behind b may make another match.
func (s *scrubber) at(b []byte) (n int, more bool) {
	for how := range writings {
		n, more = s.begun(b, b[0], how, n, more)
	}
	switch b[0] {
	case '%':
		if len(b) < 3 {
			return n, true
		}
		if hi, lo := hexDigit(b[1]), hexDigit(b[2]); hi >= 0 && lo >= 0 {
			return s.begun(b, byte(hi<<4|lo), inURL, n, more)
		}
	case '+':
		return s.begun(b, ' ', inURL, n, more)
	case '&':
		size, c, m := reference(b)
		if size > 0 {
			var enc [utf8.UTFMax]byte
			utf8.EncodeRune(enc[:], c)
			return s.begun(b, enc[0], inMarkup, n, more)
		}
		return n, more || m
	case '\\':
		if !s.wide && len(b) > 3 && b[1] == 'u' && (b[2] != '0' || b[3] != '0') {
			return n, more
		}
		c, ok, m := escaped(b)
		if ok {
			return s.begun(b, c, inString, n, more)
		}
		return n, more || m
	}
	return n, more
}

// begun returns the longer of n and the longest match of the patterns that begin with
// first, in one writing. more is that of at.
func (s *scrubber) begun(b []byte, first byte, how writing, n int, more bool) (int, bool) {
	for _, p := range s.patterns[s.from[first]:s.from[int(first)+1]] {
		k, m := matchAs(b, p, how)
		n, more = max(n, k), more || m
	}
	return n, more
}

// escaped returns the first byte of the character that a JSON escape at the start of b
// stands for. ok is false if there is no escape. If more is true, b is too short to decide.
func escaped(b []byte) (c byte, ok, more bool) {
	if len(b) < 2 {
		return 0, false, true
	}
	if b[1] != 'u' {
		c = shortEscapes[b[1]]
		return c, c != 0, false
	}
	r, m := hex4(b[2:])
	if r < 0 {
		return 0, false, m
	}
	if 0xd800 <= r && r < 0xdc00 {
		r = 0x10000 + (r-0xd800)<<10 // the second surrogate changes later bytes only
	}
	var enc [utf8.UTFMax]byte
	utf8.EncodeRune(enc[:], r)
	return enc[0], true, false
}

// matchAs returns the number of bytes that p takes at the start of b in one writing, 0 if
// p is not there. If more is true, b is too short to decide. Line ends between two bytes
// of p are skipped, because base64 is often broken into lines.
func matchAs(b []byte, p string, how writing) (n int, more bool) {
	i := 0
	for k := 0; k < len(p); k++ {
		if k > 0 && i < len(b) && p[k] != '\r' && p[k] != '\n' {
			size, m := lineEnd(b[i:], how)
			if m {
				return 0, true
			}
			i += size
		}
		if i == len(b) {
			return 0, true
		}
		c := b[i]
		switch {
		case how == inURL && c == '%':
			if len(b)-i < 3 {
				return 0, true
			}
			if hi, lo := hexDigit(b[i+1]), hexDigit(b[i+2]); hi >= 0 && lo >= 0 {
				if byte(hi<<4|lo) != p[k] {
					return 0, false
				}
				i += 3
				continue
			}
		case how == inURL && c == '+' && p[k] == ' ':
			i++
			continue
		case how == inMarkup && c == '&':
			size, c, m := reference(b[i:])
			if m {
				return 0, true
			}
			if size > 0 {
				var enc [utf8.UTFMax]byte
				took := utf8.EncodeRune(enc[:], c)
				if !strings.HasPrefix(p[k:], string(enc[:took])) {
					return 0, false
				}
				i += size
				k += took - 1
				continue
			}
		case how == inString && c == '\\':
			size, took, m := matchEscape(b[i:], p[k:])
			if size == 0 {
				return 0, m
			}
			i += size
			k += took - 1
			continue
		}
		if c != p[k] {
			return 0, false
		}
		i++
	}
	return i, false
}

// lineEnd returns the length of the end of a line at the start of b in one writing, 0 if
// there is none. If more is true b is too short to tell.
func lineEnd(b []byte, how writing) (n int, more bool) {
	if c := b[0]; c > '\r' && (c != '%' || how != inURL) && (c != '\\' || how != inString) && (c != '&' || how != inMarkup) {
		return 0, false // as nearly always
	}
	for _, c := range []byte("\r\n") {
		size, m := controlAs(b[n:], c, how)
		if m {
			return 0, true
		}
		n += size
	}
	return n, false
}

// controlAs returns the length of the control character c at the start of b in one
// writing, 0 if it is not there. If more is true b is too short to tell.
func controlAs(b []byte, c byte, how writing) (n int, more bool) {
	switch {
	case len(b) == 0:
		return 0, true
	case b[0] == c:
		return 1, false
	case how == inString && b[0] == '\\':
		if len(b) < 2 {
			return 0, true
		}
		if shortEscapes[b[1]] == c {
			return 2, false
		}
	case how == inMarkup && b[0] == '&':
		size, char, m := reference(b)
		if m {
			return 0, true
		}
		if size > 0 && char == rune(c) {
			return size, false
		}
	case how == inURL && b[0] == '%':
		if len(b) < 3 {
			return 0, true
		}
		if hi, lo := hexDigit(b[1]), hexDigit(b[2]); hi >= 0 && lo >= 0 && byte(hi<<4|lo) == c {
			return 3, false
		}
	}
	return 0, false
}

// matchEscape is the length of a JSON escape at the start of b and how much of p it
// stands for, 0 if it is something else.
func matchEscape(b []byte, p string) (size, took int, more bool) {
	if len(b) < 2 {
		return 0, 0, true
	}
	if b[1] != 'u' {
		if c := shortEscapes[b[1]]; c != 0 && c == p[0] {
			return 2, 1, false
		}
		return 0, 0, false
	}
	r, m := hex4(b[2:])
	if r < 0 {
		return 0, 0, m
	}
	size = 6
	if 0xd800 <= r && r < 0xdc00 {
		for i, c := range []byte(`\u`) {
			if 6+i == len(b) {
				return 0, 0, true
			}
			if b[6+i] != c {
				return 0, 0, false
			}
		}
		low, m := hex4(b[8:])
		if low < 0xdc00 || low > 0xdfff {
			return 0, 0, m
		}
		r, size = 0x10000+(r-0xd800)<<10+(low-0xdc00), 12
	}
	var enc [utf8.UTFMax]byte
	n := utf8.EncodeRune(enc[:], r)
	if !strings.HasPrefix(p, string(enc[:n])) {
		return 0, 0, false
	}
	return size, n, false
}

// hex4 returns the value of the four hexadecimal digits at the start of b, -1 if there are
// other bytes. If more is true, b is too short to decide.
func hex4(b []byte) (r rune, more bool) {
	for k := range 4 {
		if k == len(b) {
			return -1, true
		}
		d := hexDigit(b[k])
		if d < 0 {
			return -1, false
		}
		r = r<<4 | rune(d)
	}
	return r, false
}
