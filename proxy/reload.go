// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"time"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
)

// tracingPossible is why a policy that names programs is refused.
const tracingPossible = "the programs of this sandbox can trace each other, so that each can act as a program that is named; " +
	"write /** in place of the program, or create the sandbox again with `tracing: deny` in the operator's configuration"

// ErrInvalid is wrapped by the errors of a policy that cannot be used.
var ErrInvalid = errors.New("invalid policy")

// Load puts a policy in force; revision is another than that of the one before.
// Connections and requests that it does not allow are ended when Load returns. On
// an error the policy before stays. The error is a *[proxyapi.Failure] with the code
// [proxyapi.CodeStaticChange] if the policy differs where a running sandbox cannot
// change, and wraps ErrInvalid if it cannot be used.
func (s *Sandbox) Load(name string, text []byte, revision int) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	p, err := policy.Parse(name, text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	before := s.engine.Load()
	if revision == before.engine.Revision() {
		return fmt.Errorf("revision %d is in force already", revision)
	}
	if before.policy != nil {
		if fields := policy.StaticDiff(before.policy, p); len(fields) > 0 {
			return &proxyapi.Failure{Code: proxyapi.CodeStaticChange, Fields: fields}
		}
	}
	if fields := p.ProgramFields(); len(fields) > 0 && !s.config.MayNamePrograms {
		return &proxyapi.Failure{Code: proxyapi.CodeStaticChange, Fields: fields, Detail: tracingPossible}
	}
	if err := p.CheckBindings(bindings(s.keys())); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	aliases, err := s.server.config.Identity.Aliases(s.config.Container, p.Binaries())
	if err != nil {
		return fmt.Errorf("find the policy's programs in the container: %w", err)
	}
	o := policy.CompileOptions{Aliases: aliases, Revision: revision, ControlPlanePorts: s.config.ControlPlanePorts, Machine: s.config.Machine}
	if s.config.Enforce {
		o.UnspecifiedEnforcement = policy.EnforcementBlock
	}
	engine, err := policy.Compile(p, o)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	stages, err := s.prepare(p)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	s.engine.Store(&loaded{policy: p, engine: engine, stages: stages, name: name, since: time.Now()})
	s.rejudge()
	return nil
}

// deniesAll is why everything is denied after DenyAll. The workload reads it.
const deniesAll = "everything is denied: an invalid policy was set, and no valid one since"

// bindings returns what the policy's check of its bindings needs of the providers in set,
// which may be nil.
func bindings(set *credentials.Set) (out []policy.Attached) {
	if set == nil {
		return nil
	}
	for p := range set.Providers() {
		a := policy.Attached{Name: p.Name}
		for _, k := range p.Credentials {
			a.Keys = append(a.Keys, k.Key)
		}
		for _, e := range p.Endpoints {
			a.Endpoints = append(a.Endpoints, policy.AttachedEndpoint(e))
		}
		out = append(out, a)
	}
	return out
}

// DenyAll puts in force that everything is denied, the router included, until Load
// succeeds: name is of a policy that is invalid. What is open has ended when it
// returns. Preconditions: Load has succeeded once; revision is as there.
func (s *Sandbox) DenyAll(name string, revision int) {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.engine.Store(&loaded{policy: s.engine.Load().policy, engine: policy.DenyAll(revision, deniesAll), name: name, since: time.Now(), closed: true})
	s.rejudge()
}

// Closed is why everything is denied; empty if a policy is in force.
func (s *Sandbox) Closed() string {
	if s.engine.Load().closed {
		return deniesAll
	}
	return ""
}

// Loaded is the name of the policy in force, its revision, and since when.
func (s *Sandbox) Loaded() (name string, revision int, since time.Time) {
	l := s.engine.Load()
	return l.name, l.engine.Revision(), l.since
}

// errReloaded is why something ended that a new policy, or other credentials, do not
// allow.
var errReloaded = errors.New("no longer allowed by the policy")

// changedSince says whether another policy is in force than the one that made dec.
func (s *Sandbox) changedSince(dec policy.Decision) bool {
	return s.engine.Load().engine.Revision() != dec.Revision
}

// rejudge ends what the policy in force does not allow: connections, and single
// requests on those that stay.
func (s *Sandbox) rejudge() {
	s.mu.Lock()
	open := make([]*connection, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.rejudge()
	}
}

// begin notes where the connection goes, for judging it again after a reload. If
// one has come since dec was made it returns the newer decision, and false if that
// has ended the connection.
func (c *connection) begin(to target, dec policy.Decision, inspected bool) (policy.Decision, bool) {
	c.mu.Lock()
	c.to, c.inspected = to, inspected
	c.mu.Unlock()
	if !c.sandbox.changedSince(dec) {
		return dec, true
	}
	return c.judge(to, nil), c.rejudge()
}

// becomes notes that a request goes on as a WebSocket, whose messages are looked at
// or not. It is false if a reload has ended that.
func (c *connection) becomes(j *request, rec record, looks bool) bool {
	c.mu.Lock()
	j.socket = true
	c.mu.Unlock()
	_, ok := c.begin(rec.to, rec.dec, looks)
	if ok && c.sandbox.keys() != j.set {
		ok = c.rejudge()
	}
	return ok
}

// rejudge ends the connection, or its requests, if the policy in force does not
// allow them. It says whether the connection stays.
func (c *connection) rejudge() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	stays := c.stays()
	if !stays {
		reset(c.client)
	}
	for r, j := range c.requests {
		if j.verbatim && stays { // the decision on the connection is the decision on it
			continue
		}
		again := *r
		if dec, _ := c.judgeAll(&again); !stays || dec.Verdict == policy.Deny || j.socket && (!dec.CarriesWebSocket() || c.sandbox.lost(j)) {
			j.cancel(errReloaded)
		}
	}
	return stays
}

// stays judges the connection again. Preconditions: c.mu is held.
func (c *connection) stays() bool {
	if why := c.sandbox.Closed(); why != "" { // which asks no target: the router's are not noted
		c.record(record{dec: c.sandbox.denial(policy.L4, why), to: c.to, protocol: "tcp"})
		return false
	}
	if c.to.host == "" {
		return true
	}
	dec := c.judge(c.to, nil)
	allowed, why := dec.Verdict == policy.Allow, errReloaded.Error()
	// Bytes that nobody looks at must not go on where requests are judged now.
	switch {
	case c.inspected:
	case allowed && c.sandbox.uninspected(c.to, dec):
		allowed, why = false, notInspected
	case dec.Inspect || c.sandbox.mustSee(c.to) != "":
		allowed = false
	}
	if a := c.addressOf(c.to); a.IsValid() {
		_, ok := dec.Destination.Check(a, c.to.port)
		allowed = allowed && ok
	}
	if !allowed {
		c.record(record{dec: denied(dec, why), to: c.to, protocol: "tcp"})
	}
	return allowed
}
