// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// pathSelector matches the path of an endpoint in the way in which OpenShell selects the
// endpoint whose settings apply to a request. It differs from the matcher of rules: a *
// crosses slashes, a trailing /** also matches the path before it, and braces and \ escapes
// have no meaning. The zero value matches every path.
type pathSelector struct {
	// pattern is in the spelling of canonicalPattern.
	pattern string
	any     bool
	// subtree is the path before a trailing /**.
	subtree string
	tokens  []globToken
	valid   bool
}

// newSelector never fails. As in OpenShell, a pattern that is not a valid glob matches only
// the path with the same text.
func newSelector(pattern string) pathSelector {
	pattern = canonicalPattern(pattern, selectorDialect)
	s := pathSelector{pattern: pattern}
	if pattern == "" || pattern == "**" || pattern == "/**" {
		s.any = true
	} else if before, ok := strings.CutSuffix(pattern, "/**"); ok {
		s.subtree = strings.ReplaceAll(before, `\*`, "*")
	} else {
		s.tokens, s.valid = selectorTokens(pattern)
	}
	return s
}

func (s *pathSelector) match(path string) bool {
	switch {
	case s.any, s.pattern == path:
		return true
	case s.subtree != "":
		rest, ok := strings.CutPrefix(path, s.subtree)
		return ok && (rest == "" || rest[0] == '/')
	}
	return s.valid && matchTokens(s.tokens, path, '/')
}

// rank orders the endpoints that match a path. The settings of the highest one apply.
func (s *pathSelector) rank() int {
	return rank(s.pattern)
}

func selectorTokens(p string) ([]globToken, bool) {
	var out []globToken
	for i := 0; i < len(p); {
		switch c := p[i]; {
		case c == '*':
			from := i
			for i < len(p) && p[i] == '*' {
				i++
			}
			switch i - from {
			case 1:
				out = append(out, globToken{kind: runToken})
			case 2: // a whole segment, and never the last one here
				if from > 0 && p[from-1] != '/' || i == len(p) || p[i] != '/' {
					return nil, false
				}
				i++
				out = append(out, globToken{kind: treeToken})
			default:
				return nil, false
			}
		case c == '?':
			i++
			out = append(out, globToken{kind: classToken, class: charClass{not: true}})
		case c == '[':
			set, n := selectorClass(p[i:])
			if n == 0 {
				return nil, false
			}
			i += n
			out = append(out, globToken{kind: classToken, class: set})
		default:
			if c == '\\' {
				i++
			}
			i++
			out = push(out, globToken{literal: p[i-1 : i]})
		}
	}
	return out, true
}

// selectorClass reads the class [...] at the start of p and returns its length; 0 means
// that it is not valid. The first character may be a ]. A range whose end is below its
// start is empty.
func selectorClass(p string) (charClass, int) {
	var c charClass
	from := 1
	if len(p) > 1 && p[1] == '!' {
		c.not, from = true, 2
	}
	if len(p) < from+2 {
		return c, 0
	}
	end := strings.IndexByte(p[from+1:], ']')
	if end < 0 {
		return c, 0
	}
	set := p[from : from+1+end]
	length := from + len(set) + 1
	for len(set) > 0 {
		lo, hi, n := set[0], set[0], 1
		if len(set) > 2 && set[1] == '-' {
			hi, n = set[2], 3
		}
		// Paths are ASCII, so other characters in a class do not matter.
		if lo < 0x80 {
			c.add(lo, min(hi, 0x7f))
		}
		set = set[n:]
	}
	return c, length
}
