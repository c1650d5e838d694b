// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The messages in this file are OpenShell's, where it has one for the error.

func (r *reader) middlewares(n *yaml.Node) []Middleware {
	var out []Middleware
	count := 0
	orders := map[int32]string{}
	r.entries(n, "network_middlewares", func(k, v *yaml.Node) {
		if count++; count > MaxMiddlewares {
			if count == MaxMiddlewares+1 {
				r.fail(k, fmt.Sprintf("too many middleware configs (%d > %d)", len(n.Content)/2, MaxMiddlewares), "")
			}
			return
		}
		m := &middlewareReader{reader: r, Middleware: Middleware{Key: k.Value, Name: k.Value, Line: k.Line}}
		m.read(k, v)
		if first, ok := orders[m.Order]; ok {
			r.fail(k, fmt.Sprintf("middleware configs '%s' and '%s' use duplicate order %d", first, k.Value, m.Order), "")
		}
		orders[m.Order] = k.Value
		out = append(out, m.Middleware)
	})
	slices.SortFunc(out, func(a, b Middleware) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// middlewareReader reads one entry.
type middlewareReader struct {
	*reader
	Middleware
}

// invalid refuses the entry because of the value at n.
func (m *middlewareReader) invalid(n *yaml.Node, reason, fix string) {
	m.fail(n, fmt.Sprintf("middleware config '%s' is invalid: %s", m.Key, reason), fix)
}

func (m *middlewareReader) read(k, n *yaml.Node) {
	where := "network_middlewares." + m.Key
	var endpoints, config *yaml.Node
	uses := k
	if m.Key == "" {
		m.invalid(k, "name must not be empty", "")
	}
	m.fields(n, where, map[string]func(*yaml.Node){
		"name": func(v *yaml.Node) {
			if s := m.str(v, where+".name"); len(s) > MaxKey {
				m.fail(v, fmt.Sprintf("%s.name is longer than %d bytes", where, MaxKey), "")
			} else if s != "" {
				m.Name = s
			}
		},
		"middleware": func(v *yaml.Node) { uses, m.Uses = v, m.str(v, where+".middleware") },
		"order": func(v *yaml.Node) {
			order, err := strconv.ParseInt(v.Value, 10, 32)
			if v.Tag != "!!int" || err != nil {
				m.fail(v, where+".order must be a whole number of 32 bits", "")
			}
			m.Order = int32(order)
		},
		"on_error": func(v *yaml.Node) {
			m.FailOpen = m.word(v, where+".on_error", "fail_closed", "fail_open") == "fail_open"
		},
		"endpoints": func(v *yaml.Node) { endpoints = v },
		"config":    func(v *yaml.Node) { config = v },
	})
	switch {
	case m.Uses == "":
		m.invalid(uses, "middleware must not be empty", "")
	case len(m.Uses) > MaxKey:
		m.invalid(uses, fmt.Sprintf("middleware is longer than %d bytes", MaxKey), "")
	case m.Uses == RegexMiddleware:
		if config != nil {
			m.regex(config, where+".config")
		}
	case strings.HasPrefix(m.Uses, builtinMiddleware):
		m.invalid(uses, fmt.Sprintf("there is no built-in middleware '%s'", m.Uses), "the only one is "+RegexMiddleware)
	case config != nil:
		m.config(config, where+".config")
	}
	if endpoints == nil {
		m.invalid(k, "endpoint selector is required", "")
		return
	}
	m.selector(endpoints, where+".endpoints")
}

// selector reads the host patterns of the middleware.
func (m *middlewareReader) selector(n *yaml.Node, where string) {
	count := 0
	list := func(name string, into *[]string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			for _, e := range m.list(v, where+"."+name, MaxSelector+1) {
				p := m.str(e, where+"."+name)
				if _, err := newHostPattern(p); err != nil {
					m.invalid(e, fmt.Sprintf("endpoint selector pattern '%s' is invalid: %v", p, err), "")
				}
				*into = append(*into, p)
				count++
			}
		}
	}
	m.fields(n, where, map[string]func(*yaml.Node){"include": list("include", &m.Include), "exclude": list("exclude", &m.Exclude)})
	if len(m.Include) == 0 {
		m.invalid(n, "endpoint selector must include at least one host pattern", "")
	}
	if count > MaxSelector {
		m.fail(n, fmt.Sprintf("middleware config '%s' has too many selector patterns (%d > %d)", m.Key, count, MaxSelector), "")
	}
}

// regex reads the config of openshell/regex. OpenShell's config has no patterns.
func (m *middlewareReader) regex(n *yaml.Node, where string) {
	m.fields(n, where, map[string]func(*yaml.Node){
		"mode": func(v *yaml.Node) {
			if v.Tag != "!!str" || v.Value != "redact" {
				m.invalid(v, fmt.Sprintf("invalid %s config: mode %q", RegexMiddleware, v.Value), "the only mode is redact")
			}
		},
		"patterns": func(v *yaml.Node) {
			for _, e := range m.list(v, where+".patterns", MaxRegexes) {
				p := m.str(e, where+".patterns")
				if len(p) > MaxRegex {
					m.fail(e, fmt.Sprintf("%s.patterns: a pattern is longer than %d bytes", where, MaxRegex), "")
				} else if re, err := regexp.Compile(p); err != nil {
					m.invalid(e, err.Error(), "patterns are written as for RE2")
				} else if re.MatchString("") {
					m.invalid(e, fmt.Sprintf("pattern %q matches the empty text, so it matches everywhere", p), "")
				}
				m.Patterns = append(m.Patterns, p)
			}
		},
	})
}

// config reads the configuration of a service.
func (m *middlewareReader) config(n *yaml.Node, where string) {
	v, ok := m.value(n, where)
	c, isObject := v.(map[string]any)
	if !ok {
		return
	}
	if !isObject {
		m.fail(n, where+" must be a mapping", "")
		return
	}
	if text, err := json.Marshal(c); err != nil || len(text) > MaxMiddlewareConfig {
		m.fail(n, fmt.Sprintf("%s is larger than %d bytes, or contains a number that JSON cannot represent", where, MaxMiddlewareConfig), "")
	}
	m.Config = c
}

// value converts n to the JSON type of its value. It returns false if n has an error.
func (m *middlewareReader) value(n *yaml.Node, where string) (any, bool) {
	errs := len(m.errs)
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		m.entries(n, where, func(k, v *yaml.Node) { out[k.Value], _ = m.value(v, where+"."+k.Value) })
		return out, len(m.errs) == errs
	case yaml.SequenceNode:
		out := []any{}
		for _, e := range n.Content {
			v, _ := m.value(e, where)
			out = append(out, v)
		}
		return out, len(m.errs) == errs
	case yaml.ScalarNode:
		var b bool
		var f float64
		switch {
		case n.Tag == "!!null":
			return nil, true
		case n.Tag == "!!bool" && n.Decode(&b) == nil:
			return b, true
		case (n.Tag == "!!int" || n.Tag == "!!float") && n.Decode(&f) == nil:
			return f, true
		}
		return m.str(n, where), len(m.errs) == errs
	default:
		m.fail(n, "YAML aliases are not accepted in policies", "")
		return nil, false
	}
}

// uninspectable refuses middlewares for endpoints whose settings forbid to decrypt the
// traffic that the middlewares have to see.
func (r *reader) uninspectable(p *Policy) {
	stages, _ := compileMiddlewares(p.Middlewares) // selector has reported errors in the patterns
	slices.SortFunc(stages, func(a, b stage) int { return cmp.Compare(a.Key, b.Key) })
	for _, s := range stages {
		if s.FailOpen {
			continue
		}
		for _, n := range p.Network {
			for i := range n.Endpoints {
				e := &n.Endpoints[i]
				host, err := newHostPattern(e.Host)
				if e.TLSSkip && err == nil && s.maySelect(&host) {
					r.fail(&yaml.Node{Line: e.Line, Column: 1}, fmt.Sprintf("middleware config '%s' selects network policy '%s' tls: skip endpoint '%s'", s.Key, n.Name, e.Host),
						"exclude the host, or write on_error: fail_open")
				}
			}
		}
	}
}
