// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxURLPath is the longest path of a request in bytes.
const MaxURLPath = 4096

// CanonicalPath returns the spelling of a request's path (without the query) that rules are
// matched against and that the proxy forwards. It decodes every escape of a character that
// RFC 3986 allows unescaped in a path segment, escapes all other characters in upper case,
// removes ;parameters, collapses // and resolves dot segments. It escapes unescaped UTF-8.
// Escapes that are not UTF-8 stay: [Engine.Decide] refuses them where a rule reads the
// path.
//
// It fails if servers read the path in different ways. A %2F is an error unless
// allowEncodedSlash is true. It does not allocate if raw has no escape and is canonical.
func CanonicalPath(raw string, allowEncodedSlash bool) (string, error) {
	p, err := canonicalPath(raw, allowEncodedSlash)
	if err != nil {
		return "", fmt.Errorf("path %.80q: %w", raw, err)
	}
	return p, nil
}

var errNotUTF8 = errors.New("has bytes that are neither UTF-8 nor percent-encoded")

// CanonicalQuery returns the spelling of a request's query that is judged and forwarded. It
// escapes unescaped UTF-8 and leaves everything else as it is. It fails for other bytes
// that a query must not contain. It does not allocate if there is nothing to escape.
func CanonicalQuery(raw string) (string, error) {
	ascii := true
	for i := range len(raw) {
		c := raw[i]
		if c <= ' ' || c == 0x7f || c == '#' {
			return "", fmt.Errorf("query: byte %#02x must be percent-encoded", c)
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return raw, nil
	}
	if !utf8.ValidString(raw) {
		return "", fmt.Errorf("query %w", errNotUTF8)
	}
	var out []byte
	for i := range len(raw) {
		if c := raw[i]; c < utf8.RuneSelf {
			out = append(out, c)
		} else {
			out = appendEscape(out, c)
		}
	}
	return string(out), nil
}

// escapesUTF8 reports whether a path is UTF-8 once its escapes are decoded.
func escapesUTF8(path string) bool {
	if strings.IndexByte(path, '%') < 0 {
		return utf8.ValidString(path)
	}
	plain := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c, ok := unescapeByte(path[i:])
		if ok {
			i += 2
		} else {
			c = path[i]
		}
		plain = append(plain, c)
	}
	return utf8.Valid(plain)
}

func canonicalPath(raw string, allowEncodedSlash bool) (string, error) {
	if len(raw) > MaxURLPath {
		return "", fmt.Errorf("longer than %d bytes", MaxURLPath)
	}
	if !strings.HasPrefix(raw, "/") {
		return "", errors.New("does not begin with /")
	}
	if plainPath(raw) {
		return raw, nil
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c == 0x7f || c == '#' || c == '?' || c == '\\' {
			return "", fmt.Errorf("byte %#02x must be percent-encoded", c)
		}
	}
	if !utf8.ValidString(raw) {
		return "", errNotUTF8
	}
	var out []string
	parts := strings.Split(raw[1:], "/")
	for i, part := range parts {
		seg, err := canonicalSegment(part, allowEncodedSlash)
		if err != nil {
			return "", err
		}
		last := i == len(parts)-1
		switch seg {
		case "..":
			if len(out) == 0 {
				return "", errors.New("leads above the root")
			}
			out = out[:len(out)-1]
		case ".", "":
		default:
			out = append(out, seg)
			continue
		}
		if last && len(out) > 0 {
			out = append(out, "") // keeps the trailing slash
		}
	}
	return "/" + strings.Join(out, "/"), nil
}

// plainPath reports whether a path that begins with / has no escapes and is canonical.
func plainPath(raw string) bool {
	start := 1
	for i := 1; i <= len(raw); i++ {
		if i < len(raw) && raw[i] != '/' {
			if c := raw[i]; c == ';' || !pchar.has(c) {
				return false
			}
			continue
		}
		switch segment := raw[start:i]; {
		case segment == "." || segment == "..", segment == "" && i < len(raw):
			return false
		}
		start = i + 1
	}
	return true
}

// pchar holds the characters that may be unescaped in a path segment (RFC 3986, appendix
// A).
var pchar = func() (s byteSet) {
	s.add('a', 'z')
	s.add('A', 'Z')
	s.add('0', '9')
	for _, c := range []byte("-._~!$&'()*+,;=:@") {
		s.add(c, c)
	}
	return s
}()

// canonicalSegment returns the canonical spelling of a segment up to its first ;, which may
// be escaped.
func canonicalSegment(s string, allowEncodedSlash bool) (string, error) {
	var out, plain []byte
	for i := 0; i < len(s); i++ {
		c, escaped := s[i], s[i] == '%'
		if escaped {
			var ok bool
			if c, ok = unescapeByte(s[i:]); !ok {
				return "", errors.New("has a % without two hexadecimal digits")
			}
			i += 2
		}
		if c == ';' {
			break
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("has an encoded control byte")
		case c == '\\':
			return "", errors.New("has an encoded backslash")
		case c == '/' && !allowEncodedSlash:
			return "", errors.New("has an encoded slash (%2F) and the endpoint does not set allow_encoded_slash")
		}
		plain = append(plain, c)
		out = appendSegmentByte(out, c)
	}
	// A server that decodes %2F must not find a dot segment next to it.
	if pieces := strings.Split(string(plain), "/"); len(pieces) > 1 {
		for _, p := range pieces {
			if p == "." || p == ".." {
				return "", errors.New("has a dot segment beside an encoded slash")
			}
		}
	}
	return string(out), nil
}

// appendSegmentByte appends a decoded byte of a segment in its canonical spelling.
func appendSegmentByte(out []byte, c byte) []byte {
	if pchar.has(c) {
		return append(out, c)
	}
	return appendEscape(out, c)
}

func appendEscape(out []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(out, '%', digits[c>>4], digits[c&15])
}

// unescapeByte decodes the escape at the start of s; ok is false if there is none.
func unescapeByte(s string) (c byte, ok bool) {
	if len(s) < 3 || s[0] != '%' || !hex(s[1]) || !hex(s[2]) {
		return 0, false
	}
	return unhex(s[1])<<4 | unhex(s[2]), true
}

func hex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
