// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
)

// compiledRule is one allow or deny rule.
type compiledRule struct {
	// method is in upper case. anyMethod is true for the method *.
	method    string
	anyMethod bool
	path      Glob
	// denied matches the path of a deny rule, which does not use path.
	denied denyPath
	query  []queryRule
	// text and line identify the rule to people.
	text string
	line int
}

func (r *compiledRule) allows(h *HTTP) bool {
	if !r.anyMethod && !sameMethod(r.method, h.Method) || !r.path.Match(h.Path) {
		return false
	}
	for i := range r.query {
		if !r.query[i].allows(h.RawQuery) {
			return false
		}
	}
	return true
}

func (r *compiledRule) denies(h *HTTP) bool {
	if !r.anyMethod && !sameMethod(r.method, h.Method) || !r.denied.covers(h.Path) {
		return false
	}
	for i := range r.query {
		if !r.query[i].denies(h.RawQuery) {
			return false
		}
	}
	return true
}

// sameMethod compares methods, ignoring ASCII case. A rule for GET matches HEAD, too.
func sameMethod(rule, method string) bool {
	return equalUpper(rule, method) || rule == "GET" && equalUpper("HEAD", method)
}

func equalUpper(upper, s string) bool {
	if len(upper) != len(s) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if upper[i] != c {
			return false
		}
	}
	return true
}

// ruleTree finds the rules that could match a path by the literal segments at the start of
// their patterns.
type ruleTree struct {
	rules    []*compiledRule
	children map[string]*ruleTree
}

// find walks down the path and returns the first rule that matches, or nil.
func (t *ruleTree) find(h *HTTP, deny bool) *compiledRule {
	rest := strings.TrimPrefix(h.Path, "/")
	for {
		for _, r := range t.rules {
			if deny && r.denies(h) || !deny && r.allows(h) {
				return r
			}
		}
		if len(t.children) == 0 || rest == "" {
			return nil
		}
		var segment string
		segment, rest, _ = strings.Cut(rest, "/")
		if t = t.children[segment]; t == nil {
			return nil
		}
	}
}

func (t *ruleTree) add(pattern string, r *compiledRule) {
	for _, segment := range literalSegments(pattern) {
		if t.children == nil {
			t.children = map[string]*ruleTree{}
		}
		next := t.children[segment]
		if next == nil {
			next = &ruleTree{}
			t.children[segment] = next
		}
		t = next
	}
	t.rules = append(t.rules, r)
}

// literalSegments returns the segments that every path matched by the pattern begins with.
// The pattern is in the spelling of canonicalPattern.
func literalSegments(pattern string) []string {
	rest, ok := strings.CutPrefix(pattern, "/")
	var out []string
	for ok && rest != "" {
		var segment string
		segment, rest, ok = strings.Cut(rest, "/")
		if strings.ContainsAny(segment, `*?[]{},\`) {
			break
		}
		out = append(out, segment)
	}
	return out
}

// ruleCompiler compiles the rules of one endpoint.
type ruleCompiler struct {
	rules, denials ruleTree
	// options holds the allow rules that name the method OPTIONS.
	options ruleTree
	errs    []error
}

func (c *ruleCompiler) add(rule Rule, deny bool, name string) {
	r := &compiledRule{method: strings.ToUpper(rule.Method), anyMethod: rule.Method == "*", line: rule.Line}
	pattern := rule.Path
	switch {
	// In OpenShell, a rule that lacks one of the two matches nothing. For an allow rule
	// that is safe. A deny rule that matches nothing is not, so the missing one matches
	// everything.
	case rule.Method != "" && rule.Path != "":
	case !deny:
		return
	default:
		r.anyMethod = r.anyMethod || rule.Method == ""
		if pattern == "" {
			pattern = "**"
		}
	}
	r.text = strings.TrimSpace(name + " " + rule.Method + " " + rule.Path)
	var err error
	if deny {
		r.denied, err = compileDenyPath(pattern)
	} else {
		r.path, err = compilePath(pattern)
	}
	if err != nil {
		c.fail(name+".path", err)
		return
	}
	for _, q := range rule.Query {
		if len(q.Globs) == 0 {
			c.fail(name+".query", errors.New("has no pattern for "+q.Key))
			return
		}
		compiled, err := compileQuery(q, deny)
		if err != nil {
			c.fail(name+".query."+q.Key, err)
			return
		}
		r.query = append(r.query, compiled)
	}
	canonical := canonicalPattern(pattern, ruleDialect)
	if deny {
		c.denials.add(canonical, r)
		if decoded := decodedPattern(pattern); decoded != canonical {
			c.denials.add(decoded, r)
		}
		return
	}
	c.rules.add(canonical, r)
	if r.method == "OPTIONS" {
		c.options.add(canonical, r)
	}
}

func (c *ruleCompiler) fail(where string, err error) {
	c.errs = append(c.errs, fmt.Errorf("%s: %w", where, err))
}

// presets holds the methods of each access preset, messagePresets those for WebSockets.
var (
	presets = map[Access][]string{
		AccessReadOnly:  {"GET", "HEAD", "OPTIONS"},
		AccessReadWrite: {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"},
		AccessFull:      {"*"},
	}
	messagePresets = map[Access][]string{
		AccessReadOnly:  {"GET"},
		AccessReadWrite: {"GET", MethodText},
		AccessFull:      {"*"},
	}
)

// compileRules compiles the allow and deny rules of an endpoint. An endpoint without a
// protocol can have rules, too: they count with those of other endpoints.
func compileRules(ep *Endpoint) (allow, deny, options ruleTree, err error) {
	var c ruleCompiler
	for i, r := range ep.Rules {
		c.add(r, false, fmt.Sprintf("rules[%d]", i))
	}
	options = c.options // an access names no method
	methods, known := presets[ep.Access]
	if ep.Protocol == ProtocolWebSocket {
		methods = messagePresets[ep.Access]
	}
	if !known && ep.Access != AccessNone {
		c.fail("access", fmt.Errorf("unknown preset %q", ep.Access))
	}
	if known && len(ep.Rules) > 0 {
		c.fail("access", errors.New("excludes rules: write one of them"))
	}
	for _, m := range methods {
		c.add(Rule{Method: m, Path: "**", Line: ep.Line}, false, "access: "+string(ep.Access))
	}
	for i, r := range ep.DenyRules {
		c.add(r, true, fmt.Sprintf("deny_rules[%d]", i))
	}
	return c.rules, c.denials, options, errors.Join(c.errs...)
}
