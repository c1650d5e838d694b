// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"
)

// MaxQueryDecodings bounds how often a deny rule decodes a parameter. Clients encode at
// most two or three times. A parameter that is encoded more often matches the rule, so
// that long texts cannot keep the proxy busy.
const MaxQueryDecodings = 4

// queryRule is a compiled QueryRule.
type queryRule struct {
	key   string
	globs []Glob
}

// compileQuery compiles the patterns of a parameter. A pattern with escapes in a deny
// rule also matches the escapes as text.
func compileQuery(q QueryRule, deny bool) (out queryRule, err error) {
	out.key = q.Key
	for _, pattern := range q.Globs {
		// OpenShell drops a single empty pattern, so that no value matches.
		if pattern == "" && len(q.Globs) == 1 && !deny {
			break
		}
		g, e := compileQueryGlob(pattern)
		err = errors.Join(err, e)
		out.globs = append(out.globs, g)
		if deny && strings.Contains(pattern, "%") {
			p := globParser{pattern: pattern, sep: '.', unicode: true}
			g, e = p.glob(pattern)
			err = errors.Join(err, e)
			out.globs = append(out.globs, g)
		}
	}
	return out, err
}

// compileQueryGlob compiles a pattern of decoded values. Escapes in it stand for the
// characters that they encode.
func compileQueryGlob(pattern string) (Glob, error) {
	if len(pattern) > MaxGlob {
		return Glob{}, errLongGlob
	}
	text := make([]byte, 0, len(pattern))
	class := false
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch b, ok := unescapeByte(pattern[i:]); {
		case class:
			class = c != ']'
		case c == '\\' && i+1 < len(pattern):
			text = append(text, c)
			i++
			c = pattern[i]
		case c == '[':
			class = true
		case ok:
			if c, i = b, i+2; c < utf8.RuneSelf {
				text = append(text, '\\') // never a wildcard
			}
		}
		text = append(text, c)
	}
	p := globParser{pattern: string(text), sep: '.', unicode: true}
	return p.glob(pattern)
}

func (q *queryRule) match(value string) bool {
	for i := range q.globs {
		if q.globs[i].Match(value) {
			return true
		}
	}
	return false
}

// names reports whether some server reads a decoded name as the rule's parameter: upper
// and lower case are equal, text from a [ on does not count, and a space or dot is _
// (PHP).
func (q *queryRule) names(name string) bool {
	key, name := bareName(q.key), bareName(strings.TrimLeft(name, " "))
	same := len(key) == len(name)
	for i := 0; same && i < len(key); i++ {
		same = foldName(key[i]) == foldName(name[i])
	}
	return same || !(isASCII(key) && isASCII(name)) && strings.EqualFold(key, name)
}

// bareName is a parameter's name without the [ ] of an array.
func bareName(name string) string {
	if i := strings.IndexByte(name, '['); i > 0 {
		return name[:i]
	}
	return name
}

// foldName returns the byte that stands for c where names are compared.
func foldName(c byte) byte {
	switch {
	case c == ' ', c == '.':
		return '_'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

// allows reports whether the query has the parameter and all of its values match, also
// those of other names that some server reads as the parameter. Preconditions:
// checkQuery accepts the query.
func (q *queryRule) allows(query string) bool {
	found := false
	for len(query) > 0 {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name := unescapeQuery(rawName)
		exact := pair != "" && name == q.key
		if exact && !q.match(unescapeQuery(rawValue)) {
			return false
		}
		found = found || exact
		if strings.IndexByte(pair, ';') < 0 && (exact || len(name) == len(rawName) && !q.names(name)) {
			continue // as nearly always
		}
		if !q.allowsParts(pair) {
			return false
		}
	}
	return found
}

// allowsParts reports whether every value in a pair that some server reads as one of the
// parameter matches.
func (q *queryRule) allowsParts(pair string) bool {
	for part := range parts(pair) {
		rawName, rawValue, _ := strings.Cut(part, "=")
		if eachDecoding(rawName, q.names) && !q.match(unescapeQuery(rawValue)) {
			return false
		}
	}
	return true
}

// denies reports whether a value matches, in some stage of decoding, that some server
// reads as one of the parameter.
func (q *queryRule) denies(query string) bool {
	for pair := range strings.SplitSeq(query, "&") {
		for part := range parts(pair) {
			rawName, rawValue, _ := strings.Cut(part, "=")
			if eachDecoding(rawName, q.names) && eachDecoding(rawValue, q.match) {
				return true
			}
		}
	}
	return false
}

// parts yields a pair of a query and, if it holds a ;, its pieces: some servers separate
// parameters there.
func parts(pair string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if pair == "" || !yield(pair) || strings.IndexByte(pair, ';') < 0 {
			return
		}
		for part := range strings.SplitSeq(pair, ";") {
			if part != "" && !yield(part) {
				return
			}
		}
	}
}

// eachDecoding reports whether ok is true for s as it is written or in some stage of
// decoding. It returns true for an s that can be decoded more than MaxQueryDecodings
// times.
func eachDecoding(s string, ok func(string) bool) bool {
	for range MaxQueryDecodings + 1 {
		if ok(s) {
			return true
		}
		plain := unescapeQuery(s)
		if plain == s {
			return false
		}
		s = plain
	}
	return true
}

// checkQuery returns an error for a query that servers read in different ways.
func checkQuery(query string) error {
	if plainQuery(query) {
		return nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		for _, raw := range [...]string{rawKey, rawValue} {
			if err := checkComponent(raw); err != nil {
				return fmt.Errorf("query component %.80q %w", raw, err)
			}
		}
	}
	return nil
}

// plainQuery reports whether a query has no byte that checkQuery must look at.
func plainQuery(query string) bool {
	for i := range len(query) {
		if c := query[i]; c < ' ' || c >= 0x7f || c == '%' {
			return false
		}
	}
	return true
}

func checkComponent(raw string) error {
	for i := range len(raw) {
		if _, ok := unescapeByte(raw[i:]); raw[i] == '%' && !ok {
			return errors.New("has a % without two hexadecimal digits")
		}
	}
	plain := unescapeQuery(raw)
	for i := range len(plain) {
		if c := plain[i]; c < ' ' || c == 0x7f {
			return errors.New("has a control byte")
		}
	}
	if !utf8.ValidString(plain) {
		return errors.New("is not valid UTF-8")
	}
	return nil
}

// unescapeQuery decodes a key or value. A % that begins no escape stays. It allocates
// only if there is something to decode.
func unescapeQuery(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch b, ok := unescapeByte(s[i:]); {
		case ok:
			out = append(out, b)
			i += 2
		case s[i] == '+':
			out = append(out, ' ')
		default:
			out = append(out, s[i])
		}
	}
	return string(out)
}
