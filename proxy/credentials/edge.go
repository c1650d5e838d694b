// SPDX-License-Identifier: Apache-2.0

package credentials

import "unicode/utf8"

// edge is the start of some content in one writing, without line ends. It is searched for
// the ends of values by the method of Knuth, Morris and Pratt. The zero value is ready for
// [edge.decode].
type edge struct {
	how  writing
	text []byte
	// ends[i] is the number of bytes of the content that text[:i+1] takes, 0 if text[i] is
	// not the last byte of a character.
	ends []int
	// borders[i] is the length of the longest prefix of text that is also a suffix of
	// text[:i+1], and shorter than it.
	borders []int
	// open is true if the content ends with text, or with text and a part of an escape.
	open bool
}

// decode sets e to the start of b in one writing, with limit bytes or a few more if b has
// them. It returns false if the writing makes no difference: e is then that of plainly.
func (e *edge) decode(b []byte, how writing, limit int) bool {
	e.how, e.open = how, false
	e.text, e.ends, e.borders = e.text[:0], e.ends[:0], e.borders[:0]
	differs := how == plainly
	for i := 0; len(e.text) < limit; {
		if i == len(b) {
			e.open = true
			break
		}
		var c [utf8.UTFMax]byte
		size, took := character(c[:], b[i:], how)
		if size == 0 {
			differs = true
			e.open = len(b)-i < maxEscape
			break
		}
		i += size
		differs = differs || size > 1 || how == inURL && (c[0] == '+' || c[0] == ' ')
		if took == 1 && lineBreak(c[0]) {
			continue
		}
		for _, c := range c[:took] {
			e.push(e.fold(c))
		}
		e.ends[len(e.ends)-1] = i
	}
	return differs
}

// push appends c to text, as a byte that does not end its character.
func (e *edge) push(c byte) {
	border := 0
	if n := len(e.text); n > 0 {
		border = e.next(e.borders[n-1], c)
	}
	e.text, e.ends, e.borders = append(e.text, c), append(e.ends, 0), append(e.borders, border)
}

// next returns the length of the longest prefix of text that ends with c, where the bytes
// before c end with the first n bytes of text.
func (e *edge) next(n int, c byte) int {
	for n > 0 && (n == len(e.text) || e.text[n] != c) {
		n = e.borders[n-1]
	}
	if n < len(e.text) && e.text[n] == c {
		n++
	}
	return n
}

// fold returns c, and + for a space in a URL: there a + is either of them.
func (e *edge) fold(c byte) byte {
	if e.how == inURL && c == ' ' {
		return '+'
	}
	return c
}

// endOf returns the number of bytes of the content that are the end of p, without its first
// byte; 0 if there are fewer than MinEdge. If open is true, the whole content lies in p, and
// the end of p may follow.
func (e *edge) endOf(p string) (size int, open bool) {
	n, least := 0, 0
	for i := 1; i < len(p); i++ {
		if lineBreak(p[i]) {
			continue
		}
		if i >= len(p)-MinEdge {
			least++
		}
		n = e.next(n, e.fold(p[i]))
		open = open || e.open && n == len(e.text) && i < len(p)-1
	}
	for n > 0 && e.ends[n-1] == 0 {
		n = e.borders[n-1]
	}
	if n == 0 || n < least {
		return 0, open
	}
	return e.ends[n-1], open
}

// character writes the first character of b, in one writing, to out. It returns its length
// in b and in out. The length in b is 0 if b begins with a broken escape, or with a part of
// one.
func character(out, b []byte, how writing) (size, took int) {
	out[0] = b[0]
	switch {
	case how == inURL && b[0] == '%':
		if len(b) < 3 {
			return 0, 0
		}
		if hi, lo := hexDigit(b[1]), hexDigit(b[2]); hi >= 0 && lo >= 0 {
			out[0] = byte(hi<<4 | lo)
			return 3, 1
		}
	case how == inMarkup && b[0] == '&':
		size, c, more := reference(b)
		if more {
			return 0, 0
		}
		if size > 0 {
			return size, utf8.EncodeRune(out, c)
		}
	case how == inString && b[0] == '\\':
		var whole [maxEscape]byte
		copy(whole[:], b)
		return unescape(out, whole[:])
	}
	return 1, 1
}

func lineBreak(c byte) bool { return c == '\r' || c == '\n' }
