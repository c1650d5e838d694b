// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"slices"
)

// How well a route matches a model.
const (
	matchNot     = iota
	matchDefault // takes any
	matchPattern
	matchName // an alias of this name
)

func (r *route) matches(c *call, model string) int {
	if r.caller != c.dialect || (len(r.Match.Paths) > 0 && !slices.Contains(r.Match.Paths, c.pattern)) {
		return matchNot
	}
	if r.Dialect == VertexClaude && c.method != http.MethodPost {
		return matchNot // it has no list of models
	}
	if _, ok := r.Aliases[model]; ok && model != "" {
		return matchName
	}
	if r.models == nil {
		return matchDefault
	}
	if model != "" && r.models.MatchString(model) {
		return matchPattern
	}
	return matchNot
}

// choose returns the routes to try for a call, best first, nil if none is for it.
func (r *Router) choose(c *call, model string) []*route {
	best := matchDefault
	var candidates []*route
	for _, rt := range r.routes {
		if rt.Reserve {
			continue
		}
		switch m := rt.matches(c, model); {
		case m > best:
			best, candidates = m, append(candidates[:0], rt)
		case m == best:
			candidates = append(candidates, rt)
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	return withFallbacks(r.turns.next(candidates))
}

// withFallbacks is rt, then what it falls back to, then what those fall back to.
func withFallbacks(rt *route) []*route {
	order := []*route{rt}
	for i := 0; i < len(order); i++ {
		for _, f := range order[i].fallbacks {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order
}
