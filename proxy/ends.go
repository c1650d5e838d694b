// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/upstream"
)

// errClientGone is the error of a request whose client has closed the connection.
var errClientGone = errors.New("the client ended the request before it had the whole answer")

// errSandboxEnded is the error of a request that was in flight when the sandbox ended, and
// its client with it.
var errSandboxEnded = fmt.Errorf("the sandbox ended: %w", errClientGone)

// errUnprocessed is the error of a request that the server has certainly not processed. It
// may be sent again.
var errUnprocessed = errors.New("the server ended the connection without processing the request, which may be sent again")

// connectError is a failure to connect to the other side. Nothing was sent there.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

// answerError is an answer that is not HTTP/1, or not the answer to the request.
type answerError struct{ error }

func (e *answerError) Unwrap() error { return e.error }

// writeError is an error of the connection that bytes were copied to.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// ofWriting reports whether an error of copying comes from the destination.
func ofWriting(err error) bool {
	var w *writeError
	var op *net.OpError
	return errors.As(err, &w) || errors.As(err, &op) && op.Op == "write"
}

// copied returns err, the result of copying an answer to its client, or errClientGone if
// the client's connection failed.
func copied(err error) error {
	if err == nil {
		return nil
	}
	var w *writeError
	if errors.As(err, &w) {
		return errClientGone
	}
	return err
}

// hungUp is an error of the client's connection.
type hungUp struct{ error }

func (e *hungUp) Unwrap() error { return e.error }

// failure returns why an operation failed with err: the reason of the policy, the client or
// the memory budget if one of them has canceled ctx, otherwise err. ctx is that of the request or the
// connection.
func failure(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errReloaded), errors.Is(cause, errCut), errors.Is(cause, errClientGone), errors.Is(cause, memory.ErrExhausted):
		return cause
	case errors.Is(cause, context.Canceled) && errors.Is(err, context.Canceled): // HTTP/2: the stream has ended
		return errClientGone
	}
	return err
}

// unconnected reports whether there was no connection to the other side. A server that asks
// for a client certificate in TLS 1.3 refuses the connection after the handshake.
func unconnected(err error) bool {
	if err == nil {
		return false
	}
	var e *connectError
	var refused *certificateError
	return errors.As(err, &e) || errors.As(err, &refused)
}

// The sides that end a request or a connection early, as records name them.
const (
	endedByClient   = "client"
	endedByUpstream = "upstream"
)

// leftByClient reports whether the client has ended its connection.
func leftByClient(err error) bool {
	var client *hungUp
	return errors.Is(err, errClientGone) || errors.As(err, &client)
}

// closedByPeer reports whether an operation on a connection failed because the other end had
// closed it.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// leftEarly returns the error of a client that left before its connection was identified or
// its TLS handshake ended, because of which nothing was judged or carried.
func leftEarly(err error) error { return &connectError{&hungUp{err}} }

// endedBy returns the side that has ended an allowed request or connection with err.
func endedBy(err error) string {
	if err == nil {
		return ""
	}
	switch {
	case leftByClient(err):
		return endedByClient
	case unconnected(err):
		return ""
	case errors.Is(err, net.ErrClosed), errors.Is(err, errReloaded), errors.Is(err, errCut): // by the proxy
		return ""
	}
	return endedByUpstream
}

// Error codes of refusals that the other side causes.
const (
	unreachableCode = "upstream_unreachable"
	malformedCode   = "upstream_malformed_answer"
	unprocessedCode = "upstream_unprocessed"
)

// described returns the error code and the text of a refusal that the other side causes.
// The text is one of a fixed set, because the error itself can quote bytes of the other
// side, which may be written to instruct an agent. Records have the error itself.
func described(err error) (code, text string) {
	var malformed *answerError
	if errors.As(err, &malformed) {
		if errors.Is(err, errHeadTooLong) {
			return malformedCode, errHeadTooLong.Error()
		}
		return malformedCode, "the server's answer is malformed"
	}
	var stream http2.StreamError
	var conn http2.ConnectionError
	if errors.Is(err, errUnprocessed) {
		return unprocessedCode, errUnprocessed.Error()
	}
	if errors.As(err, &stream) && (stream.Cause == nil || stream.Cause.Error() != "received from peer") || errors.As(err, &conn) {
		return malformedCode, "the server's answer is malformed"
	}
	return unreachableCode, unreachableText(err)
}

func unreachableText(err error) string {
	if cause := tlsCause(err); cause != "" {
		return cause
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var stream http2.StreamError
	var goAway http2.GoAwayError
	switch {
	case errors.Is(err, upstream.ErrResolve):
		return "the name does not resolve"
	case errors.As(err, &unknown):
		return "the server's certificate is of an unknown issuer"
	case errors.As(err, &name):
		return "the server's certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate has expired or is not yet valid"
	case errors.As(err, &invalid), errors.As(err, &verification):
		return "the server's certificate is not valid"
	case errors.As(err, &notTLS):
		return "the server does not speak TLS"
	case errors.As(err, &stream):
		return "the server reset the request"
	case errors.As(err, &goAway):
		return "the server closed the connection before it answered"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timedOut(err):
		return "the server does not answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the server refuses connections"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no route to the server"
	case closedByPeer(err), errors.Is(err, net.ErrClosed):
		return "the server closed the connection before it answered"
	case strings.Contains(err.Error(), "remote error: tls:"):
		return "the server ended the TLS handshake"
	}
	return "the server cannot be reached"
}
