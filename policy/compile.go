// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// endpoint is a compiled Endpoint.
type endpoint struct {
	// policy is the position of its policy in Engine.policies.
	policy   int
	host     string
	wildcard bool
	glob     Glob
	ports    []uint16

	// config is true if the endpoint has settings for connections, and judged if its
	// requests are judged.
	config, judged, tcp, tlsSkip bool
	protocol                     Protocol
	credentials                  Credentials
	selector                     pathSelector
	rank                         int
	// path matches the endpoint's path for allow rules, and covered for deny rules. They
	// are used only if hasPath is true; without a path, all requests match.
	path         Glob
	covered      denyPath
	hasPath      bool
	audit        bool
	encodedSlash bool
	// queried is true if a rule reads query parameters. readsPath is true if a rule or the
	// endpoint matches some paths and not others.
	queried, readsPath bool
	allow, deny        ruleTree
	// options holds the rules of allow that name the method OPTIONS.
	options ruleTree

	// destination depends on the host alone. allowed holds the addresses of allowed_ips,
	// and allowedErr the error in them.
	destination, allowed Destination
	allowedErr           error

	text string
	line int
}

// compiledPolicy is a compiled NetworkPolicy.
type compiledPolicy struct {
	key      string
	binaries binarySet
}

// Compile compiles a parsed document. It fails if the document or the options are not
// valid; a document that [Parse] returned is.
func Compile(p *Policy, o CompileOptions) (*Engine, error) {
	audit, err := audits(EnforcementUnset, o)
	if err != nil {
		return nil, fmt.Errorf("unspecified enforcement: %w", err)
	}
	o.UnspecifiedEnforcement = EnforcementBlock
	if audit {
		o.UnspecifiedEnforcement = EnforcementAudit
	}
	if err := CheckControlPlanePorts(o.ControlPlanePorts); err != nil {
		return nil, fmt.Errorf("control-plane ports: %w", err)
	}
	e := &Engine{revision: o.Revision, index: hostIndex{literal: map[string][]int{}, bySuffix: map[string][]int{}}}
	policies := slices.Clone(p.Network)
	slices.SortStableFunc(policies, func(a, b NetworkPolicy) int { return cmp.Compare(a.Key, b.Key) })
	var errs []error
	for i, n := range policies {
		where := fmt.Sprintf("network policy %q", n.Key)
		if i > 0 && policies[i-1].Key == n.Key {
			errs = append(errs, errors.New(where+" occurs twice"))
		}
		binaries, err := compileBinaries(n.Binaries, o.Aliases)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
		e.policies = append(e.policies, compiledPolicy{n.Key, binaries})
		for j := range n.Endpoints {
			ep, err := compileEndpoint(&n.Endpoints[j], o)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: endpoints[%d]: %w", where, j, err))
			}
			ep.policy = i
			ep.text = strings.TrimSpace(fmt.Sprintf("endpoints[%d] %s", j, ep.host))
			e.index.add(len(e.endpoints), ep)
			e.endpoints = append(e.endpoints, ep)
		}
	}
	if e.stages, err = compileMiddlewares(p.Middlewares); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return e, nil
}

func compileEndpoint(in *Endpoint, o CompileOptions) (*endpoint, error) {
	ep := &endpoint{
		host: in.Host, wildcard: strings.Contains(in.Host, "*"), ports: slices.Clone(in.Ports),
		judged: in.Protocol.judges(), tcp: in.Protocol == ProtocolTCP, tlsSkip: in.TLSSkip, protocol: in.Protocol, credentials: in.Credentials,
		selector: newSelector(in.Path), encodedSlash: in.AllowEncodedSlash, line: in.Line,
	}
	ep.rank = ep.selector.rank()
	ep.config = in.configures()
	var errs [8]error
	if !ep.judged && !ep.tcp && in.Protocol != ProtocolNone {
		errs[0] = fmt.Errorf("protocol %q is not enforced", in.Protocol)
	}
	if ep.host == "" && len(in.AllowedIPs) == 0 {
		errs[1] = errors.New("host is empty without allowed_ips")
	}
	if ep.wildcard {
		ep.glob, errs[2] = CompileGlob(ep.host, '.')
	}
	if in.Path != "" {
		ep.hasPath = true
		ep.path, errs[3] = compilePath(in.Path)
		ep.covered, errs[6] = compileDenyPath(in.Path)
	}
	ep.audit, errs[4] = audits(in.Enforcement, o)
	if ep.judged && ep.tlsSkip && !ep.audit { // Parse does not know unspecified_enforcement
		errs[7] = errors.New(skippedRules)
	}
	ep.allow, ep.deny, ep.options, errs[5] = compileRules(in)
	rules := slices.Concat(in.Rules, in.DenyRules)
	ep.queried = slices.ContainsFunc(rules, func(r Rule) bool { return len(r.Query) > 0 })
	ep.readsPath = ep.hasPath || slices.ContainsFunc(rules, func(r Rule) bool { return !everyPath(r.Path) })
	// Without allowed_ips there is no error.
	ep.destination, _ = NewDestination(ep.host, nil)
	ep.destination.open = o.ControlPlanePorts
	if IsMachine(ep.host) {
		ep.destination.machine = o.Machine
	}
	ep.allowed, ep.allowedErr = NewDestination(ep.host, in.AllowedIPs)
	return ep, errors.Join(errs[:]...)
}

// everyPath reports whether a pattern obviously matches every path.
func everyPath(pattern string) bool { return pattern == "" || pattern == "**" || pattern == "/**" }

func audits(e Enforcement, o CompileOptions) (bool, error) {
	if e == EnforcementUnset {
		e = cmp.Or(o.UnspecifiedEnforcement, EnforcementAudit)
	}
	if e != EnforcementAudit && e != EnforcementBlock {
		return false, fmt.Errorf("unknown enforcement %q", e)
	}
	return e == EnforcementAudit, nil
}

// matches reports whether the endpoint matches host and port.
func (ep *endpoint) matches(host string, port uint16) bool {
	return slices.Contains(ep.ports, port) && ep.matchesHost(host)
}

// matchesHost reports whether the endpoint matches host. Only an endpoint that names the
// machine in full, without a wildcard, matches a name of the machine.
func (ep *endpoint) matchesHost(host string) bool {
	if ep.named() {
		return ep.host == host
	}
	return (ep.host == "" || ep.glob.Match(host)) && !IsMachine(host)
}

// named reports whether the endpoint's host is a full name or an address. Only such a host
// may have internal addresses.
func (ep *endpoint) named() bool { return ep.host != "" && !ep.wildcard }
