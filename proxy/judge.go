// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/identity"
)

// judge asks the policy in force about the connection or, with asked, about one
// request on it. Every program that holds the connection must be allowed.
func (c *connection) judge(to target, asked *policy.HTTP) policy.Decision {
	if to.own {
		return c.sandbox.ownDecision()
	}
	dec, _ := c.judgeAll(&policy.Request{Host: to.host, Port: to.port, HTTP: asked})
	if m := c.sandbox.mustSee(to); m != "" && dec.Verdict == policy.Allow && opaque(dec) {
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
