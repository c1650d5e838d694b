// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/http"
	"strings"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/middleware"
)

// judge asks the policy in force about the connection or, with asked, about one
// request on it. Every program that holds the connection must be allowed.
func (c *connection) judge(to target, asked *policy.HTTP) policy.Decision {
	if to.own {
		return c.sandbox.ownDecision()
	}
	dec, _ := c.judgeAll(&policy.Request{Host: to.host, Port: to.port, HTTP: asked})
	if m := c.sandbox.mustSee(to.host); m != "" && dec.Verdict == policy.Allow && opaque(dec) {
		return denied(dec, unseen(m))
	}
	return dec
}

// judgeAll returns the strictest of the decisions on each holder, and the holder.
func (c *connection) judgeAll(r *policy.Request) (policy.Decision, *identity.Process) {
	engine := c.sandbox.engine.Load().engine
	worst := policy.Decision{Reason: "nobody is known to hold the connection", Revision: engine.Revision()}
	var who *identity.Process
	held := c.who()
	for i := range held {
		r.Binary, r.Ancestors = held[i].Binary, held[i].Ancestors
		if d := engine.Decide(r); who == nil || d.Verdict < worst.Verdict {
			worst, who = d, &held[i]
		}
	}
	return worst, who
}

// request is a request as it was judged, which is how it is sent.
type request struct {
	to    target
	asked *policy.HTTP
	dec   policy.Decision
	// l4 is the decision on the connection: its addresses and its TLS.
	l4      policy.Decision
	request policy.Request
	// chain are the middlewares that it goes through, of stages, and steps what they
	// did.
	chain  []*policy.Middleware
	stages *middleware.Set
	steps  []decisionlog.Middleware
	// cancel ends the request; socket says that it has become a WebSocket.
	cancel context.CancelCauseFunc
	socket bool
	// injected is the request with credentials of set put in; nil if there are none.
	injected *injected
	set      *credentials.Set
	// hold is the memory that the request has.
	hold *memory.Hold
}

// target is the request's path and query as they are sent.
func (j *request) target() (path, query string) {
	if j.injected != nil {
		return j.injected.Path, j.injected.Query
	}
	return j.asked.Path, j.asked.RawQuery
}

// uri is the request's target in origin form.
func (j *request) uri() string {
	path, query := j.target()
	if query != "" {
		return path + "?" + query
	}
	return path
}

// judgeRequest puts a request into one spelling and judges that. The answer is
// nil if the request may go on. forward says that it came in absolute form,
// webSocket that it begins one.
func (c *connection) judgeRequest(to target, req *http.Request, uri string, forward, webSocket bool) (j *request, refusal *answer) {
	j = &request{to: to}
	method := req.Method
	refuse := func(a answer) (*request, *answer) { return j, &a }
	raw, query, _ := strings.Cut(uri, "?")
	if j.l4 = c.judge(to, nil); j.l4.Verdict != policy.Allow {
		j.dec = j.l4
		return refuse(refusedHost(method, to, raw, j.dec, forward))
	}
	path, err := policy.CanonicalPath(raw, j.l4.AllowEncodedSlash)
	if err == nil {
		query, err = policy.CanonicalQuery(query)
	}
	asked := &policy.HTTP{Method: method, Path: path, RawQuery: query, WebSocket: webSocket}
	if err == nil && j.l4.Inspect {
		asked.Overrides, err = policy.Overrides(req.Header, asked, j.l4.AllowEncodedSlash)
	}
	if err != nil {
		j.dec = denied(j.l4, err.Error())
		j.dec.Layer = policy.L7
		return refuse(badTarget(err.Error()))
	}
	j.asked = asked
	j.request = policy.Request{Host: to.host, Port: to.port, HTTP: j.asked, Forward: forward}
	if to.own {
		j.dec = j.l4
		return j, nil
	}
	dec, who := c.judgeAll(&j.request)
	if j.dec = dec; dec.Verdict == policy.Deny {
		if dec.Layer == policy.L4 {
			return refuse(refusedHost(method, to, raw, dec, forward))
		}
		return refuse(refusedRequest(to, j.asked, dec, who.Binary, forward))
	}
	l := c.sandbox.engine.Load()
	j.chain, j.stages = l.engine.Middlewares(to.host), l.stages
	return j, nil
}

// track keeps a request in flight where a reload finds it, until untrack. cancel is
// called with errReloaded if one has come or comes that denies it.
func (c *connection) track(j *request, cancel context.CancelCauseFunc) {
	j.cancel = cancel
	c.mu.Lock()
	c.requests[&j.request] = j
	c.mu.Unlock()
	if c.sandbox.changedSince(j.dec) {
		c.rejudge()
	}
}

func (c *connection) untrack(j *request) {
	c.mu.Lock()
	delete(c.requests, &j.request)
	c.mu.Unlock()
}

// record is one outcome, to be written down.
type record struct {
	dec      policy.Decision
	to       target
	protocol string
	http     *policy.HTTP
	status   int
	// sent is the request as it left with credentials or placeholders; nil if it has neither.
	sent *injected
	// steps are what middlewares did.
	steps   []decisionlog.Middleware
	in, out int64
	began   time.Time
	// err is the error that ended an allowed request or connection early; nil if none did.
	err error
}

// record records an outcome in the sandbox's log.
func (c *connection) record(r record) { c.recordIn(c.sandbox, r) }

// recordIn records an outcome in the log of b; if b is nil, in that of the server.
func (c *connection) recordIn(b *Sandbox, r record) {
	if r.began.IsZero() {
		r.began = c.began
	}
	rec := decisionlog.Record{
		Time: time.Now(), Verdict: r.dec.Verdict.String(), Layer: r.dec.Layer.String(),
		Host: r.to.host, Port: r.to.port, Protocol: r.protocol,
		Policy: r.dec.Policy, Rule: r.dec.Rule, Line: r.dec.Line, Reason: r.dec.Reason, Revision: r.dec.Revision,
		Status: r.status, Middlewares: r.steps, BytesIn: r.in, BytesOut: r.out, DurationMS: float64(time.Since(r.began).Microseconds()) / 1000,
	}
	if r.sent != nil {
		rec.Credentials, rec.Placeholders = r.sent.Used(), r.sent.Passed()
	}
	if r.dec.Verdict != policy.Deny || leftByClient(r.err) {
		if unconnected(r.err) {
			rec.Verdict = decisionlog.Failed
		}
		rec.Ended = endedBy(r.err)
	}
	if r.http != nil {
		rec.Method, rec.Path = r.http.Method, r.http.Path
	}
	if w := c.blamed(b, r); w != nil {
		rec.Pid, rec.Binary, rec.Digest, rec.Ancestors = w.Pid, w.Binary, w.Digest, w.Ancestors
	}
	if a := c.addressOf(r.to); a.IsValid() {
		rec.Address = a.String()
	} else if b := c.blocked.Load(); b != nil && strings.Contains(r.dec.Reason, b.text) {
		rec.Address = b.address.String()
	}
	log := c.server.config.Log
	if b != nil {
		log = b.config.Log
	}
	log.Record(rec)
}

// blamed returns the process that a record names; nil if none is known. Of several it is the
// one with the strictest decision.
func (c *connection) blamed(b *Sandbox, r record) *identity.Process {
	switch held := c.who(); {
	case len(held) == 0:
		return nil
	case len(held) == 1 || b == nil:
		return &held[0]
	}
	_, who := c.judgeAll(&policy.Request{Host: r.to.host, Port: r.to.port, HTTP: r.http})
	return who
}
