// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"net/http"

	"openshell.dev/runtime/policy"
)

// explicit serves a client that speaks to the proxy itself: CONNECT, or requests
// in absolute form.
func (c *connection) explicit(ctx context.Context) {
	h := &http1{c: c, conn: c.client, forward: true}
	h.serve(ctx)
}

const established = "HTTP/1.1 200 Connection Established\r\n\r\n"

// connect serves a CONNECT request: the connection becomes a tunnel.
func (h *http1) connect(ctx context.Context, req *http.Request) {
	c := h.c
	host, port, err := splitHost(req.RequestURI, 0)
	if err != nil {
		h.refuseConnect(target{}, badRequest(err.Error()), c.sandbox.denial(policy.L4, err.Error()))
		return
	}
	to := target{host: host, port: port, own: c.sandbox.isOwn(host)}
	// A connection that asked for other things before may have changed hands.
	if err := c.identify(); err != nil {
		if clientClosed(c.client.TCPConn) {
			c.recordLeft(c.sandbox, to, "tcp", err)
			return
		}
		h.refuseConnect(to, refusedConnection("CONNECT", to, err.Error()), c.sandbox.denial(policy.L4, err.Error()))
		return
	}
	if c.sandbox.isRouter(to.host) {
		if _, err := io.WriteString(c.client, established); err != nil {
			return
		}
		c.client.unread(h.br)
		h.giveReader()
		if first, err := c.peek(c.server.timeouts.idle); err == nil {
			c.route(ctx, first, to)
		}
		return
	}
	dec := c.judge(to, nil)
	if dec.Verdict != policy.Allow {
		h.refuseConnect(to, refusedConnection("CONNECT", to, dec.Reason), dec)
		return
	}
	if opaque(dec) && c.sandbox.uninspected(to, dec) {
		h.refuseConnect(to, answer{status: http.StatusForbidden, body: simpleBody{"uninspected_credentials", notInspected, ""}}, denied(dec, notInspected))
		return
	}
	up, err := c.dial(ctx, to, dec)
	if err != nil {
		a, dec := unreachable("CONNECT", to, dec, err)
		c.record(record{dec: dec, to: to, protocol: to.protocol(), status: a.status, err: err})
		h.end(a, false)
		return
	}
	if _, err := io.WriteString(c.client, established); err != nil {
		_ = up.Close()
		return
	}
	// What came early is looked at like all else in the tunnel.
	c.client.unread(h.br)
	h.giveReader()
	var first preface
	if !opaque(dec) {
		if first, err = c.peek(c.server.timeouts.serverFirst); err != nil {
			_ = up.Close()
			if !closedByPeer(err) {
				c.refuseRaw(to, denied(dec, err.Error()))
			}
			return
		}
	}
	c.serve(ctx, &route{first: first, to: to, dec: dec, up: up})
}
