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

// RegexMiddleware is the only built-in middleware.
const RegexMiddleware = "openshell/regex"

// builtinMiddleware is a prefix that the name of a service never has.
const builtinMiddleware = "openshell/"

// Middleware is one entry of network_middlewares: a program that processes the requests to
// some hosts after the rules have allowed them.
type Middleware struct {
	// Key is the entry's key in the map; refusals name it. Name is for people; if the
	// document has none, it is Key.
	Key, Name string
	// Uses is [RegexMiddleware] or the name of a service that the operator has configured.
	Uses string
	// Order decides which middleware of a request runs first: the one with the lowest
	// value.
	Order int32
	// FailOpen lets a request pass if the middleware fails.
	FailOpen bool
	// Include and Exclude are host patterns. A host is selected if it matches Include and
	// does not match Exclude.
	Include, Exclude []string
	// Patterns are the regular expressions of [RegexMiddleware], in addition to its
	// built-in ones.
	Patterns []string
	// Config is the configuration of a service. It holds the types of JSON values.
	Config map[string]any
	// Line is the entry's line in its document.
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

// maySelect reports whether a host that matches candidate may be selected. For two patterns
// it uses OpenShell's approximation, which returns true in case of doubt.
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

// Middlewares returns the middlewares for requests to host, in the order in which they run.
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

// hostPattern is OpenShell's host pattern in a middleware's selector. It differs from the
// patterns of endpoints: each label is a pattern of its own in the selectors' dialect, and
// the label ** matches one or more labels.
type hostPattern struct {
	source string
	labels []labelPattern
	// literal is true if the pattern matches only its own text.
	literal bool
}

// labelPattern is the pattern of one label. tree is true for the label **.
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

// hasPort reports whether a host pattern has a colon that is not part of an IPv6 address.
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

// overlaps reports whether some host may match both patterns. It returns true for any two
// labels with stars.
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

// meet reports whether two lists of a and b labels can match the same host. A tree label
// matches one or more labels of the other list. equal compares two labels that are not
// trees.
func meet(a, b int, treeA, treeB func(int) bool, equal func(i, j int) bool) bool {
	// can[j] is true if the first i labels of the one list and the first j of the other can
	// match the same labels.
	can := make([]bool, b+1)
	can[0] = true
	for i := range a {
		next := make([]bool, b+1)
		for j := range b {
			ta, tb := treeA(i), treeB(j)
			// Each step consumes a label of both lists. A tree label can consume more.
			next[j+1] = (ta || tb || equal(i, j)) && (can[j] || ta && next[j] || tb && can[j+1])
		}
		can = next
	}
	return can[b]
}
