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

// compileQuery compiles the patterns of a parameter. In a deny rule, a pattern that
// contains escapes also matches the text of the escapes.
func compileQuery(q QueryRule, deny bool) (out queryRule, _ error) {
	out.key = q.Key
	var errs []error
	for _, pattern := range q.Globs {
		// OpenShell ignores a single empty pattern, so no value matches.
		if pattern == "" && len(q.Globs) == 1 && !deny {
			break
		}
		g, err := compileQueryGlob(pattern)
		errs = append(errs, err)
		out.globs = append(out.globs, g)
		if deny && strings.Contains(pattern, "%") {
			p := globParser{pattern: pattern, sep: '.', unicode: true}
			g, err = p.glob(pattern)
			errs = append(errs, err)
			out.globs = append(out.globs, g)
		}
	}
	return out, errors.Join(errs...)
}

// compileQueryGlob compiles a pattern for decoded values. Escapes in the pattern stand for
// the characters that they encode.
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
				text = append(text, '\\') // a decoded character is never a wildcard
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

// names reports whether any common server reads the decoded name as the rule's parameter.
// It ignores case and brackets (PHP, Rack and qs do), and takes a space, a dot and an
// unclosed [ as _ (as PHP does).
func (q *queryRule) names(name string) bool {
	key := bareName(q.key)
	if sameName(key, bareName(name)) {
		return true
	}
	i := strings.IndexByte(name, '[')
	return i >= 0 && strings.IndexByte(name[i:], ']') < 0 && sameName(key, strings.Trim(name, blanks))
}

// blanks are the characters around a name that some servers remove.
const blanks = " \t\r\n"

// bareName returns a parameter's name without brackets and what follows them: "force" for
// force[0], [force], ]force and force].
func bareName(name string) string {
	name = strings.TrimLeft(name, blanks+"[]")
	if i := strings.IndexAny(name, "[]"); i >= 0 {
		name = name[:i]
	}
	return strings.TrimRight(name, "\t\r\n") // names takes a space as _
}

// sameName compares two names and ignores the differences that [queryRule.names] lists.
func sameName(key, name string) bool {
	same := len(key) == len(name)
	for i := 0; same && i < len(key); i++ {
		same = foldName(key[i]) == foldName(name[i])
	}
	return same || !(isASCII(key) && isASCII(name)) && strings.EqualFold(key, name)
}

// foldName maps the bytes that names treats as equal to one byte.
func foldName(c byte) byte {
	switch {
	case c == ' ', c == '.', c == '[':
		return '_'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

// allows reports whether the query has the parameter and all of its values match. It also
// checks the values of other names that some servers read as the parameter. Preconditions:
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

// allowsParts reports whether the pattern matches every value in pair that some server
// reads as the parameter's.
func (q *queryRule) allowsParts(pair string) bool {
	for part := range parts(pair) {
		rawName, rawValue, _ := strings.Cut(part, "=")
		if eachDecoding(rawName, q.names) && !q.match(unescapeQuery(rawValue)) {
			return false
		}
	}
	return true
}

// denies reports whether the pattern matches a value that some server reads as the
// parameter's, in any stage of decoding.
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

// parts yields pair and, if it contains a ;, its parts: some servers separate parameters by
// semicolons.
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

// eachDecoding reports whether ok is true for s or for s decoded one or more times. It
// returns true if s can be decoded more than MaxQueryDecodings times.
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

// checkQuery returns an error for a query that servers read in different ways. If read is
// true, a rule reads the query, and two more things are errors: an encoded tab or line
// break, because servers that trim values take true%0A for true and the rule does not; and
// escapes that are not UTF-8, because a server with another encoding finds letters in them
// that the rule does not. Without a rule both pass: GraphQL documents and older sites need
// them.
func checkQuery(query string, read bool) error {
	if plainQuery(query) {
		return nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		for _, raw := range [...]string{rawKey, rawValue} {
			if err := checkComponent(raw, read); err != nil {
				return fmt.Errorf("query component %.80q %w", raw, err)
			}
		}
	}
	return nil
}

// plainQuery reports whether a query contains no byte that checkQuery has to look at.
func plainQuery(query string) bool {
	for i := range len(query) {
		if c := query[i]; c < ' ' || c >= 0x7f || c == '%' {
			return false
		}
	}
	return true
}

func checkComponent(raw string, read bool) error {
	for i := range len(raw) {
		_, ok := unescapeByte(raw[i:])
		switch {
		case raw[i] == '%' && !ok:
			return errors.New("has a % without two hexadecimal digits")
		case isControl(raw[i]):
			return errors.New("has a control byte")
		}
	}
	plain := unescapeQuery(raw)
	for i := range len(plain) {
		switch c := plain[i]; {
		case c == '\t' || c == '\n' || c == '\r':
			if read {
				return errors.New("has an encoded tab or line break, and a rule reads the query")
			}
		case isControl(c):
			return errors.New("has an encoded control byte")
		}
	}
	if read && !utf8.ValidString(plain) {
		return errors.New("is not valid UTF-8")
	}
	return nil
}

func isControl(c byte) bool { return c < ' ' || c == 0x7f }

// unescapeQuery decodes a key or value. A % that begins no escape stays as it is. It
// allocates only if there is something to decode.
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
