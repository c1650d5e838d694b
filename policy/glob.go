// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// MaxGlob bounds one pattern, in bytes.
const MaxGlob = 1024

// Glob is a compiled pattern of OpenShell's rule matcher: * and ? do not cross
// the separator, ** does where it is a whole segment and is * elsewhere; [a-z],
// [!a], {a,b} and \ escapes work. The zero value matches nothing.
type Glob struct{ re *regexp.Regexp }

// CompileGlob compiles pattern with a separator: '.' for hosts and query values,
// '/' for paths and binaries.
func CompileGlob(pattern string, sep byte) (Glob, error) {
	if len(pattern) > MaxGlob {
		return Glob{}, fmt.Errorf("pattern is longer than %d bytes", MaxGlob)
	}
	body, err := globRegexp(pattern, sep)
	if err != nil {
		return Glob{}, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	re, err := regexp.Compile(`\A(?s:` + body + `)\z`)
	if err != nil {
		return Glob{}, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return Glob{re}, nil
}

// Match says whether all of s matches.
func (g Glob) Match(s string) bool { return g.re != nil && g.re.MatchString(s) }

func globRegexp(p string, sep byte) (string, error) {
	var out strings.Builder
	one := "[^" + regexp.QuoteMeta(string(sep)) + "]"
	depth := 0
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '*':
			j := i
			for j < len(p) && p[j] == '*' {
				j++
			}
			whole := j-i == 2 && (i == 0 || p[i-1] == sep) && (j == len(p) || p[j] == sep)
			switch {
			case whole && i > 0 && j < len(p): // a/**/b is also a/b
				out.WriteString("(?:.*" + regexp.QuoteMeta(string(sep)) + ")?")
				j++
			case whole:
				out.WriteString(".*")
			default:
				out.WriteString(one + "*")
			}
			i = j - 1
		case c == '?':
			out.WriteString(one)
		case c == '[':
			end := strings.IndexByte(p[i+1:], ']')
			if end < 1 {
				return "", errors.New("[ without ]")
			}
			set := p[i+1 : i+1+end]
			i += end + 1
			not := ""
			if set[0] == '!' || set[0] == '^' {
				not, set = "^"+regexp.QuoteMeta(string(sep)), set[1:]
			} else if strings.IndexByte(set, sep) >= 0 {
				return "", errors.New("the separator in [ ] can never match")
			}
			if set == "" {
				return "", errors.New("[ ] is empty")
			}
			out.WriteString("[" + not + strings.NewReplacer(`\`, `\\`, `[`, `\[`, `^`, `\^`).Replace(set) + "]")
		case c == '{':
			depth++
			out.WriteString("(?:")
		case c == '}':
			if depth--; depth < 0 {
				return "", errors.New("} without {")
			}
			out.WriteString(")")
		case c == ',' && depth > 0:
			out.WriteString("|")
		case c == '\\':
			if i++; i == len(p) {
				return "", errors.New("ends in a \\")
			}
			out.WriteString(regexp.QuoteMeta(p[i : i+1]))
		case c < 0x80:
			out.WriteString(regexp.QuoteMeta(p[i : i+1]))
		default:
			return "", errors.New("has a byte that is not ASCII: write it percent-encoded or in punycode")
		}
	}
	if depth != 0 {
		return "", errors.New("{ without }")
	}
	return out.String(), nil
}
