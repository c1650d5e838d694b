// SPDX-License-Identifier: Apache-2.0

// Package inspect tells what a client says from its bytes alone: the protocol it
// speaks, the name in its ClientHello, and whether a request head has only one
// reading. It knows nothing of sockets or policy, never consumes what it looks
// at, and never waits for a byte that it does not need; how long to wait is the
// caller's read deadline.
package inspect

import (
	"bufio"
	"errors"
	"io"
)

// Kind is what a client speaks.
type Kind uint8

// The kinds. The zero value is known of nothing.
const (
	Unknown Kind = iota
	// TLS is a well-formed ClientHello.
	TLS
	// HTTP1 begins with a request line, or with a line that some server may read as one;
	// CheckHead decides.
	HTTP1
	// HTTP2 is the connection preface, without TLS.
	HTTP2
	// Other is anything else.
	Other
)

func (k Kind) String() string {
	return [...]string{"unknown", "tls", "http1", "http2", "other"}[k]
}

// First is what a client sends first. Hello is set for TLS only.
type First struct {
	Kind  Kind
	Hello *Hello
}

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// proxySignature begins version 2 of the PROXY protocol, before a NUL. A request may
	// follow its header.
	proxySignature = "\r\n\r\n"
)

// Peek looks at what the client sends first and leaves all of it in br, whose
// buffer must hold MaxHello bytes. A request after empty lines or blanks is a request,
// because servers drop these. TLS that is malformed or has two readings is
// an error, and so is an end in the middle; io.EOF means that nothing came.
func Peek(br *bufio.Reader) (First, error) {
	if br.Size() < MaxHello {
		return First{}, errors.New("inspect: the reader's buffer is smaller than MaxHello")
	}
	b, err := atLeast(br, 1)
	if err != nil {
		return First{}, err
	}
	if b[0] == recordHandshake {
		h, err := peekHello(br)
		if err != nil {
			return First{}, err
		}
		return First{Kind: TLS, Hello: h}, nil
	}
	k, err := peekText(br, b)
	return First{Kind: k}, err
}

// peekText classifies bytes that are not TLS. Servers differ in the blanks that they drop
// before a request line, in the bytes that separate its words and in the methods that they
// accept, so any first line that one of them may read as a request is HTTP1: [CheckHead]
// refuses all but one spelling.
//
// Clients of binary protocols send no line and wait for an answer. A NUL, or more than
// maxControls other control bytes, ends the search, and so does a first byte of XML or JSON.
func peekText(br *bufio.Reader, b []byte) (Kind, error) {
	is, err := hasPreface(br, b)
	switch {
	case err != nil:
		return Unknown, err
	case is:
		return HTTP2, nil
	}
	at := 0
	for ; ; at++ {
		if at == maxBlank {
			return HTTP1, nil
		}
		if b, err = through(br, b, at); err != nil {
			return Unknown, err
		}
		if classes[b[at]]&blank == 0 {
			break
		}
	}
	if b[at] == '<' || b[at] == '{' {
		return Other, nil
	}
	if b[at] == 0 && string(b[:at]) == proxySignature {
		return HTTP1, nil
	}
	return peekLine(br, b, at)
}

// hasPreface reports whether b begins with the preface of HTTP/2. It reads on as long as
// the bytes agree.
func hasPreface(br *bufio.Reader, b []byte) (bool, error) {
	var err error
	for i := range len(preface) {
		if b, err = through(br, b, i); err != nil {
			return false, err
		}
		if b[i] != preface[i] {
			return false, nil
		}
	}
	return true, nil
}

// peekLine distinguishes HTTP/1 from other protocols by the line that begins at b[at] and
// ends at LF, or at the byte that shows a binary protocol. A line that stops after its
// first word, or is longer than MaxHead bytes, is HTTP1, so that [CheckHead] refuses it.
func peekLine(br *bufio.Reader, b []byte, at int) (Kind, error) {
	var err error
	var controls int
	var word bool
	for i := at; i < MaxHead; i++ {
		if b, err = through(br, b, i); err != nil && word {
			return HTTP1, nil
		} else if err != nil {
			return Unknown, err
		}
		if classes[b[i]]&control != 0 {
			controls++
		}
		if b[i] == '\n' || b[i] == 0 || controls > maxControls {
			if requestLike(b[at:i]) {
				return HTTP1, nil
			}
			return Other, nil
		}
		word = word || classes[b[i]]&blank != 0
	}
	return HTTP1, nil
}

// requestLike reports whether some HTTP server may read line, which begins with a word, as
// a request. Such a line names a version anywhere (HTTP/1.1, http/1.0, after any
// separator), or has the target of HTTP/0.9, which has no version: a path or an http URL.
// The line of the PROXY protocol counts, too, because a request may follow it.
func requestLike(line []byte) bool {
	end := 0
	for end < len(line) && classes[line[end]]&blank == 0 {
		end++
	}
	first, rest := line[:end], line[end:]
	for len(rest) > 0 && classes[rest[0]]&blank != 0 {
		rest = rest[1:]
	}
	return string(first) == "PROXY" || len(rest) > 0 && rest[0] == '/' ||
		hasPrefixFold(rest, "http:") || hasPrefixFold(rest, "https:") || containsFold(line, "http/")
}

func hasPrefixFold(b []byte, lower string) bool {
	return len(b) >= len(lower) && foldEqual(b[:len(lower)], lower)
}

func containsFold(b []byte, lower string) bool {
	for i := range b {
		if hasPrefixFold(b[i:], lower) {
			return true
		}
	}
	return false
}

// through returns all that is buffered once that includes the byte at i. b is the result of
// an earlier call.
func through(br *bufio.Reader, b []byte, i int) ([]byte, error) {
	if i < len(b) {
		return b, nil
	}
	return atLeast(br, i+1)
}

// atLeast returns all that is buffered once that is n bytes or more. The bytes
// are good until the next call.
func atLeast(br *bufio.Reader, n int) ([]byte, error) {
	if br.Buffered() < n {
		if b, err := br.Peek(n); err != nil {
			if len(b) > 0 {
				err = unexpected(err)
			}
			return nil, err
		}
	}
	return br.Peek(br.Buffered())
}

// unexpected returns the error of an end in the middle.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
