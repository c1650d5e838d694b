// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Warning is a part of a document that is valid but may not mean what the author expects.
type Warning struct {
	Line int
	Msg  string
}

// Lint returns the effects of a valid document, compiled with o, that its author may not
// expect, sorted by line.
func Lint(p *Policy, o CompileOptions) []Warning {
	l := &linter{options: o, network: p.Network, work: MaxOverlapWork, out: slices.Clone(p.Notes)}
	l.filesystem(&p.Filesystem)
	for i := range p.Network {
		l.policy(&p.Network[i])
	}
	l.middlewares(p)
	slices.SortStableFunc(l.out, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	return l.out
}

// AuditedByDefault returns the lines of the endpoints whose rules refuse nothing because
// enforcement is not set.
func AuditedByDefault(p *Policy) (lines []int) {
	for _, n := range p.Network {
		for i := range n.Endpoints {
			if n.Endpoints[i].auditedByDefault() {
				lines = append(lines, n.Endpoints[i].Line)
			}
		}
	}
	return lines
}

func (e *Endpoint) auditedByDefault() bool {
	return e.Protocol.judges() && e.Enforcement == EnforcementUnset
}

type linter struct {
	options CompileOptions
	network []NetworkPolicy
	out     []Warning
	// work is the number of steps that are left for overlap in the whole document.
	work int
}

func (l *linter) warn(line int, format string, args ...any) {
	l.out = append(l.out, Warning{line, fmt.Sprintf(format, args...)})
}

func (l *linter) filesystem(f *Filesystem) {
	writable := map[string]bool{}
	for _, p := range f.ReadWrite {
		if c := path.Clean(p); writable[c] {
			l.warn(f.Line, "read_write has %s twice", c)
		} else {
			writable[c] = true
		}
	}
	readable := map[string]bool{}
	for _, p := range f.ReadOnly {
		c := path.Clean(p)
		switch {
		case readable[c]:
			l.warn(f.Line, "read_only has %s twice", c)
		case writable[c]:
			l.warn(f.Line, "read_only path %s is also in read_write, so it can be written", c)
		default:
			if up := above(writable, c); up != "" {
				l.warn(f.Line, "read_only path %s lies in read_write path %s, so it can be written", c, up)
			} else if up := above(readable, c); up != "" {
				l.warn(f.Line, "read_only path %s adds nothing to %s", c, up)
			}
		}
		readable[c] = true
	}
	for _, p := range f.ReadWrite {
		if up := above(writable, path.Clean(p)); up != "" {
			l.warn(f.Line, "read_write path %s adds nothing to %s", path.Clean(p), up)
		}
	}
}

// above returns the nearest of paths that contains p.
func above(paths map[string]bool, p string) string {
	for p != "/" {
		if p = path.Dir(p); paths[p] {
			return p
		}
	}
	return ""
}

func (l *linter) policy(p *NetworkPolicy) {
	if len(p.Endpoints) == 0 {
		l.warn(p.Line, "network policy '%s' has no endpoints, so it allows nothing", p.Name)
	}
	if len(p.Binaries) == 0 {
		l.warn(p.Line, "network policy '%s' has no binaries, so no program may use it; for every program write \"/**\"", p.Name)
	}
	seen := map[string]bool{}
	for _, b := range p.Binaries {
		switch {
		case b.Path == "/**" || b.Path == "**":
			l.warn(b.Line, "binary %s is every program in the container", b.Path)
		case b.Path[0] != '/' && b.Path[0] != '*', !strings.Contains(b.Path, "*") && path.Clean(b.Path) != b.Path:
			l.warn(b.Line, "binary %s matches no program: write the absolute path as ls shows it", b.Path)
		case seen[b.Path]:
			l.warn(b.Line, "binary %s is listed twice", b.Path)
		}
		seen[b.Path] = true
	}
	for i := range p.Endpoints {
		l.endpoint(&p.Endpoints[i])
		l.remotes(p, &p.Endpoints[i])
	}
}

func (l *linter) endpoint(e *Endpoint) {
	l.host(e)
	l.ports(e)
	l.addresses(e)
	l.credentials(e)
	if !e.Protocol.judges() {
		if e.Access != AccessNone || len(e.Rules) > 0 {
			l.warn(e.Line, "access and rules have no effect without protocol: rest; every request on the connection passes")
		}
		return
	}
	if e.auditedByDefault() && l.options.UnspecifiedEnforcement != EnforcementBlock {
		l.warn(e.Line, "enforcement is not set, which means audit: requests that the rules refuse are recorded and pass; write enforcement: enforce")
	}
	if e.TLSSkip {
		l.warn(e.Line, "tls: skip with protocol: %s: requests inside TLS cannot be judged", e.Protocol)
	}
	if why := neverMatches(e.Path, e.AllowEncodedSlash); why != "" {
		l.warn(e.Line, "path %s selects no request: %s", e.Path, why)
	}
	l.rules(e, false, e.Rules)
	l.rules(e, true, e.DenyRules)
}

// host says which names a pattern matches.
func (l *linter) host(e *Endpoint) {
	first, rest, _ := strings.Cut(e.Host, ".")
	switch {
	case e.Host == "":
		l.warn(e.Line, "an endpoint without host reaches every name with addresses in allowed_ips")
	case first == "**":
		l.warn(e.Line, "host %s is every name below %s at any depth, and not %[2]s itself", e.Host, rest)
	case strings.Contains(e.Host, "*"):
		l.warn(e.Line, "host %s: each * is any text within one label, so names with more labels do not match", e.Host)
	default:
		if h, err := NormalizeHost(e.Host); err != nil {
			l.warn(e.Line, "host %s is not a valid name: %v", e.Host, err)
		} else if h != e.Host {
			l.warn(e.Line, "host %s never matches: requests spell it %s", e.Host, h)
		} else if why := cmp.Or(Sandbox(h), Unreachable(h)); why != "" {
			l.warn(e.Line, "the endpoint has no effect: %s", why)
		}
	}
	l.machine(e)
}

// machine warns of a pattern that would match a name of the machine if it were not
// excluded.
func (l *linter) machine(e *Endpoint) {
	if !strings.Contains(e.Host, "*") {
		return
	}
	g, err := CompileGlob(e.Host, '.')
	for _, name := range machineNames {
		if err == nil && g.Match(name) {
			l.warn(e.Line, "host %s does not cover %s, a name of the machine that runs the sandbox: write it out", e.Host, name)
		}
	}
}

// ports warns of ports to which every connection is refused.
func (l *linter) ports(e *Endpoint) {
	d := Destination{open: l.options.ControlPlanePorts}
	for _, p := range e.Ports {
		if d.blocks(p) {
			l.warn(e.Line, "port %d is a blocked control-plane port: every connection to it is refused unless the operator's configuration has it in control_plane_ports", p)
		}
	}
}

// addresses warns of an endpoint whose allowed_ips refuses every connection.
func (l *linter) addresses(e *Endpoint) {
	d, err := NewDestination(e.Host, e.AllowedIPs)
	switch {
	case err != nil:
		l.warn(e.Line, "every connection to the endpoint is refused: %v", err)
	case len(d.allowed) == 0:
	case d.mode == modeLiteral && !contains(d.allowed, effective(d.literal)):
		l.warn(e.Line, "every connection to the endpoint is refused: allowed_ips does not have its host, %s", e.Host)
	case !slices.ContainsFunc(d.allowed, reachable):
		l.warn(e.Line, "every connection to the endpoint is refused: allowed_ips has only addresses that no rule can allow")
	}
}

// reachable reports whether a prefix has an address that a rule can allow.
func reachable(p netip.Prefix) bool {
	return !slices.ContainsFunc(metadata, func(m netip.Prefix) bool { return m.Bits() <= p.Bits() && m.Contains(p.Addr()) })
}

// RouterHost is the host of the privacy router. Every sandbox with a router has it, and no
// policy names it.
const RouterHost = "inference.local"

func (l *linter) middlewares(p *Policy) {
	stages, err := compileMiddlewares(p.Middlewares)
	if err != nil {
		return // no valid document
	}
	for _, s := range stages {
		if s.FailOpen {
			l.warn(s.Line, "middleware config '%s' fails open: requests pass unprocessed while it is unavailable", s.Key)
		}
		selects := s.selects(strings.Split(RouterHost, "."))
		for i := range p.Network {
			selects = selects || slices.ContainsFunc(p.Network[i].Endpoints, func(e Endpoint) bool {
				h, err := newHostPattern(e.Host)
				return err != nil || s.maySelect(&h) // without the pattern, assume that the host is selected
			})
		}
		if !selects {
			l.warn(s.Line, "middleware config '%s' selects no host of the policy's endpoints", s.Key)
		}
	}
}

// methods are the methods that OpenShell knows, by protocol. Any other is probably a typo.
var methods = map[Protocol][]string{
	ProtocolREST:      {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "*"},
	ProtocolWebSocket: {"GET", MethodText, "*"},
}

func (l *linter) rules(e *Endpoint, deny bool, rules []Rule) {
	what := "rule"
	if deny {
		what = "deny rule"
	}
	all := map[string]int{} // method to the line of a rule for every path
	for _, r := range rules {
		method := strings.ToUpper(r.Method)
		why := neverMatches(r.Path, e.AllowEncodedSlash || deny) // a deny rule reads %2F as / too
		switch {
		case method == "":
			l.warn(r.Line, "%s has no method, so it matches no request; write method: \"*\" for all", what)
			continue
		case !slices.Contains(methods[e.Protocol], method):
			l.warn(r.Line, "%s has the unusual method %q", what, r.Method)
		}
		l.denyQueries(r, deny)
		if holdsQuery(r.Path) {
			l.warn(r.Line, "%s path %s: ? matches any one character; write parameters under query", what, r.Path)
		}
		switch line := cmp.Or(all["*"], all[method]); {
		case why != "":
			l.warn(r.Line, "%s path %s matches no request: %s", what, r.Path, why)
		case r.Path != "" && !l.within(e.Path, r.Path, deny):
			l.warn(r.Line, "%s path %s lies outside the endpoint's path %s", what, r.Path, e.Path)
		case line != 0:
			l.warn(r.Line, "%s adds nothing to the rule in line %d, which is for every path", what, line)
		case len(r.Query) == 0 && slices.Contains([]string{"", "**", "/**"}, r.Path):
			all[method] = r.Line
		}
	}
}

// holdsQuery reports whether a path contains a query.
func holdsQuery(path string) bool {
	_, query, _ := strings.Cut(path, "?")
	name, _, ok := strings.Cut(query, "=")
	return ok && !strings.Contains(name, "/")
}

// denyQueries warns of patterns in a deny rule that do not match a value with a dot.
func (l *linter) denyQueries(r Rule, deny bool) {
	for _, q := range r.Query {
		for _, g := range q.Globs {
			if deny && g != "**" && strings.Contains(g, "*") {
				l.warn(r.Line, "deny rule query %s: %q: * stops at a dot, so a value with a dot there passes; for any value write \"**\"", q.Key, g)
			}
		}
	}
}

// within reports whether a rule's path and its endpoint's path can match the same path. A
// deny rule also matches its path with or without a trailing slash, and with each %2F
// decoded.
func (l *linter) within(endpoint, rule string, deny bool) bool {
	endpoint = cmp.Or(endpoint, "**")
	if !deny {
		return l.meet(canonicalPattern(rule, ruleDialect), canonicalPattern(endpoint, ruleDialect))
	}
	outer := []string{canonicalPattern(endpoint, ruleDialect), decodedPattern(endpoint)}
	for _, rule := range []string{canonicalPattern(rule, ruleDialect), decodedPattern(rule)} {
		bare := strings.TrimSuffix(rule, "/")
		for _, s := range []string{rule, bare, bare + "/"} {
			if slices.ContainsFunc(outer, func(o string) bool { return l.meet(s, o) }) {
				return true
			}
		}
	}
	return false
}

// meet reports whether a path can match two patterns in canonical spelling.
func (l *linter) meet(a, b string) bool {
	return overlap(tokens(a, '/', ruleDialect), tokens(b, '/', ruleDialect), &l.work)
}

// neverMatches returns the reason why no canonical path can match a pattern, or "" if one
// may.
func neverMatches(p string, encodedSlash bool) string {
	if p == "" {
		return ""
	}
	p = canonicalPattern(p, ruleDialect)
	if !strings.ContainsRune("/*?[{\\", rune(p[0])) {
		return "paths begin with /"
	}
	if strings.ContainsAny(p, "[{\\") {
		return "" // may hold any of the below in a way that does not matter
	}
	if strings.Contains(p, ";") {
		return "what follows a ; is not part of a path"
	}
	parts := strings.Split(p, "/")
	for i, part := range parts {
		if part == "." || part == ".." || part == "" && i > 0 && i < len(parts)-1 {
			return "// and dots are resolved before rules are asked"
		}
	}
	for i := 0; i < len(p); i++ {
		end := i
		for end < len(p) && p[end] == '%' {
			end = min(end+3, len(p))
		}
		if end == i {
			continue
		}
		if _, err := CanonicalPath("/"+p[i:end], encodedSlash); err != nil || !escapesUTF8(p[i:end]) {
			return "no path may have one of its escapes: of a control byte or a backslash, not UTF-8, or %2F without allow_encoded_slash"
		}
		i = end - 1
	}
	return ""
}
