// SPDX-License-Identifier: Apache-2.0

package credentials

import "unicode/utf8"

// namedReferences are the names that encoders of HTML and XML use.
var namedReferences = map[string]rune{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\''}

// maxReference is the length of the longest HTML character reference that is read, in
// bytes. MinPart holds a value of MaxValue bytes that is written in references.
const maxReference = 8

// reference returns the length of an HTML character reference at the start of b, 0 if
// there is none, and its character. More means that b ends before that is clear.
func reference(b []byte) (size int, c rune, more bool) {
	if len(b) < 2 {
		return 0, 0, true
	}
	if b[1] != '#' {
		for i := 1; i < min(len(b), maxReference); i++ {
			if b[i] == ';' {
				if c = namedReferences[string(b[1:i])]; c == 0 {
					return 0, 0, false
				}
				return i + 1, c, false
			}
			if b[i] < 'a' || b[i] > 'z' {
				return 0, 0, false
			}
		}
		return 0, 0, len(b) < maxReference
	}
	base, from := rune(10), 2
	if len(b) > 2 && b[2]|0x20 == 'x' {
		base, from = 16, 3
	}
	for i := from; i < min(len(b), maxReference); i++ {
		if b[i] == ';' && i > from && 0 < c && c <= utf8.MaxRune {
			return i + 1, c, false
		}
		digit := rune(hexDigit(b[i]))
		if digit < 0 || digit >= base {
			return 0, 0, false
		}
		c = c*base + digit
	}
	return 0, 0, len(b) < maxReference
}
