// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxURLPath bounds the path of a request, in bytes.
const MaxURLPath = 4096

// CanonicalPath gives the one spelling of a request's path (without its query)
// that rules are matched against and that is sent on: unreserved bytes decoded,
// other escapes in upper case, ;parameters dropped, // collapsed, dots resolved.
// What servers read in different ways is refused.
func CanonicalPath(raw string, allowEncodedSlash bool) (string, error) {
	p, err := canonicalPath(raw, allowEncodedSlash)
	if err != nil {
		return "", fmt.Errorf("path %.80q: %w", raw, err)
	}
	return p, nil
}

func canonicalPath(raw string, allowEncodedSlash bool) (string, error) {
	if len(raw) > MaxURLPath {
		return "", fmt.Errorf("longer than %d bytes", MaxURLPath)
	}
	if !strings.HasPrefix(raw, "/") {
		return "", errors.New("does not begin with /")
	}
	var out []string
	parts := strings.Split(raw[1:], "/")
	for i, part := range parts {
		part, _, _ = strings.Cut(part, ";")
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
	// Dropped parameters may hold what a segment may not.
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '?' || c == '\\' {
			return "", fmt.Errorf("byte %#02x must be percent-encoded", c)
		}
	}
	return "/" + strings.Join(out, "/"), nil
}

func canonicalSegment(s string, allowEncodedSlash bool) (string, error) {
	var out, plain []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			out, plain = append(out, c), append(plain, c)
			continue
		}
		if i+2 >= len(s) || !hex(s[i+1]) || !hex(s[i+2]) {
			return "", errors.New("has a % without two hexadecimal digits")
		}
		c = unhex(s[i+1])<<4 | unhex(s[i+2])
		i += 2
		plain = append(plain, c)
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("has an encoded control byte")
		case c == '\\':
			return "", errors.New("has an encoded backslash")
		case c == '/' && !allowEncodedSlash:
			return "", errors.New("has an encoded slash (%2F) and the endpoint does not set allow_encoded_slash")
		case alnum(c) || strings.IndexByte("-._~", c) >= 0:
			out = append(out, c)
		default:
			const digits = "0123456789ABCDEF"
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	if !utf8.Valid(plain) {
		return "", errors.New("has escapes that are not UTF-8")
	}
	// A server that decodes %2F must not find a way up behind it.
	if pieces := strings.Split(string(plain), "/"); len(pieces) > 1 {
		for _, p := range pieces {
			p, _, _ = strings.Cut(p, ";")
			if p == "." || p == ".." {
				return "", errors.New("has a dot segment beside an encoded slash")
			}
		}
	}
	return string(out), nil
}

func hex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
