// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// CompileOptions are the settings of [Compile] that come from the operator and the
// container instead of the document. The zero value is valid.
type CompileOptions struct {
	// UnspecifiedEnforcement applies to endpoints without enforcement. The default, "",
	// means EnforcementAudit. Compile fails for an unknown value.
	UnspecifiedEnforcement Enforcement
	// ControlPlanePorts are the ports of a cluster's control plane (etcd, the API server,
	// the kubelet) that policies may allow. The default is none. Compile fails for a port
	// that is not a control-plane port; see [CheckControlPlanePorts].
	ControlPlanePorts []uint16
	// Machine holds the addresses at which the proxy reaches the machine that runs the
	// sandbox: its loopback address or the gateway of the container's network. Only the
	// names of [MachineNames] may resolve to them. The default is none: then these names
	// have no address.
	Machine []netip.Addr
	// Aliases maps the path of a program in the document to further paths of the same
	// program in the container: the targets of symbolic links. The default is none.
	Aliases map[string][]string
	// Revision is the number of the document. It is copied to every [Decision]. The default
	// is 0.
	Revision int
}

// Engine is a compiled document. It is immutable, and many goroutines can use it at once.
// The zero value denies everything.
type Engine struct {
	revision int
	// policies are sorted by key; endpoints are in the order of their policies.
	policies  []compiledPolicy
	endpoints []*endpoint
	index     hostIndex
	// stages are the middlewares in the order in which they run.
	stages []stage
	// closed is the Reason of every Decision of an Engine that [DenyAll] made; otherwise
	// empty.
	closed string
}

// DenyAll returns an Engine that denies everything with the given reason.
func DenyAll(revision int, reason string) *Engine {
	return &Engine{revision: revision, closed: reason}
}

// maxMisses limits how many policies a Reason names that match the host but not the
// caller's binary.
const maxMisses = 16

// usualMatches is the number of matching endpoints up to which Decide does not allocate.
const usualMatches = 16

// Decide judges one request. It does not modify r or keep a reference to it.
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

// match appends the endpoints that match r's host and port and whose policy allows r's
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

// connect judges the connection. matched are the endpoints that match it; there is at least
// one. The settings come from the first one that has settings for connections.
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
	if !first.hasPath { // a connection has no path
		d.Credentials.Provider = first.credentials.Provider
	}
	d.Destination.allowed = first.allowed.allowed
	if first.allowedErr != nil {
		d.Verdict, d.Rule, d.Line = Deny, first.text, first.line
		d.Reason = invalidAllowedIPs(first.allowedErr)
		d.Destination, d.DestinationErr = Destination{}, first.allowedErr
	}
}

// invalidAllowedIPs returns OpenShell's message for an allowed_ips that is not valid,
// followed by the entry that is wrong.
func invalidAllowedIPs(err error) string {
	return "invalid allowed_ips in policy: " + strings.TrimPrefix(err.Error(), "allowed_ips: ")
}

// whyNot returns the reason why no endpoint matched, in OpenShell's words.
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

// MayResolve reports whether an endpoint matches host, on any port and for any binary. The
// proxy resolves only such names.
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

// Revision returns the number of the document, as in [CompileOptions].
func (e *Engine) Revision() int { return e.revision }
