// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendLine appends r as one line of ASCII. JSON escapes control characters and replaces
// bytes that are not UTF-8. AppendLine also escapes DEL and all characters that are not
// ASCII, because terminals act on some of them (C1 controls, characters that change the
// text direction).
func AppendLine(dst []byte, r *Record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return dst, fmt.Errorf("encode a decision: %w", err)
	}
	for i := 0; i < len(text); {
		if text[i] < 0x7f {
			dst = append(dst, text[i])
			i++
			continue
		}
		c, n := utf8.DecodeRune(text[i:])
		i += n
		if hi, lo := utf16.EncodeRune(c); hi != utf8.RuneError {
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, hi, lo)
		} else {
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(dst, '\n'), nil
}
