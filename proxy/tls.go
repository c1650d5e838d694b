// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"openshell.dev/runtime/policy"
)

// intercept ends the client's TLS here and has its requests served. tcp is its own
// from now on.
func (c *connection) intercept(ctx context.Context, to target, dec policy.Decision, tcp net.Conn) {
	up := newUpstreamHTTP(c, to, tcp)
	dec, ok := c.begin(to, dec, true)
	if !ok {
		up.close()
		return
	}
	if err := c.account.Take(ctx, tlsCost); err != nil {
		up.close()
		c.refuseRaw(to, c.exhausted(err))
		return
	}
	conn, err := c.accept(ctx, to, func(offered []string) []string { return up.protocols(ctx, dec, offered) })
	if err != nil {
		up.close()
		c.account.Release(tlsCost)
		c.refuseHandshake(to, denied(dec, err.Error()), err)
		return
	}
	c.next = func(ctx context.Context) {
		defer c.account.Release(tlsCost)
		defer up.close()
		defer conn.Close()
		if conn.ConnectionState().NegotiatedProtocol == "h2" {
			serveHTTP2(ctx, c, conn, to, up, nil)
			return
		}
		h := &http1{c: c, conn: conn, to: to, up: up}
		h.serve(ctx)
	}
}

// accept does the server's side of TLS with a certificate for the target.
func (c *connection) accept(ctx context.Context, to target, protocols func(offered []string) []string) (*tls.Conn, error) {
	if err := c.account.Take(ctx, handshakeCost); err != nil {
		return nil, err
	}
	defer c.account.Release(handshakeCost)
	leaf, err := c.sandbox.config.CA.Leaf(to.host)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", to.host, err)
	}
	conn := tls.Server(c.client, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			next := protocols(h.SupportedProtos)
			// Only now it is the client that is waited for.
			_ = c.client.SetDeadline(time.Now().Add(c.server.timeouts.handshake))
			return &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*leaf}, NextProtos: next,
				WrapSession: c.sandbox.tickets.EncryptTicket, UnwrapSession: c.sandbox.tickets.DecryptTicket,
			}, nil
		},
	})
	_ = c.client.SetDeadline(time.Now().Add(c.server.timeouts.handshake))
	err = conn.HandshakeContext(ctx)
	_ = c.client.SetDeadline(time.Time{})
	if err != nil {
		return nil, fmt.Errorf("TLS with the client: %w", failure(ctx, err))
	}
	return conn, nil
}

// refuseHandshake records a TLS handshake with the client that failed with err, and ends the
// connection. It is no refusal if the client has ended the handshake.
func (c *connection) refuseHandshake(to target, dec policy.Decision, err error) {
	rec := record{dec: dec, to: to, protocol: "tls"}
	if handshakeLeft(err) {
		rec.err = leftEarly(err)
	}
	c.record(rec)
	reset(c.client)
}

// handshakeLeft reports whether a TLS handshake with the client failed because the client
// ended it: by closing the connection, or with an alert.
func handshakeLeft(err error) bool {
	var op *net.OpError
	return leftByClient(err) || closedByPeer(err) || errors.As(err, &op) && op.Op == "remote error"
}

// known are the protocols of those offered that can be answered in.
func known(offered []string) []string {
	var out []string
	for _, p := range offered {
		if p == "h2" || p == "http/1.1" {
			out = append(out, p)
		}
	}
	return out
}
