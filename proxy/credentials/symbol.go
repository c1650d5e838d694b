// SPDX-License-Identifier: Apache-2.0

package credentials

import "strings"

// escape is a way a byte can be written.
type escape uint8

const (
	percent escape = 1 << iota // %3A
	unicode                    // \u003a
	twice                      // %253A, \\u003a: a server decodes it only in part
)

// symbol reads one byte at b[i], however it is escaped. A length of 0 means that
// b ends within it.
func symbol(b []byte, i int) (c byte, n int, how escape) {
	c = b[i]
	if c != '%' && c != '\\' {
		return c, 1, 0
	}
	rest := b[i+1:]
	if c == '%' {
		how, n = percent, 3
		if len(rest) >= 2 && rest[0] == '2' && rest[1] == '5' {
			how, n, rest = percent|twice, 5, rest[2:]
		}
		return digits(rest, 2, c, n, how)
	}
	how, n = unicode, 6
	if len(rest) > 0 && rest[0] == '\\' {
		how, n, rest = unicode|twice, 7, rest[1:]
	}
	switch {
	case len(rest) == 0:
		return 0, 0, 0
	case rest[0] != 'u':
		return c, 1, 0
	}
	return digits(rest[1:], 4, c, n, how)
}

// digits reads what an escape of n bytes stands for; literal is what its first
// byte is if it is no escape of an ASCII character.
func digits(b []byte, want int, literal byte, n int, how escape) (byte, int, escape) {
	v := 0
	for k := range want {
		if k == len(b) {
			return 0, 0, 0
		}
		d := hexDigit(b[k])
		if d < 0 {
			return literal, 1, 0
		}
		if v = v<<4 | d; want == 4 && v > 0x7f {
			return literal, 1, 0
		}
	}
	return byte(v), n, how
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// percentDecode decodes once. False means that a percent sign begins no escape.
func percentDecode(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	ok := true
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 < len(s) && hexDigit(s[i+1]) >= 0 && hexDigit(s[i+2]) >= 0 {
				out = append(out, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
				i += 2
				continue
			}
			ok = false
		}
		out = append(out, s[i])
	}
	return string(out), ok
}

func isKey(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}

// isToken says whether a byte may be part of an alias token.
func isToken(c byte) bool { return isKey(c) || c == '-' || c == '.' || c == '~' }
