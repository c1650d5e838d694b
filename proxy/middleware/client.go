// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// Dialer reaches a host that the operator named, as net.Dialer.DialContext does.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// client makes unary gRPC calls over HTTP/2.
type client struct {
	base      url.URL
	transport *http2.Transport
}

func newClient(u *url.URL, roots *x509.CertPool, dial Dialer) *client {
	return &client{base: *u, transport: &http2.Transport{
		AllowHTTP: true, DisableCompression: true, MaxHeaderListSize: maxServiceHeader, ReadIdleTimeout: pingAfter, PingTimeout: pingTimeout,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			conn, err := dial(ctx, network, address)
			if err != nil || u.Scheme == "http" {
				return conn, err
			}
			t := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host, NextProtos: []string{"h2"}})
			if err := t.HandshakeContext(ctx); err != nil {
				return nil, errors.Join(err, conn.Close())
			}
			return t, nil
		},
	}}
}

// prefix is the length of what stands before a gRPC message.
const prefix = 5

// call sends one message and returns the one that is answered. The error is a code:
// what a service or a connection says is not repeated, since it may quote the
// request.
func (c *client) call(ctx context.Context, method string, message []byte, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	deadline, _ := ctx.Deadline() // which may be an earlier one of the caller's
	out, err := c.exchange(ctx, method, message, timeout)
	var known code
	switch {
	case err == nil:
		return out, nil
	// The service knows the deadline as well, and its clock may ring first.
	case !time.Now().Before(deadline):
		return nil, codeTimeout
	case errors.As(err, &known):
		return nil, known
	}
	return nil, codeUnavailable
}

func (c *client) exchange(ctx context.Context, method string, message []byte, timeout time.Duration) ([]byte, error) {
	body := make([]byte, prefix, prefix+len(message))
	binary.BigEndian.PutUint32(body[1:], uint32(len(message)))
	body = append(body, message...)
	u := c.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + serviceName + "/" + method
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"openshell-proxy"},
		"Grpc-Timeout": {fmt.Sprintf("%dm", timeout.Milliseconds())},
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	kind := resp.Header.Get("Content-Type")
	if resp.StatusCode != http.StatusOK || kind != "application/grpc" && !strings.HasPrefix(kind, "application/grpc+") && !strings.HasPrefix(kind, "application/grpc;") {
		return nil, codeUnavailable
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, prefix+maxMessage+1))
	if err != nil {
		return nil, err
	}
	if len(text) > prefix+maxMessage {
		return nil, code("response_envelope_over_capacity")
	}
	status := resp.Trailer.Get("Grpc-Status")
	if len(resp.Header["Grpc-Status"]) > 0 { // with no message it stands in the header
		status = resp.Header.Get("Grpc-Status")
	}
	switch n, err := strconv.ParseUint(status, 10, 8); {
	case err != nil:
		return nil, codeUnavailable // it broke off
	case n != 0:
		return nil, code("middleware_status_" + status)
	}
	// One message, not compressed: nothing else was offered.
	if len(text) < prefix || text[0] != 0 || uint64(binary.BigEndian.Uint32(text[1:])) != uint64(len(text)-prefix) {
		return nil, code("invalid_response")
	}
	return text[prefix:], nil
}
