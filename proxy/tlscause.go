// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
)

// Causes of TLS failures with a server that the proxy cannot avoid, each with the way out.
const (
	skipTLS            = "; an endpoint without protocol and rules carries the client's own TLS"
	causeCertificate   = "the server asks for a client certificate, which the proxy does not have" + skipTLS
	causeRenegotiation = "the server begins TLS again within the connection (renegotiation), mostly to ask for a client certificate, which the proxy does not do" + skipTLS
	causeParameters    = "the server takes none of the TLS versions and key exchanges that the proxy offers (TLS 1.2 and 1.3, ECDHE, and not DHE or RSA)" + skipTLS
)

// explained adds the cause and the way out to an error of TLS with a server, if they are
// known.
func explained(err error) error {
	if cause := tlsCause(err); cause != "" {
		return fmt.Errorf("%w: %s", err, cause)
	}
	return err
}

// refusedParameters are the alerts of a server that has no version, cipher suite or group
// in common with the client.
var refusedParameters = []tls.AlertError{40, 70, 71} // handshake_failure, protocol_version, insufficient_security

func tlsCause(err error) string {
	var asked *certificateError
	if errors.As(err, &asked) {
		return causeCertificate
	}
	if err != nil && strings.Contains(err.Error(), "tls: server selected unsupported protocol version") {
		return causeParameters
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Err == nil {
		return ""
	}
	const noRenegotiation = tls.AlertError(100)
	is := func(a tls.AlertError) bool { return op.Err.Error() == a.Error() }
	switch {
	case op.Op == "local error" && is(noRenegotiation):
		return causeRenegotiation
	case op.Op == "remote error" && slices.ContainsFunc(refusedParameters, is):
		return causeParameters
	}
	return ""
}

// certificateError is an error of a connection to a server that has asked for a client
// certificate and has sent nothing since.
type certificateError struct{ err error }

func (e *certificateError) Error() string { return e.err.Error() }
func (e *certificateError) Unwrap() error { return e.err }

// askedConn is a connection to a server that has asked for a client certificate. In TLS 1.3
// the server refuses a client without one only after the client's handshake has ended.
type askedConn struct {
	*tls.Conn
	// accepted is true once the server has sent something.
	accepted atomic.Bool
	// refused is the first error before that.
	refused atomic.Pointer[certificateError]
}

func (c *askedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.accepted.Store(true)
	}
	return n, c.note(err)
}

func (c *askedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.note(err)
}

func (c *askedConn) note(err error) error {
	if err == nil || c.accepted.Load() || timedOut(err) {
		return err
	}
	c.refused.CompareAndSwap(nil, &certificateError{err})
	return &certificateError{err}
}
