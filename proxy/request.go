// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/middleware"
)

// httpClient is the client's side of a request: HTTP/1, HTTP/2, or either of them to the
// router.
type httpClient interface {
	// locate sets r.to, and returns the path and query of a request. It refuses a request
	// that is not for the target of its connection.
	locate(req *http.Request, r *request) (uri string, no *refusal)
	// judge sets r.dec, and returns the answer to a request that is refused.
	judge(req *http.Request, r *request, uri string) *answer
	// reach makes ready what leads to r.to. It returns false if the connection ends.
	reach(r *request) bool
	// receive lets the body of a request be read until a time; the zero time is none.
	receive(req *http.Request, until time.Time) error
	// interim returns where an interim answer is written; nil if the library writes it.
	interim() io.Writer
	// carry sends a request to its target, the answer to the client, and records both. It
	// returns whether the connection may have a further request.
	carry(ctx context.Context, req *http.Request, r *request) (more bool)
	// refuse answers a request that is not carried.
	refuse(req *http.Request, a answer)
	// abort ends a request whose client has left.
	abort()
}

// refusal is the answer to a request that is refused before it is judged, and what is
// recorded.
type refusal struct {
	answer
	dec policy.Decision
}

// serveRequest is the way of every request: identify, judge, rewrite, carry, record. It
// returns whether the connection may have a further request.
func (c *connection) serveRequest(ctx context.Context, h httpClient, req *http.Request, r *request) (more bool) {
	uri, no := h.locate(req, r)
	if no != nil {
		r.dec = no.dec
		return c.refuseRequest(h, req, r, no.answer)
	}
	if err := c.identify(); err != nil {
		if clientClosed(c.client.TCPConn) {
			c.recordLeft(c.sandbox, r.to, r.name(), err)
			h.abort()
			return false
		}
		r.dec = c.sandbox.denial(policy.L7, err.Error())
		return c.refuseRequest(h, req, r, refusedConnection(req.Method, r.to, err.Error()))
	}
	if a := h.judge(req, r, uri); a != nil {
		return c.refuseRequest(h, req, r, *a)
	}
	if !h.reach(r) {
		return false
	}
	if !r.verbatim {
		var a *answer
		if req, a = c.rewrite(ctx, h, req, r); a != nil {
			return c.refuseRequest(h, req, r, *a)
		}
	}
	return h.carry(ctx, req, r)
}

// rewrite puts a judged request through the middlewares of its host and puts credentials
// in. It returns the request to send, or the answer to one that is refused.
func (c *connection) rewrite(ctx context.Context, h httpClient, req *http.Request, r *request) (*http.Request, *answer) {
	if a := r.notUpgraded(req); a != nil {
		return req, a
	}
	out, a := c.transform(ctx, h, req, r)
	if a == nil {
		out, a = c.inject(out, r, h.interim())
	}
	if a != nil {
		return req, a
	}
	return out, nil
}

// refuseRequest records a request that is not carried, with r.dec, and answers it.
func (c *connection) refuseRequest(h httpClient, req *http.Request, r *request, a answer) (more bool) {
	rec := r.record()
	rec.status = a.status
	c.record(rec)
	h.refuse(req, a)
	return false
}

// failRequest records a request that ended before it was answered, and answers it if the
// client is still there.
func (c *connection) failRequest(h httpClient, req *http.Request, rec record, a answer) {
	gone := errors.Is(rec.err, errClientGone)
	if !gone {
		rec.status = a.status
	}
	c.record(rec)
	if gone {
		h.abort()
		return
	}
	h.refuse(req, a)
}

// request is one request from its head to its record.
type request struct {
	// protocol is the name that the record gives to it; "" for that of the target.
	protocol string
	// began is when it began; zero: with its connection.
	began time.Time
	to    target
	// asked has the facts that were judged, which are also what is sent.
	asked *policy.HTTP
	dec   policy.Decision
	// verbatim is true if its content is not changed: it is for the container itself or the
	// router.
	verbatim bool
	// l4 is the decision on the connection: its addresses and its TLS.
	l4 policy.Decision
	// judged is the question that dec answers.
	judged policy.Request
	// chain has the middlewares of its host, which are among stages; steps is what they did.
	chain  []*policy.Middleware
	stages *middleware.Set
	steps  []decisionlog.Middleware
	// cancel ends the request. socket is true once it has become a WebSocket.
	cancel context.CancelCauseFunc
	socket bool
	// injected is the request with credentials of set; nil if there are none.
	injected *injected
	set      *credentials.Set
	// hold is the memory that the request has.
	hold *memory.Hold
}

// target is the request's path and query as they are sent.
func (r *request) target() (path, query string) {
	if r.injected != nil {
		return r.injected.Path, r.injected.Query
	}
	return r.asked.Path, r.asked.RawQuery
}

// uri is the request's target in origin form.
func (r *request) uri() string {
	path, query := r.target()
	if query != "" {
		return path + "?" + query
	}
	return path
}

// name returns the protocol as records name it.
func (r *request) name() string { return cmp.Or(r.protocol, r.to.protocol()) }

// record returns the record of the request, as far as it is known.
func (r *request) record() record {
	return record{dec: r.dec, to: r.to, protocol: r.name(), http: r.asked, steps: r.steps, began: r.began}
}

// judgeRequest judges a request to r.to by the facts that the inspector of the endpoint's
// protocol finds. It returns nil if the request may go on. forward is true for one in
// absolute form.
func (c *connection) judgeRequest(r *request, req *http.Request, uri string, forward bool) *answer {
	to, method := r.to, req.Method
	raw, _, _ := strings.Cut(uri, "?")
	if r.l4 = c.judge(to, nil); r.l4.Verdict != policy.Allow {
		r.dec = r.l4
		a := refusedHost(method, to, raw, r.dec, forward)
		return &a
	}
	asked, err := inspectorOf(r.l4.Protocol).Request(req, uri, &r.l4)
	if err != nil {
		r.dec = denied(r.l4, err.Error())
		r.dec.Layer = policy.L7
		a := badTarget(err.Error())
		return &a
	}
	r.asked = asked
	r.judged = policy.Request{Host: to.host, Port: to.port, HTTP: asked, Forward: forward}
	if to.own {
		r.dec, r.verbatim = r.l4, true
		return nil
	}
	dec, who := c.judgeAll(&r.judged)
	if r.dec = dec; dec.Verdict == policy.Deny {
		var a answer
		if dec.Layer == policy.L4 {
			a = refusedHost(method, to, raw, dec, forward)
		} else {
			a = refusedRequest(to, asked, dec, who.Binary, forward)
		}
		return &a
	}
	l := c.sandbox.engine.Load()
	r.chain, r.stages = l.engine.Middlewares(to.host), l.stages
	return nil
}

// track keeps a request in flight where a reload finds it, until untrack. cancel is
// called with errReloaded if one has come or comes that denies it.
func (c *connection) track(r *request, cancel context.CancelCauseFunc) {
	r.cancel = cancel
	c.mu.Lock()
	c.requests[&r.judged] = r
	c.mu.Unlock()
	if c.sandbox.changedSince(r.dec) {
		c.rejudge()
	}
}

func (c *connection) untrack(r *request) {
	c.mu.Lock()
	delete(c.requests, &r.judged)
	c.mu.Unlock()
}
