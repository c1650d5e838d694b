// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// queryRule is a compiled QueryRule.
type queryRule struct {
	key   string
	globs []Glob
}

func (q *queryRule) match(value string) bool {
	for i := range q.globs {
		if q.globs[i].Match(value) {
			return true
		}
	}
	return false
}

// matchQuery says whether every rule's key is in the query and, with all, every
// value of it matches; without, at least one does. The query is well-formed.
func matchQuery(rules []queryRule, query string, all bool) bool {
	for i := range rules {
		if !rules[i].matchAmong(query, all) {
			return false
		}
	}
	return true
}

func (q *queryRule) matchAmong(query string, all bool) bool {
	found := false
	for len(query) > 0 {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		if pair == "" || unescapeQuery(rawKey) != q.key {
			continue
		}
		switch ok := q.match(unescapeQuery(rawValue)); {
		case !ok && all:
			return false
		case ok && !all:
			return true
		}
		found = true
	}
	return found && all
}

// checkQuery says what is wrong with a query that OpenShell would not read.
func checkQuery(query string) error {
	if strings.IndexByte(query, '%') < 0 && isASCII(query) {
		return nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		for _, raw := range [...]string{rawKey, rawValue} {
			for i := 0; i < len(raw); i++ {
				if raw[i] == '%' && (i+2 >= len(raw) || !hex(raw[i+1]) || !hex(raw[i+2])) {
					return fmt.Errorf("query component %.80q has a %% without two hexadecimal digits", raw)
				}
			}
			if !utf8.ValidString(unescapeQuery(raw)) {
				return fmt.Errorf("query component %.80q is not valid UTF-8", raw)
			}
		}
	}
	return nil
}

// unescapeQuery decodes a key or value that checkQuery has passed. It allocates
// only if there is something to decode.
func unescapeQuery(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(s):
			out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return string(out)
}
