// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/identity"
)

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

// exhausted returns the decision to refuse for want of memory.
func (c *connection) exhausted(err error) policy.Decision {
	return c.sandbox.denial(policy.L4, err.Error())
}

// recordExhausted records a refusal for want of memory, with the status that the client
// got or 0. It is not inlined: a record is large, and the goroutine of each HTTP/2 stream
// would need a larger stack.
//
//go:noinline
func (c *connection) recordExhausted(to target, protocol string, status int, err error) {
	c.record(record{dec: c.exhausted(err), to: to, protocol: protocol, status: status})
}

// recordLeft records a client that left before the proxy could identify it.
func (c *connection) recordLeft(b *Sandbox, to target, protocol string, err error) {
	err = fmt.Errorf("the client left before it was identified: %w", err)
	c.recordIn(b, record{dec: b.denial(policy.L4, err.Error()), to: to, protocol: protocol, err: leftEarly(err)})
}

// addressOf is where a target was reached; the zero Addr if it was not.
func (c *connection) addressOf(to target) netip.Addr {
	if r := c.reached.Load(); r != nil && r.host == to.host && r.port == to.port {
		return r.address
	}
	return netip.Addr{}
}

// malformed returns the decision about a malformed request.
func (c *connection) malformed(reason string) policy.Decision {
	return c.sandbox.denial(policy.L7, "malformed request: "+reason)
}
