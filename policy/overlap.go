// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(from, to byte) {
	for c := int(from); c <= int(to); c++ {
		s[c>>6] |= 1 << (c & 63)
	}
}

func (s *byteSet) has(c byte) bool { return s[c>>6]>>(c&63)&1 == 1 }

func (s *byteSet) remove(c byte) { s[c>>6] &^= 1 << (c & 63) }

func (s *byteSet) invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

func (s *byteSet) meets(t *byteSet) bool {
	return s[0]&t[0]|s[1]&t[1]|s[2]&t[2]|s[3]&t[3] != 0
}

// step matches one byte of the set or, with star, any number of them.
type step struct {
	set  byteSet
	star bool
}

// dialect selects the syntax of a pattern.
type dialect uint8

const (
	// ruleDialect is the syntax of [CompileGlob].
	ruleDialect dialect = iota
	// selectorDialect is the syntax of an endpoint's path. * and ? match /, too, and { and
	// } have no special meaning. Only canonicalPattern writes a \ in it.
	selectorDialect
)

// tokens parses a pattern into a list for overlap. Where a list cannot express the pattern,
// as with {a,b}, it matches more than the pattern does.
func tokens(p string, sep byte, d dialect) []step {
	var all byteSet
	all.invert()
	within := all
	if d == ruleDialect {
		within.remove(sep)
	}
	out := make([]step, 0, len(p))
	for i := 0; i < len(p); i++ {
		t := step{}
		switch c := p[i]; {
		case c == '*':
			from := i
			for i+1 < len(p) && p[i+1] == '*' {
				i++
			}
			t = step{within, true}
			if i-from == 1 && (from == 0 || p[from-1] == sep) && (i+1 == len(p) || p[i+1] == sep) {
				t.set = all
				if from > 0 && i+1 < len(p) {
					i++ // a/**/b is also a/b
				}
			}
		case c == '?':
			t.set = within
		case c == '[' && strings.IndexByte(p[i+1:], ']') > 0:
			end := i + 1 + strings.IndexByte(p[i+1:], ']')
			t.set = setOf(p[i+1 : end])
			i = end
		case d == ruleDialect && c == '{':
			i = closing(p, i)
			t = step{all, true}
		case c == '\\' && i+1 < len(p):
			i++
			t.set.add(p[i], p[i])
		default:
			t.set.add(c, c)
		}
		out = append(out, t)
	}
	return out
}

// setOf returns the set of bytes in the brackets of a class.
func setOf(s string) (set byteSet) {
	not := len(s) > 1 && (s[0] == '!' || s[0] == '^')
	if not {
		s = s[1:]
	}
	for i := 0; i < len(s); i++ {
		if i+2 < len(s) && s[i+1] == '-' {
			set.add(s[i], s[i+2])
			i += 2
		} else {
			set.add(s[i], s[i])
		}
	}
	if not {
		set.invert()
	}
	return set
}

// closing returns the index of the brace that closes the one at i, or len(p).
func closing(p string, i int) int {
	depth := 0
	for ; i < len(p); i++ {
		switch p[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		case '\\':
			i++
		}
	}
	return i
}

// overlapCost is the cost of one call of overlap and its memory, in steps.
const overlapCost = 100

// overlap reports whether some text matches both a and b. It subtracts its steps from work,
// and returns true if none are left.
func overlap(a, b []step, work *int) bool {
	type state struct{ a, b int }
	width := len(b) + 1
	*work -= overlapCost + (len(a)+1)*width/8
	seen := make([]bool, (len(a)+1)*width)
	todo := []state{{0, 0}}
	for len(todo) > 0 {
		if *work--; *work < 0 {
			return true
		}
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[s.a*width+s.b] {
			continue
		}
		seen[s.a*width+s.b] = true
		if s.a == len(a) && s.b == len(b) {
			return true
		}
		if s.a < len(a) && a[s.a].star {
			todo = append(todo, state{s.a + 1, s.b})
		}
		if s.b < len(b) && b[s.b].star {
			todo = append(todo, state{s.a, s.b + 1})
		}
		if s.a == len(a) || s.b == len(b) || !a[s.a].set.meets(&b[s.b].set) {
			continue
		}
		next := state{s.a + 1, s.b + 1}
		if a[s.a].star {
			next.a--
		}
		if b[s.b].star {
			next.b--
		}
		todo = append(todo, next)
	}
	return false
}
