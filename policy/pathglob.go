// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// canonicalPattern returns a path pattern whose literal text has the spelling of
// [CanonicalPath]: /%40a becomes /@a, and /é becomes /%C3%A9. %2A becomes \*, a literal *
// in both dialects.
func canonicalPattern(p string, d dialect) string { return spellPattern(p, d, "%2F") }

// decodedPattern is canonicalPattern for the pattern of a rule. It also decodes each %2F,
// as decodeSlashes does in a path.
func decodedPattern(p string) string {
	canonical, decoded := canonicalPattern(p, ruleDialect), spellPattern(p, ruleDialect, "/")
	if decoded != canonical {
		decoded = collapseSlashes(decoded)
	}
	return decoded
}

// decodeSlashes returns a canonical path as a server reads it that decodes %2F. It
// allocates only if the path contains %2F. The result has no dot segment: [CanonicalPath]
// refuses one next to %2F.
func decodeSlashes(path string) string {
	if !strings.Contains(path, "%2F") {
		return path
	}
	return collapseSlashes(strings.ReplaceAll(path, "%2F", "/"))
}

func collapseSlashes(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if i == 0 || s[i] != '/' || s[i-1] != '/' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// spellPattern returns a pattern in canonical spelling, with slash instead of each %2F.
func spellPattern(p string, d dialect, slash string) string {
	out := make([]byte, 0, len(p))
	literal := func(c byte) {
		switch {
		case c == '/':
			out = append(out, c)
		case c == '*', c == ',' && d == ruleDialect:
			out = append(out, '\\', c)
		default:
			out = appendSegmentByte(out, c)
		}
	}
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '[':
			n := classLength(p[i:], d)
			if n == 0 {
				return string(out) + p[i:] // the parser refuses the pattern
			}
			out = append(out, p[i:i+n]...)
			i += n - 1
		case c == '*', c == '?', d == ruleDialect && strings.IndexByte("{},", c) >= 0:
			out = append(out, c)
		case d == ruleDialect && c == '\\':
			if i++; i == len(p) {
				return string(out) + `\`
			}
			literal(p[i])
		case c == '%':
			switch b, ok := unescapeByte(p[i:]); {
			case !ok: // no canonical path has such a %
				out = append(out, c)
			case b == '/':
				out = append(out, slash...)
				i += 2
			default:
				literal(b)
				i += 2
			}
		default:
			literal(c)
		}
	}
	return string(out)
}

// classLength returns the length of the character class at the start of p, or 0 if it has
// no closing bracket.
func classLength(p string, d dialect) int {
	if d == selectorDialect {
		_, n := selectorClass(p)
		return n
	}
	return strings.IndexByte(p, ']') + 1
}

// compilePath compiles the pattern of a URL path.
func compilePath(pattern string) (Glob, error) {
	if len(pattern) > MaxGlob {
		return Glob{}, errLongGlob
	}
	return compileSpelled(canonicalPattern(pattern, ruleDialect), pattern)
}

// compileSpelled compiles a pattern in canonical spelling. Errors quote the pattern as
// written.
func compileSpelled(spelled, written string) (Glob, error) {
	p := globParser{pattern: spelled, sep: '/'}
	return p.glob(written)
}

// denyPath is the path pattern of a deny rule. It also matches other spellings of a path
// that servers commonly take for the same path.
type denyPath struct {
	whole Glob
	// base matches the paths to which a pattern ending in / or /** refers, without their
	// trailing slash.
	base Glob
}

// compileDenyPath compiles the path pattern of a deny rule. A ? or [ ] in it also matches a
// whole escape, and a %2F also a slash.
func compileDenyPath(pattern string) (denyPath, error) {
	g, err := compilePath(pattern)
	if decoded := decodedPattern(pattern); err == nil && decoded != canonicalPattern(pattern, ruleDialect) {
		var plain Glob
		plain, err = compileSpelled(decoded, pattern)
		g.alternatives = append(g.alternatives, plain.alternatives...)
	}
	d := denyPath{g, Glob{sep: '/'}}
	for _, tokens := range g.alternatives {
		if wide := escapesAreCharacters(tokens); wide != nil {
			d.whole.alternatives = append(d.whole.alternatives, wide)
		}
	}
	for _, tokens := range d.whole.alternatives {
		d.base.alternatives = append(d.base.alternatives, bases(tokens)...)
	}
	return d, err
}

// covers reports whether the pattern matches a canonical path, with or without its trailing
// slash. A pattern that ends in / or /** also covers the path before that ending.
func (d *denyPath) covers(path string) bool {
	if d.whole.Match(path) {
		return true
	}
	bare := strings.TrimSuffix(path, "/")
	return bare != "" && (bare != path && d.whole.Match(bare) || d.base.Match(bare))
}

// escapesAreCharacters returns a copy of tokens whose classes match a whole escape as one
// character, or nil if tokens has no class.
func escapesAreCharacters(tokens []globToken) []globToken {
	class := func(t globToken) bool { return t.kind == classToken }
	if !slices.ContainsFunc(tokens, class) {
		return nil
	}
	out := slices.Clone(tokens)
	for i := range out {
		out[i].escapes = class(out[i])
	}
	return out
}

// bases returns the tokens of a pattern without its final / or /**.
func bases(tokens []globToken) (out [][]globToken) {
	n := len(tokens)
	if n > 0 && tokens[n-1].kind == treeToken { // /a/**/ is also /a/b
		out = append(out, append(slices.Clone(tokens[:n-1]), globToken{kind: runToken}))
	}
	for n > 0 && (tokens[n-1].kind == runToken || tokens[n-1].kind == treeToken) {
		n--
	}
	if n == 0 || !strings.HasSuffix(tokens[n-1].literal, "/") {
		return out
	}
	base := slices.Clone(tokens[:n])
	base[n-1].literal = strings.TrimSuffix(base[n-1].literal, "/")
	return append(out, base)
}

// errLongGlob is the error for a pattern that is too long.
var errLongGlob = fmt.Errorf("pattern is longer than %d bytes", MaxGlob)
