// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendLine adds r as one line. JSON escapes what is below a space and replaces
// what is no UTF-8; the rest that terminals act on (DEL, C1 controls, letters
// that change the direction) is escaped here, with all that is not ASCII.
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
