// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
)

// ErrAnswer is wrapped by the errors of CleanAnswer about a malformed head. Its other
// errors come from the connection.
var ErrAnswer = errors.New("malformed head of an answer")

// CleanAnswer looks at the head of one HTTP/1 answer. Servers send heads that clients
// accept and net/http does not. If net/http reads the head as it is, and the head fits
// br's buffer, CleanAnswer returns nil and consumes nothing. Otherwise it consumes the
// head and returns it in a spelling for net/http.ReadResponse:
//   - a control byte in a field becomes a space (RFC 9110, section 5.5), except NUL, which
//     is an error,
//   - a Content-Length that is a list of equal numbers becomes one number,
//   - Transfer-Encoding: identity, which changes nothing, is left out.
//
// The caller bounds the head, by the errors of br's reader.
func CleanAnswer(br *bufio.Reader) ([]byte, error) {
	plain, err := plainAnswer(br)
	if err != nil || plain {
		return nil, err
	}
	var out []byte
	dropped := false
	for {
		start := len(out)
		for {
			part, err := br.ReadSlice('\n')
			out = append(out, part...)
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return nil, unexpected(err)
			}
		}
		line := bytes.TrimSuffix(bytes.TrimSuffix(out[start:], []byte("\n")), []byte("\r"))
		if len(line) == 0 {
			return out, nil
		}
		if dropped && (line[0] == ' ' || line[0] == '\t') {
			return nil, fmt.Errorf("%w: a folded Transfer-Encoding", ErrAnswer)
		}
		if dropped = identity(line); dropped {
			out = out[:start]
			continue
		}
		if err := cleanLine(line); err != nil {
			return nil, err
		}
	}
}

// plainAnswer reports whether the head is in the buffer as a whole and has nothing to
// clean.
func plainAnswer(br *bufio.Reader) (bool, error) {
	var b []byte
	for start, from := 0, 0; ; {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			if from = len(b); from == br.Size() {
				return false, nil
			}
			var err error
			if b, err = atLeast(br, from+1); err != nil {
				return false, err
			}
			continue
		}
		end := from + i
		line := bytes.TrimSuffix(b[start:end], []byte("\r"))
		if len(line) == 0 {
			return true, nil
		}
		if !all(line, value) || identity(line) || lengthList(line) >= 0 {
			return false, nil
		}
		start, from = end+1, end+1
	}
}

// cleanLine changes a line to the spelling that net/http reads.
func cleanLine(line []byte) error {
	for i, c := range line {
		switch {
		case c == 0:
			return fmt.Errorf("%w: a NUL byte", ErrAnswer)
		case classes[c]&value == 0:
			line[i] = ' '
		}
	}
	comma := lengthList(line)
	if comma < 0 {
		return nil
	}
	list := line[len("content-length:"):]
	first, ok := number(bytes.Trim(line[len("content-length:"):comma], " \t"))
	for one := range bytes.SplitSeq(list, []byte(",")) {
		n, isNumber := number(bytes.Trim(one, " \t"))
		if !ok || !isNumber || n != first {
			return fmt.Errorf("%w: Content-Length is a list of different lengths", ErrAnswer)
		}
	}
	for i := comma; i < len(line); i++ {
		line[i] = ' '
	}
	return nil
}

// lengthList returns the place of the first comma in a Content-Length, -1 if line is
// another field or has none.
func lengthList(line []byte) int {
	const name = "content-length:"
	if len(line) < len(name) || line[0]|0x20 != 'c' || !foldEqual(line[:len(name)], name) {
		return -1
	}
	return bytes.IndexByte(line, ',')
}

// identity reports whether a line is Transfer-Encoding: identity.
func identity(line []byte) bool {
	const name = "transfer-encoding:"
	return len(line) > len(name) && line[0]|0x20 == 't' && foldEqual(line[:len(name)], name) && foldEqual(bytes.Trim(line[len(name):], " \t"), "identity")
}
