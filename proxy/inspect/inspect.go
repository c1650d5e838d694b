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
	"strings"
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
	// Other is anything else. If First.Open is true it may still become a request.
	Other
)

func (k Kind) String() string {
	return [...]string{"unknown", "tls", "http1", "http2", "other"}[k]
}

// First is what a client sends first.
type First struct {
	Kind Kind
	// Hello is set for TLS only.
	Hello *Hello
	// Open is true for a client of another protocol whose first line has not ended. Whoever
	// carries its bytes must read them with a [Line] until that is decided, and stop if they
	// become a request.
	Open bool
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Peek looks at what the client sends first and leaves all of it in br, whose
// buffer must hold MaxHello bytes. A first line that some server reads as a request (see
// [Line]) is HTTP1. Peek reads on while the client may be sending a request that [CheckHead]
// accepts. TLS that is malformed, has two readings or ends in the middle is
// an error; io.EOF means that nothing came.
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
	return peekText(br, b)
}

// peekText classifies bytes that are not TLS. b has those that are buffered.
func peekText(br *bufio.Reader, b []byte) (First, error) {
	var line Line
	for read := 0; ; {
		if len(b) >= len(preface) && string(b[:len(preface)]) == preface {
			return First{Kind: HTTP2}, nil
		}
		if inPreface := strings.HasPrefix(preface, string(b[:min(len(b), len(preface))])); !inPreface {
			reading := line.Read(b[read:])
			read = len(b)
			switch {
			case reading == Request:
				return First{Kind: HTTP1}, nil
			case reading == NoRequest:
				return First{Kind: Other}, nil
			case line.improper || len(b) == br.Size():
				return First{Kind: Other, Open: true}, nil
			}
		}
		more, err := atLeast(br, len(b)+1)
		switch {
		case noMore(err):
			line.Read(b[read:])
			if line.End() == Request {
				return First{Kind: HTTP1}, nil
			}
			return First{Kind: Other}, nil
		case err != nil:
			return First{}, err
		}
		b = more
	}
}

// Begins reports whether what br holds may be the beginning of TLS, of HTTP/2 or of a request
// that [CheckHead] accepts, with a usual method. A client that sends anything else and then
// waits speaks another protocol: its first line is open.
func Begins(br *bufio.Reader) bool {
	b, _ := br.Peek(br.Buffered())
	if len(b) > 0 && b[0] == recordHandshake || strings.HasPrefix(preface, string(b[:min(len(b), len(preface))])) {
		return true
	}
	var line Line
	return line.Read(b) == Undecided && line.begins()
}

// noMore reports whether err is the end of the client's bytes.
func noMore(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
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
