// SPDX-License-Identifier: Apache-2.0

// Package inspect tells what a client says from its bytes alone: the protocol it
// speaks, the name in its ClientHello, and whether a request head has only one
// reading. It knows nothing of sockets or policy, never consumes what it looks
// at, and never waits for a byte that it does not need; how long to wait is the
// caller's read deadline.
package inspect

import (
	"bufio"
	"bytes"
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

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Peek looks at what the client sends first and leaves all of it in br, whose
// buffer must hold MaxHello bytes. A request after an empty line is a request, because
// servers drop that line. TLS that is malformed or has two readings is
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
	at := 0
	for ; at < len(b) && (b[at] == '\r' || b[at] == '\n') && at < maxBlank; at++ {
		if at+1 == len(b) {
			if b, err = atLeast(br, at+2); err != nil {
				return First{}, err
			}
		}
	}
	k, err := peekText(br, b, at)
	return First{Kind: k}, err
}

// peekText classifies the text that begins at b[at].
func peekText(br *bufio.Reader, b []byte, at int) (Kind, error) {
	var err error
	for i := at; ; i++ {
		if i == len(b) {
			if b, err = atLeast(br, i+1); err != nil {
				return Unknown, err
			}
		}
		if b[i] == ' ' && i > at {
			break
		}
		if i-at == MaxMethod || classes[b[i]]&method == 0 {
			return Other, nil
		}
	}
	if at > 0 {
		return peekLine(br, at), nil
	}
	for i := range len(preface) {
		if i == len(b) {
			if b, err = atLeast(br, i+1); err != nil {
				return Unknown, err
			}
		}
		if b[i] != preface[i] {
			return peekLine(br, 0), nil
		}
	}
	return HTTP2, nil
}

// peekLine distinguishes HTTP/1 from other text protocols (IRC, RTSP, NATS, Redis) by the
// whole first line, which begins at offset at. A line that does not end, or is longer
// than MaxHead bytes, is HTTP1, so that CheckHead refuses it.
func peekLine(br *bufio.Reader, at int) Kind {
	for seen := at; seen < min(MaxHead, br.Size()); {
		b, err := atLeast(br, seen+1)
		if err != nil {
			break
		}
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			if requestLike(b[at : seen+i]) {
				return HTTP1
			}
			return Other
		}
		seen = len(b)
	}
	return HTTP1
}

// requestLike reports whether some HTTP server may read line as a request. Such a line
// names a version anywhere (HTTP/1.1, http/1.0, after tabs or several spaces), or has the
// target of HTTP/0.9, which has no version: a path or an http URL. The line of the PROXY
// protocol counts, too, because a request may follow it.
func requestLike(line []byte) bool {
	first, rest, _ := bytes.Cut(line, []byte(" "))
	rest = bytes.TrimLeft(rest, " \t")
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
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
