// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

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
	to := target{host: host, port: port, own: len(c.sandbox.ownAddresses(host)) > 0}
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

// absolute returns the target of a request in absolute form and the rest of its URI. An
// https URL makes the proxy begin TLS with the target.
func absolute(uri string) (to target, rest string, err error) {
	scheme, after, ok := strings.Cut(uri, "://")
	if !ok {
		return to, "", errors.New("the proxy serves CONNECT and absolute http:// and https:// URLs")
	}
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		to.tls = true
	default:
		return to, "", fmt.Errorf("the proxy does not serve %q URLs", scheme)
	}
	authority, rest := cutAuthority(after)
	to.host, to.port, err = splitHost(authority, to.standardPort())
	return to, rest, err
}

// splitHost reads host, host:port or [address]:port as policy spells hosts.
// Without a port it is standard; 0 makes the port obligatory.
func splitHost(s string, standard uint16) (string, uint16, error) {
	host, digits := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, digits = s[:i], s[i+1:]
		if digits == "" || digits[0] == '0' || digits[0] == '+' {
			return "", 0, fmt.Errorf("authority %.80q has no proper port", s)
		}
	}
	port := standard
	if digits != "" {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("authority %.80q has no proper port", s)
		}
		port = uint16(n)
	}
	if port == 0 {
		return "", 0, fmt.Errorf("authority %.80q has no port", s)
	}
	if strings.ContainsRune(host, ':') && host[0] != '[' {
		return "", 0, fmt.Errorf("authority %.80q: an IPv6 address stands in brackets", s)
	}
	name, err := policy.NormalizeHost(host)
	return name, port, err
}
