// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// This part of the reference reads methods, queries and path patterns.

func refMethod(rule, method string) bool {
	r, m := strings.ToUpper(rule), strings.ToUpper(method)
	return rule == "*" || r == m || r == "GET" && m == "HEAD"
}

func refQuery(raw string, read bool) (map[string][]string, error) {
	out := map[string][]string{}
	for _, pair := range strings.Split(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err != nil || err2 != nil || read && !utf8.ValidString(key+value) || refControl.MatchString(key+value) || refRawControl.MatchString(pair) || read && refBreak.MatchString(key+value) {
			return nil, fmt.Errorf("query")
		}
		out[key] = append(out[key], url.QueryEscape(value))
	}
	return out, nil
}

// refForeign reports whether a path has escapes in an encoding other than UTF-8.
func refForeign(path string) bool {
	plain, err := url.PathUnescape(path)
	return err != nil || !utf8.ValidString(plain)
}

// How the reference reads queries and patterns.
var (
	refControl       = regexp.MustCompile(`[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]`)
	refRawControl    = regexp.MustCompile(`[\x00-\x1f\x7f]`)
	refBreak         = regexp.MustCompile(`[\t\r\n]`)
	refBare          = regexp.MustCompile(`^[ \t\r\n\[\]]*([^\[\]]*)`)
	refUnclosed      = regexp.MustCompile(`^[^\[]*\[[^\]]*$`)
	refSlashes       = regexp.MustCompile(`//+`)
	refEscape        = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\+`)
	refQueryToken    = regexp.MustCompile(`(?s)\\.|\[[^\]]*\]|%[0-9A-Fa-f]{2}|.`)
	refPathToken     = regexp.MustCompile(`(?s)\\.|%[0-9A-Fa-f]{2}|\[[^\]]*\]|[*?{},/%]|.`)
	refSelectorToken = regexp.MustCompile(`(?s)%[0-9A-Fa-f]{2}|\[!?.[^\]]*\]|[*?/%]|.`)
	refLiteral       = strings.NewReplacer("%21", "!", "%24", "$", "%26", "&", "%27", "'", "%28", "(", "%29", ")", "%2A", `\*`, "%2B", "+", "%2C", ",", "%3A", ":", "%3B", ";", "%3D", "=", "%40", "@")
)

// refVariants returns the undecoded values that some server reads as a parameter's.
func refVariants(key, raw string) (values []string) {
	fold := func(name string) string {
		return strings.NewReplacer(".", "_", " ", "_", "[", "_").Replace(strings.ToLower(name))
	}
	plain := func(name string) string {
		return fold(strings.TrimRight(refBare.FindStringSubmatch(name)[1], "\t\r\n"))
	}
	same := func(name string) bool {
		return plain(name) == plain(key) || refUnclosed.MatchString(name) && fold(strings.Trim(name, " \t\r\n")) == plain(key)
	}
	for _, pair := range strings.Split(raw, "&") {
		all := []string{pair}
		if strings.Contains(pair, ";") {
			all = append(all, strings.Split(pair, ";")...)
		}
		for _, part := range all {
			if part == "" {
				continue
			}
			name, value, _ := strings.Cut(part, "=")
			stages, deep := refStages(name)
			if deep || slices.ContainsFunc(stages, same) {
				values = append(values, value)
			}
		}
	}
	return values
}

// refStages returns s decoded zero, one and more times. deep is true if it could be decoded
// further.
func refStages(s string) (stages []string, deep bool) {
	for {
		stages = append(stages, s)
		next := refUnescape(s)
		if next == s {
			return stages, false
		}
		if s = next; len(stages) > MaxQueryDecodings {
			return stages, true
		}
	}
}

func refUnescape(s string) string {
	return refEscape.ReplaceAllStringFunc(s, func(m string) string {
		plain, _ := url.QueryUnescape(m)
		return plain
	})
}

func refAny(globs []string, value string, deny bool) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		decoded := refQueryToken.ReplaceAllStringFunc(g, func(m string) string {
			if len(m) == 3 && m[0] == '%' {
				if m, _ = url.PathUnescape(m); m[0] < 0x80 {
					return `\` + m
				}
			}
			return m
		})
		return refGlob(decoded, '.', value) || deny && refGlob(g, '.', value)
	})
}

// refCanon returns a pattern with its literal text in the canonical spelling of paths.
func refCanon(p string, selector bool) string { return refSpell(p, selector, "%2F") }

// refSpell is refCanon with slash in place of an encoded slash.
func refSpell(p string, selector bool, slash string) string {
	token := refPathToken
	if selector {
		token = refSelectorToken
	}
	return token.ReplaceAllStringFunc(p, func(m string) string {
		switch {
		case m[0] == '[' && len(m) > 1, len(m) == 1 && strings.Contains("*?{},/%", m) && !(selector && strings.Contains("{}", m)):
			return m
		case m == `\/`:
			return "/"
		case m[0] == '\\' && len(m) > 1 && !selector:
			m = m[1:]
		case m[0] == '%':
			if m, _ = url.PathUnescape(m); m == "/" {
				return slash
			}
		}
		out := refLiteral.Replace(url.PathEscape(m))
		if out == "," && !selector {
			return `\,`
		}
		return out
	})
}

// refPath matches a path pattern.
func refPath(pattern, path string) bool { return refGlob(refCanon(pattern, false), '/', path) }

// refDenies reports whether a deny rule, whose pattern has no braces, matches a path or the
// path with each %2F decoded.
func refDenies(pattern, path string) bool {
	return refCovers(pattern, path) || refCovers(pattern, refDecoded(path))
}

// refDecoded returns a path as servers read it that decode %2F.
func refDecoded(path string) string {
	return refSlashes.ReplaceAllString(strings.ReplaceAll(path, "%2F", "/"), "/")
}

// refCovers reports whether a deny rule, whose pattern has no braces, matches a path in
// this spelling.
func refCovers(pattern, path string) bool {
	canon, decoded := refCanon(pattern, false), refSpell(pattern, false, "/")
	return refCoversSpelled(canon, path) || decoded != canon && refCoversSpelled(refSlashes.ReplaceAllString(decoded, "/"), path)
}

func refCoversSpelled(p, path string) bool {
	bare := strings.TrimSuffix(path, "/")
	if refEither(p, path) || bare != "" && refEither(p, bare) {
		return true
	}
	var bases []string
	if strings.HasSuffix(p, "/**/") {
		bases = append(bases, strings.TrimSuffix(p, "/"))
	}
	for strings.HasSuffix(p, "/**") || strings.HasSuffix(p, "/**/") {
		p = strings.TrimSuffix(strings.TrimSuffix(p, "/"), "**")
	}
	if base, ok := strings.CutSuffix(p, "/"); ok {
		bases = append(bases, base)
	}
	return bare != "" && slices.ContainsFunc(bases, func(b string) bool { return refEither(b, bare) })
}

func refEither(canon, path string) bool {
	return refGlob(canon, '/', path) || refGlob(wideMark+canon, '/', path)
}

// wideMark before a pattern makes refGlobRegexp treat an escape as one character.
const wideMark = "\x00wide\x00"
