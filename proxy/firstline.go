// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"errors"
	"io"
	"time"

	"openshell.dev/runtime/proxy/inspect"
)

// errLateRequest is the error of a client that began like one of another protocol.
var errLateRequest = errors.New("the first line became an HTTP request in a spelling that is not judged")

// classify finds out what the client begins with, within the timeout of a head.
func (c *connection) classify(br *bufio.Reader) (inspect.First, error) {
	end := time.Now().Add(c.server.timeouts.head)
	_ = c.client.SetReadDeadline(time.Now().Add(min(FirstLineTimeout, c.server.timeouts.head)))
	first, err := inspect.Peek(br)
	if timedOut(err) && !inspect.Begins(br) {
		return inspect.First{Kind: inspect.Other, Open: true}, nil
	}
	_ = c.client.SetReadDeadline(end)
	if timedOut(err) {
		return inspect.Peek(br)
	}
	return first, err
}

// carryLine copies the client's first line, if it is open, until it is certain that no
// server reads it as a request. It returns errLateRequest, without the bytes that show it,
// if some server does.
func carryLine(to io.Writer, from *clientConn) (n int64, err error) {
	if !from.open {
		return 0, nil
	}
	from.open = false
	var line inspect.Line
	b := make([]byte, smallPipeBuffer)
	for {
		read, err := from.Read(b)
		reading := line.Read(b[:read])
		if reading == inspect.Request {
			return n, errLateRequest
		}
		if read > 0 {
			written, unsent := to.Write(b[:read])
			if n += int64(written); unsent != nil {
				return n, &writeError{unsent}
			}
		}
		switch {
		case errors.Is(err, io.EOF): // transfer sees it again
			return n, nil
		case err != nil:
			return n, err
		case reading == inspect.NoRequest:
			return n, nil
		}
	}
}
