// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
)

// Host returns the first request's Host field without consuming anything: empty if the
// request is malformed or has none.
func Host(br *bufio.Reader, limit int) string {
	before, err := checkHead(br, limit)
	if err != nil {
		return ""
	}
	b, _ := br.Peek(br.Buffered())
	for line := range bytes.SplitSeq(b[before:], []byte("\r\n")) {
		if len(line) == 0 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("host")) {
			return string(bytes.Trim(value, " \t"))
		}
	}
	return ""
}
