// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"unicode/utf8"
)

// MaxGlob is the longest pattern in bytes.
const MaxGlob = 1024

// Glob is a compiled pattern of OpenShell's rule matcher. * and ? do not match the
// separator. ** matches it if it is a whole segment, and means * elsewhere. [a-z], [!a],
// {a,b} and \ escapes are supported. The zero value matches nothing. (No library has these
// rules, which must be OpenShell's, and a time bound.)
type Glob struct {
	sep byte
	// alternatives holds the pattern once for each choice of its braces; without braces, it
	// has one element.
	alternatives [][]globToken
}

// CompileGlob compiles a pattern. The separator sep is '.' for hosts and '/' for binaries.
func CompileGlob(pattern string, sep byte) (Glob, error) {
	if len(pattern) > MaxGlob {
		return Glob{}, errLongGlob
	}
	p := globParser{pattern: pattern, sep: sep}
	return p.glob(pattern)
}

// Match reports whether the pattern matches all of s. It does not allocate.
func (g Glob) Match(s string) bool {
	for _, tokens := range g.alternatives {
		if matchTokens(tokens, s, g.sep) {
			return true
		}
	}
	return false
}

type tokenKind uint8

const (
	literalToken tokenKind = iota
	classToken             // one character
	starToken              // any text without the separator
	runToken               // any text
	treeToken              // nothing, or any text that ends in the separator
)

type globToken struct {
	kind    tokenKind
	literal string
	class   charClass
	// escapes makes a class match a whole percent-encoded character.
	escapes bool
}

// charClass is a set of ASCII characters, or with not all characters outside the set.
type charClass struct {
	bits [2]uint64
	not  bool
}

func (c *charClass) add(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		c.bits[b>>6] |= 1 << (b & 63)
	}
}

func (c *charClass) has(r rune) bool {
	return (r < 0x80 && c.bits[r>>6]>>(r&63)&1 == 1) != c.not
}

// take returns how many bytes at the start of s a literal or class matches.
func (t *globToken) take(s string) (int, bool) {
	if t.kind == literalToken {
		return len(t.literal), strings.HasPrefix(s, t.literal)
	}
	if c, ok := unescapeByte(s); ok && t.escapes {
		return t.takeEscape(c, s)
	}
	r, n := utf8.DecodeRuneInString(s)
	return n, n > 0 && t.class.has(r)
}

// takeEscape is take for the percent-encoded character at the start of s, whose first byte
// is c.
func (t *globToken) takeEscape(c byte, s string) (int, bool) {
	if c == '/' { // an encoded slash separates no segments
		return len("%2F"), t.class.not
	}
	if c < utf8.RuneSelf {
		return len("%20"), t.class.has(rune(c))
	}
	n := 2 // the character's length in bytes, by its first byte
	for ; n < utf8.UTFMax && c<<n&0x80 != 0; n++ {
	}
	return min(3*n, len(s)), t.class.not
}

// matchTokens backtracks only to the last * and, once that has reached a separator, to the
// last token that crosses separators. This is enough: the tokens before such a token match
// best where they match first, and a * can end at only one place before a given separator.
// The time is at most proportional to the product of both lengths, once for each of the two
// tokens, and never exponential.
func matchTokens(tokens []globToken, s string, sep byte) bool {
	const none = -1
	t, at := 0, 0
	star, starEnd := none, 0
	cross, crossEnd := none, 0
	for {
		if t < len(tokens) {
			switch tok := &tokens[t]; tok.kind {
			case starToken:
				star, starEnd = t, at
				t++
				continue
			case runToken, treeToken:
				if tok.kind == runToken && t == len(tokens)-1 {
					return true
				}
				star, cross, crossEnd = none, t, at
				t++
				continue
			default:
				if n, ok := tok.take(s[at:]); ok {
					t, at = t+1, at+n
					continue
				}
			}
		} else if at == len(s) {
			return true
		}
		if star != none && starEnd < len(s) && s[starEnd] != sep {
			starEnd += runeLen(s[starEnd:])
			t, at = star+1, starEnd
			continue
		}
		star = none
		if cross == none || crossEnd == len(s) {
			return false
		}
		if tokens[cross].kind == treeToken {
			next := strings.IndexByte(s[crossEnd:], sep)
			if next < 0 {
				return false
			}
			crossEnd += next + 1
		} else {
			crossEnd += runeLen(s[crossEnd:])
		}
		t, at = cross+1, crossEnd
	}
}

func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
