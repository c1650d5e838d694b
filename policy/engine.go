// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// CompileOptions are what the operator and the container add to a document.
type CompileOptions struct {
	// UnspecifiedEnforcement is what an absent enforcement means; empty is audit.
	UnspecifiedEnforcement Enforcement
	// ControlPlanePorts are the ports of a cluster's control plane (etcd, the API
	// server, the kubelet) that connections may be made to; none by default. A port
	// of another kind is an error.
	ControlPlanePorts []uint16
	// Machine are the addresses at which the proxy reaches the machine that runs the
	// sandbox: its loopback or the gateway of the container's network. They are the
	// addresses of MachineNames alone; none means that these names have no address.
	Machine []netip.Addr
	// Aliases are further paths of the program that a literal path of the
	// document names in the container: where links lead.
	Aliases map[string][]string
	// Revision is carried into every Decision.
	Revision int
}

// Engine is a compiled document. It is immutable and safe for use by many
// goroutines. The zero value denies everything.
type Engine struct {
	revision int
	// policies are in the order of their keys, endpoints in that of their
	// policies.
	policies  []compiledPolicy
	endpoints []*endpoint
	index     hostIndex
	// stages are the middlewares in their order.
	stages []stage
	// closed is why there is nothing in it, if there should be.
	closed string
}

// DenyAll makes an Engine that denies everything, for a reason of the caller's.
func DenyAll(revision int, reason string) *Engine {
	return &Engine{revision: revision, closed: reason}
}

// maxMisses bounds how many policies without the caller's binary a Reason names.
const maxMisses = 16

// usualMatches is how many endpoints may match before Decide allocates.
const usualMatches = 16

// Decide judges one request. It does not modify r and keeps nothing of it.
func (e *Engine) Decide(r *Request) Decision {
	var usual [usualMatches]*endpoint
	matched := e.match(r, usual[:0])
	d := Decision{Revision: e.revision}
	if len(matched) == 0 {
		d.Reason = e.whyNot(r)
		return d
	}
	d.Policy = e.policies[matched[0].policy].key
	d.connect(matched, r.Port)
	if d.Verdict == Allow && d.Inspect && r.HTTP != nil {
		d.request(r, matched)
	}
	return d
}

// match appends the endpoints of r's host and port whose policies have its
// binary.
func (e *Engine) match(r *Request, to []*endpoint) []*endpoint {
	judged, allowed := -1, false
	for c := e.index.candidates(r.Host); ; {
		i, ok := c.next()
		if !ok {
			return to
		}
		ep := e.endpoints[i]
		if r.Host == "" || !ep.matches(r.Host, r.Port) {
			continue
		}
		if ep.policy != judged {
			judged, allowed = ep.policy, e.policies[ep.policy].binaries.match(r)
		}
		if allowed {
			to = append(to, ep)
		}
	}
}

// connect judges the connection by the endpoints that match it, of which there
// are some. The first that says anything about connections speaks for all.
func (d *Decision) connect(matched []*endpoint, port uint16) {
	first, by := (*endpoint)(nil), matched[0]
	d.TCP, d.Credentials.AllowUninspected, d.Credentials.AllowUnsearched = true, true, true
	for _, ep := range matched {
		if ep.config && first == nil {
			first = ep
		}
		if ep.named() && !by.named() {
			by = ep
		}
		d.Inspect = d.Inspect || ep.judged
		d.TCP = d.TCP && ep.tcp
		d.AllowEncodedSlash = d.AllowEncodedSlash || ep.judged && ep.encodedSlash
		d.Credentials.AllowUninspected = d.Credentials.AllowUninspected && ep.credentials.AllowUninspected
		d.Credentials.AllowUnsearched = d.Credentials.AllowUnsearched && ep.credentials.AllowUnsearched
	}
	d.Verdict, d.Rule, d.Line = Allow, matched[0].text, matched[0].line
	d.Destination = by.destination
	if d.Destination.blocks(port) {
		d.Verdict, d.Reason, d.Destination = Deny, BlockedPort(port), Destination{}
		return
	}
	if first == nil {
		return
	}
	d.TLSSkip = first.tlsSkip
	if !first.hasPath { // paths are not looked at here
		d.Credentials.Provider = first.credentials.Provider
	}
	d.Destination.allowed = first.allowed.allowed
	if first.allowedErr != nil {
		d.Verdict, d.Rule, d.Line = Deny, first.text, first.line
		d.Reason = invalidAllowedIPs(first.allowedErr)
		d.Destination, d.DestinationErr = Destination{}, first.allowedErr
	}
}

// invalidAllowedIPs returns OpenShell's words for allowed_ips that allow nothing, and the
// entry that is wrong.
func invalidAllowedIPs(err error) string {
	return "invalid allowed_ips in policy: " + strings.TrimPrefix(err.Error(), "allowed_ips: ")
}

// whyNot is why no endpoint matched, in OpenShell's words.
func (e *Engine) whyNot(r *Request) string {
	if e.closed != "" {
		return e.closed
	}
	if len(e.policies) == 0 {
		return "network connections not allowed by policy"
	}
	var misses []string
	last, more := -1, 0
	for c := e.index.candidates(r.Host); ; {
		i, ok := c.next()
		if !ok {
			break
		}
		if ep := e.endpoints[i]; ep.policy != last && r.Host != "" && ep.matches(r.Host, r.Port) {
			last = ep.policy
			if len(misses) == maxMisses {
				more++
				continue
			}
			misses = append(misses, fmt.Sprintf("binary '%s' not allowed in policy '%s' (ancestors: [%s], cmdline: [])",
				r.Binary, e.policies[last].key, strings.Join(r.Ancestors, " -> ")))
		}
	}
	if len(misses) == 0 {
		return fmt.Sprintf("endpoint %s:%d is not allowed by any policy", r.Host, r.Port)
	}
	if more > 0 {
		misses = append(misses, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(misses, "; ")
}

// MayResolve says whether some endpoint could match host, on whatever port and
// for whatever binary: only such names are looked up.
func (e *Engine) MayResolve(host string) bool {
	for c := e.index.candidates(host); ; {
		i, ok := c.next()
		if !ok {
			return false
		}
		if host != "" && e.endpoints[i].matchesHost(host) {
			return true
		}
	}
}

// Revision is the one the Engine was compiled with.
func (e *Engine) Revision() int { return e.revision }
