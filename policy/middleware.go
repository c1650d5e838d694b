// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// RegexMiddleware is the one middleware that is built in.
const RegexMiddleware = "openshell/regex"

// builtinMiddleware is the prefix that no service's name has.
const builtinMiddleware = "openshell/"

// Middleware is one entry of network_middlewares: what requests to some hosts go
// through once the rules have let them pass.
type Middleware struct {
	// Key is the entry's key in the map, which refusals name; Name is for people
	// and defaults to Key.
	Key, Name string
	// Uses is RegexMiddleware or the name of a service of the operator's.
	Uses string
	// Order is when it runs among those of the same request: the lowest first.
	Order int32
	// FailOpen lets a request pass when the middleware fails.
	FailOpen bool
	// Include and Exclude select hosts; what Exclude matches is not selected.
	Include, Exclude []string
	// Patterns are RegexMiddleware's own, beside those that are built in.
	Patterns []string
	// Config is a service's, of the values that JSON has.
	Config map[string]any
	// Line is where the entry stands in its document.
	Line int
}

// stage is a compiled Middleware.
type stage struct {
	*Middleware
	include, exclude []hostPattern
}

func compileMiddlewares(in []Middleware) ([]stage, error) {
	var out []stage
	var errs []error
	for _, m := range in {
		s := stage{Middleware: &m}
		var err error
		if s.include, err = compileHosts(m.Include); err == nil {
			s.exclude, err = compileHosts(m.Exclude)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("middleware config %q: %w", m.Key, err))
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b stage) int { return cmp.Compare(a.Order, b.Order) })
	return out, errors.Join(errs...)
}

func compileHosts(patterns []string) (out []hostPattern, err error) {
	for _, p := range patterns {
		h, err := newHostPattern(p)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func (s *stage) selects(host []string) bool {
	return matchesAny(s.include, host) && !matchesAny(s.exclude, host)
}

// maySelect says whether a host that candidate matches may be selected. Where two
// patterns meet it is OpenShell's guess, which errs towards yes.
func (s *stage) maySelect(candidate *hostPattern) bool {
	return slices.ContainsFunc(s.include, func(in hostPattern) bool {
		if !in.overlaps(candidate) {
			return false
		}
		one := candidate
		if !one.literal {
			one = &in
		}
		return !slices.ContainsFunc(s.exclude, func(ex hostPattern) bool {
			if one.literal {
				return ex.match(strings.Split(one.source, "."))
			}
			return ex.source == "**" || ex.source == in.source || ex.source == candidate.source
		})
	})
}

// Middlewares are those that requests to host go through, in their order.
func (e *Engine) Middlewares(host string) (chain []*Middleware) {
	if len(e.stages) == 0 {
		return nil
	}
	labels := strings.Split(host, ".")
	for i := range e.stages {
		if e.stages[i].selects(labels) {
			chain = append(chain, e.stages[i].Middleware)
		}
	}
	return chain
}

// hostPattern is OpenShell's pattern of a host in a middleware's selector. It is
// another matcher than that of endpoints: each label is one of the selectors'
// dialect, and a label ** is one label or more.
type hostPattern struct {
	source string
	labels []labelPattern
	// literal says that it matches its own text alone.
	literal bool
}

// labelPattern is one label; tree is the label **.
type labelPattern struct {
	tree, literal bool
	source        string
	tokens        []globToken
}

func (l *labelPattern) match(s string) bool { return s != "" && matchTokens(l.tokens, s, '.') }

func newHostPattern(p string) (hostPattern, error) {
	h := hostPattern{source: asciiLower(p), literal: true}
	switch {
	case p == "":
		return h, errors.New("host pattern must not be empty")
	case len(p) > MaxGlob:
		return h, fmt.Errorf("host pattern is longer than %d bytes", MaxGlob)
	case strings.ContainsFunc(p, unicode.IsSpace):
		return h, errors.New("host pattern must not contain whitespace")
	case hasPort(p):
		return h, errors.New("host pattern must not have a port: a middleware sees the requests to every port of its hosts")
	case strings.ContainsAny(p, "{}"):
		return h, errors.New("host pattern must not contain brace alternates; list each host pattern separately")
	}
	for label := range strings.SplitSeq(h.source, ".") {
		l := labelPattern{source: label, tree: label == "**", literal: !strings.ContainsAny(label, "*?[")}
		h.literal = h.literal && l.literal
		ok := true
		if !l.tree {
			l.tokens, ok = selectorTokens(label)
		}
		switch {
		case label == "":
			return h, errors.New("host pattern must not contain empty DNS labels")
		case !ok:
			return h, fmt.Errorf("invalid host pattern: label %q is no pattern", label)
		}
		h.labels = append(h.labels, l)
	}
	return h, nil
}

// hasPort reports whether a host pattern has a colon that belongs to no IPv6 address.
func hasPort(pattern string) bool {
	_, err := netip.ParseAddr(pattern)
	return strings.Contains(pattern, ":") && err != nil
}

func matchesAny(patterns []hostPattern, host []string) bool {
	return slices.ContainsFunc(patterns, func(p hostPattern) bool { return p.match(host) })
}

func (h *hostPattern) match(host []string) bool {
	return meet(len(h.labels), len(host), func(i int) bool { return h.labels[i].tree }, func(int) bool { return false },
		func(i, j int) bool { return h.labels[i].match(host[j]) })
}

// overlaps says whether some host may match both. Two labels with stars always may.
func (h *hostPattern) overlaps(o *hostPattern) bool {
	return meet(len(h.labels), len(o.labels), func(i int) bool { return h.labels[i].tree }, func(j int) bool { return o.labels[j].tree },
		func(i, j int) bool {
			a, b := &h.labels[i], &o.labels[j]
			switch {
			case a.literal && b.literal:
				return a.source == b.source
			case a.literal:
				return b.match(a.source)
			case b.literal:
				return a.match(b.source)
			}
			return true
		})
}

// meet says whether two lists of labels of these lengths can be one host. A tree
// takes one label or more of the other list, and equal answers for a pair without
// one.
func meet(a, b int, treeA, treeB func(int) bool, equal func(i, j int) bool) bool {
	// can[j] is whether what is before i of the one and j of the other is one host.
	can := make([]bool, b+1)
	can[0] = true
	for i := range a {
		next := make([]bool, b+1)
		for j := range b {
			ta, tb := treeA(i), treeB(j)
			// Each step takes a label of both. A tree that has one may take more.
			next[j+1] = (ta || tb || equal(i, j)) && (can[j] || ta && next[j] || tb && can[j+1])
		}
		can = next
	}
	return can[b]
}
