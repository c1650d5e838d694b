// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
)

// route is an allowed connection that is to be served.
type route struct {
	first preface
	to    target
	dec   policy.Decision
	// up is the connection to the target if there is one already. serve closes it.
	up net.Conn
}

// protocols has the function that serves each protocol, by the kind of a client's first
// bytes. Kinds without one are served by serveOther. A new protocol is a kind of package
// inspect, a line here and a file with its function. A protocol within HTTP is an
// [Inspector] instead.
var protocols map[inspect.Kind]func(*connection, context.Context, *route)

func init() { // the functions serve connections within connections, and so refer to the table
	protocols = map[inspect.Kind]func(*connection, context.Context, *route){
		inspect.TLS:   (*connection).serveTLS,
		inspect.HTTP1: (*connection).serveHTTP1,
		inspect.HTTP2: (*connection).serveHTTP2,
	}
}

// serve carries an allowed connection to its target.
func (c *connection) serve(ctx context.Context, r *route) {
	defer func() {
		if r.up != nil {
			_ = r.up.Close()
		}
	}()
	if opaque(r.dec) {
		c.splice(ctx, r.to, r.dec, r.up, nil, "tcp")
		return
	}
	if r.first.Kind == inspect.Unknown && !c.serveSilent(ctx, r) {
		return
	}
	serve := protocols[r.first.Kind]
	if serve == nil {
		serve = (*connection).serveOther
	}
	serve(c, ctx, r)
}

// serveSilent waits until the client or the server sends something. It returns false if it
// has served the connection.
func (c *connection) serveSilent(ctx context.Context, r *route) bool {
	greeting, err := c.await(ctx, r)
	switch {
	case errors.Is(err, io.EOF):
		return false
	case unconnected(err):
		_, dec := unreachable("", r.to, r.dec, err)
		c.record(record{dec: dec, to: r.to, protocol: "tcp", err: err})
		reset(c.client)
		return false
	case err != nil:
		c.refuseRaw(r.to, denied(r.dec, err.Error()))
		return false
	case len(greeting) > 0:
		c.splice(ctx, r.to, r.dec, r.up, greeting, "tcp")
		return false
	}
	if host, _, err := splitHost(r.first.host, r.to.port); err == nil && c.guessed && host != r.to.host {
		if r.up != nil {
			_ = r.up.Close()
			r.up = nil
		}
		c.toAddress(ctx, r.first, target{host: host, port: r.to.port})
		return false
	}
	return true
}

// serveTLS forwards the client's TLS, or ends it where requests are read.
func (c *connection) serveTLS(ctx context.Context, r *route) {
	if r.dec.TLSSkip {
		c.splice(ctx, r.to, r.dec, r.up, nil, "tls")
		return
	}
	r.to.tls = true
	s := c.sandbox
	reads := r.dec.Inspect || s.config.TerminatePlainTLS || s.hasCredentials(r.to, r.dec) || s.hasMiddlewares(r.to.host)
	// At a plain endpoint TLS without a server name is forwarded, because the host is known
	// and the proxy dials its address. The proxy does not see a name in an encrypted
	// ClientHello, which browsers always send, mostly with random content (GREASE).
	if reads || r.first.Hello.ServerName != "" {
		if err := sameName(r.first.Hello.ServerName, r.to.host); err != nil {
			c.refuseTLS(ctx, r.to, denied(r.dec, err.Error()))
			return
		}
	}
	if !reads {
		c.splice(ctx, r.to, r.dec, r.up, nil, "tls")
		return
	}
	up := r.up
	r.up = nil // intercept closes it
	c.intercept(ctx, r.to, r.dec, up)
}

// serveHTTP1 serves HTTP/1 without TLS.
func (c *connection) serveHTTP1(ctx context.Context, r *route) {
	if _, ok := c.begin(r.to, r.dec, true); !ok {
		return
	}
	h := &http1{c: c, conn: c.client, to: r.to, up: newUpstreamHTTP(c, r.to, r.up)}
	h.serve(ctx)
}

// serveHTTP2 refuses HTTP/2 without TLS.
func (c *connection) serveHTTP2(_ context.Context, r *route) {
	c.refuseRaw(r.to, denied(r.dec, "HTTP/2 without TLS is not judged"))
}

// serveOther forwards bytes in a protocol that the proxy does not know, where the policy
// has no rules for what they carry.
func (c *connection) serveOther(ctx context.Context, r *route) {
	switch {
	case r.dec.Inspect:
		c.refuseRaw(r.to, denied(r.dec, "only HTTP can be judged by this endpoint's rules"))
	case r.to.port == 443:
		c.refuseRaw(r.to, denied(r.dec, "not TLS on port 443: write protocol: tcp if the endpoint is meant for it"))
	default:
		c.client.open = r.first.Open
		c.splice(ctx, r.to, r.dec, r.up, nil, "tcp")
	}
}

// opaque reports whether the proxy looks at nothing on a connection. An endpoint whose TLS
// is skipped may have rules all the same, for requests without TLS.
func opaque(dec policy.Decision) bool { return dec.TCP || dec.TLSSkip && !dec.Inspect }

// sameName returns an error unless the server name in TLS is the host that was judged.
func sameName(sni, host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		if sni == "" {
			return nil
		}
	} else if sni == "" {
		return fmt.Errorf("TLS names no server; %s is expected", host)
	}
	name, err := policy.NormalizeHost(sni)
	if err != nil {
		return fmt.Errorf("TLS server name: %w", err)
	}
	if name != host {
		return fmt.Errorf("TLS names the server %s, the connection is for %s", name, host)
	}
	return nil
}
