// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
)

// ErrHead is what every error about the bytes of a head wraps (400), and
// ErrHeadTooLarge what one about its size does (431). Any other error of
// CheckHead is of the connection.
var (
	ErrHead         = errors.New("ambiguous or malformed request head")
	ErrHeadTooLarge = errors.New("request head is too large")
)

// CheckHead looks at one HTTP/1 request head and refuses what parsers read in
// different ways. It leaves all of it in br, for net/http.ReadRequest. A head is
// at most limit bytes and fits br's buffer. io.EOF means that no request came.
//
// The rules are those of RFC 9112: CRLF and nothing else ends a line, one Host, one way
// to say how long the body is. Of the tolerance that RFC 9110 and 9112 permit, CheckHead
// has the part that leaves one reading. It drops an empty line before the request,
// compares the name chunked without case, and accepts a Content-Length that is repeated
// with the same number. In br a list of such numbers becomes one number and spaces.
func CheckHead(br *bufio.Reader, limit int) error {
	before, err := checkHead(br, limit)
	if err == nil {
		_, _ = br.Discard(before)
	}
	return err
}

// checkHead is CheckHead without consuming anything. It returns the length of the empty
// lines before the head.
func checkHead(br *bufio.Reader, limit int) (before int, _ error) {
	var h head
	var b []byte
	for start, from := 0, 0; ; {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			if len(b) >= min(limit, br.Size()) {
				return before, ErrHeadTooLarge
			}
			from = len(b)
			var err error
			if b, err = atLeast(br, len(b)+1); err != nil {
				return before, err
			}
			continue
		}
		end := from + i
		if end >= limit {
			return before, ErrHeadTooLarge
		}
		if end == start || b[end-1] != '\r' {
			return before, bad("a line does not end in CRLF")
		}
		line := b[start : end-1]
		start, from = end+1, end+1
		switch {
		case !h.started && len(line) == 0 && before < maxEmptyLines*len("\r\n"):
			before = start
		case !h.started:
			h.started = true
			if err := h.requestLine(line, before); err != nil {
				return before, err
			}
		case len(line) == 0:
			return before, h.finish(b)
		default:
			if err := h.field(b, line, end-1-len(line)); err != nil {
				return before, err
			}
		}
	}
}

// head is what has been seen of a head. Of what must be compared in the end only
// the place is kept, because the buffer moves.
type head struct {
	started, connect, http10 bool
	fields                   int
	host, authority          span
	scheme                   string
	hasHost                  bool
	length, chunked          bool
	// bytes is the number in Content-Length.
	bytes int64
}

// span is a place in the head.
type span struct{ start, end int }

func (s span) of(b []byte) []byte { return b[s.start:s.end] }

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrHead, fmt.Sprintf(format, a...))
}

// requestLine reads the first line, which begins at offset at of the head.
func (h *head) requestLine(line []byte, at int) error {
	i, j := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if i <= 0 || i == j {
		return bad("the request line is not METHOD TARGET HTTP/1.x")
	}
	name, goal, proto := line[:i], line[i+1:j], line[j+1:]
	switch {
	case len(name) > MaxMethod || !all(name, method) || string(name) == "PRI":
		return bad("the method is not in capital letters, digits and '-', or is PRI")
	case len(goal) == 0 || !all(goal, target):
		return bad("the target is empty or has a blank, a control byte or '#'")
	}
	switch string(proto) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return bad("the version is neither HTTP/1.1 nor HTTP/1.0")
	}
	return h.target(name, goal, at+i+1)
}

// target refuses a target whose form does not go with the method (RFC 9112,
// section 3.2).
func (h *head) target(name, goal []byte, at int) error {
	switch {
	case string(name) == "CONNECT":
		h.connect = true
		h.authority = span{at, at + len(goal)}
	case goal[0] == '/':
		return nil
	case string(goal) == "*" && string(name) == "OPTIONS":
		return nil
	default:
		n := 0
		if n = len("http://"); len(goal) > n && foldEqual(goal[:n], "http://") {
			h.scheme = "http"
		} else if n = len("https://"); len(goal) > n && foldEqual(goal[:n], "https://") {
			h.scheme = "https"
		} else {
			return bad("the target is neither a path nor an http or https URL")
		}
		end := bytes.IndexAny(goal[n:], "/?")
		if end < 0 {
			end = len(goal) - n
		}
		h.authority = span{at + n, at + n + end}
	}
	if a := goal[h.authority.start-at : h.authority.end-at]; len(a) == 0 || !all(a, host) {
		return bad("the target's host is empty, has userinfo or a byte that no host has")
	}
	return nil
}

func (h *head) field(b, line []byte, at int) error {
	if h.fields++; h.fields > MaxFields {
		return fmt.Errorf("%w: more than %d fields", ErrHeadTooLarge, MaxFields)
	}
	colon := 0
	for colon < len(line) && classes[line[colon]]&token != 0 {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return bad("a line is no field: folded, without a colon, or with a space or another odd byte in its name")
	}
	start, end := colon+1, len(line)
	for start < end && (line[start] == ' ' || line[start] == '\t') {
		start++
	}
	for end > start && (line[end-1] == ' ' || line[end-1] == '\t') {
		end--
	}
	v := line[start:end]
	if !all(v, value) {
		return bad("a field value has a control byte")
	}
	switch colon {
	case len("Host"):
		if foldEqual(line[:colon], "host") {
			return h.hostField(v, span{at + start, at + end})
		}
	case len("Connection"):
		if foldEqual(line[:colon], "connection") {
			return connection(v)
		}
	case len("Content-Length"):
		if foldEqual(line[:colon], "content-length") {
			return h.contentLength(v)
		}
	case len("Transfer-Encoding"):
		if foldEqual(line[:colon], "transfer-encoding") {
			return h.transferEncoding(v)
		}
	}
	return nil
}

func (h *head) hostField(v []byte, at span) error {
	if h.hasHost {
		return bad("two Host fields")
	}
	if len(v) == 0 || !all(v, host) {
		return bad("Host is empty or has a byte that no host has")
	}
	h.hasHost, h.host = true, at
	return nil
}

// contentLength reads a number, or a list of equal numbers. It replaces all of a list but
// the first number by spaces.
func (h *head) contentLength(v []byte) error {
	rest := v
	for first := true; first || len(rest) > 0; first = false {
		one := rest
		if i := bytes.IndexByte(rest, ','); i >= 0 {
			one, rest = rest[:i], rest[i+1:]
			if len(rest) == 0 {
				return bad("Content-Length ends in a comma")
			}
		} else {
			rest = nil
		}
		n, ok := number(bytes.Trim(one, " \t"))
		switch {
		case !ok:
			return bad("Content-Length is not a plain number")
		case h.length && n != h.bytes:
			return bad("two different Content-Lengths")
		}
		h.length, h.bytes = true, n
	}
	if i := bytes.IndexByte(v, ','); i >= 0 {
		for ; i < len(v); i++ {
			v[i] = ' '
		}
	}
	return nil
}

// number reads a decimal number. A leading zero is octal to some, and refused.
func number(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > maxLengthDigits || !all(v, digit) || len(v) > 1 && v[0] == '0' {
		return 0, false
	}
	for _, c := range v {
		n = 10*n + int64(c-'0')
	}
	return n, true
}

func (h *head) transferEncoding(v []byte) error {
	if h.chunked {
		return bad("two Transfer-Encoding fields")
	}
	if !foldEqual(v, "chunked") {
		return bad("Transfer-Encoding is not chunked")
	}
	h.chunked = true
	return nil
}

// endToEnd are fields that a hop must not be told to drop: without them the next
// server reads another request.
var endToEnd = [...]string{
	"host", "content-length", "transfer-encoding", "content-type", "content-encoding", "authorization", "cookie",
}

func connection(v []byte) error {
	for len(v) > 0 {
		option := v
		if i := bytes.IndexByte(v, ','); i >= 0 {
			option, v = v[:i], v[i+1:]
		} else {
			v = nil
		}
		option = bytes.Trim(option, " \t")
		if !all(option, token) {
			return bad("Connection is not a list of names")
		}
		for _, name := range endToEnd {
			if foldEqual(option, name) {
				return bad("Connection names %s", name)
			}
		}
	}
	return nil
}

// finish judges what only the whole head shows.
func (h *head) finish(b []byte) error {
	switch {
	case !h.hasHost && !h.http10:
		return bad("no Host")
	case h.length && h.chunked:
		return bad("both Content-Length and Transfer-Encoding")
	case h.chunked && h.http10:
		return bad("Transfer-Encoding in HTTP/1.0")
	case h.connect && (h.chunked || h.bytes > 0):
		return bad("CONNECT with a body")
	}
	// A server goes by one of the two; net/http forgets Host.
	if h.scheme != "" && h.hasHost && !sameAuthority(h.authority.of(b), h.host.of(b), h.scheme) {
		return bad("Host differs from the host of the target")
	}
	return nil
}

// sameAuthority compares without case and without the scheme's own port.
func sameAuthority(a, b []byte, scheme string) bool {
	port := []byte(":80")
	if scheme == "https" {
		port = []byte(":443")
	}
	return bytes.EqualFold(bytes.TrimSuffix(a, port), bytes.TrimSuffix(b, port))
}

// foldEqual compares ASCII without case; lower is in lower case.
func foldEqual(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
