// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
)

// Host returns the first request's Host field, empty if the request is malformed or has
// none. It consumes nothing but an empty line before the request.
func Host(br *bufio.Reader, limit int) string {
	if err := CheckHead(br, limit); err != nil {
		return ""
	}
	b, _ := br.Peek(br.Buffered())
	for line := range bytes.SplitSeq(b, []byte("\r\n")) {
		if len(line) == 0 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("host")) {
			return string(bytes.Trim(value, " \t"))
		}
	}
	return ""
}
