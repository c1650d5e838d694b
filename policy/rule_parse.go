// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"

	"gopkg.in/yaml.v3"
)

func (r *reader) allowRules(n *yaml.Node, where string) []Rule {
	return r.ruleList(n, where, func(n *yaml.Node, where string) (rule Rule) {
		found := false
		r.fields(n, where, map[string]func(*yaml.Node){
			"allow": func(v *yaml.Node) { found, rule = true, r.rule(v, where+".allow") },
		})
		if !found && n.Kind == yaml.MappingNode {
			r.fail(n, where+" has no allow", "write - allow: {method: …, path: …}")
		}
		return rule
	})
}

func (r *reader) denyRules(n *yaml.Node, where string) []Rule {
	return r.ruleList(n, where, func(n *yaml.Node, where string) Rule {
		rule := r.rule(n, where)
		if rule.Method == "" && n.Kind == yaml.MappingNode {
			r.fail(n, where+" has no method, so it would deny nothing", `write method: "*" for all`)
		}
		return rule
	})
}

func (r *reader) ruleList(n *yaml.Node, where string, read func(*yaml.Node, string) Rule) (rules []Rule) {
	for i, v := range r.list(n, where, MaxRules) {
		if r.full() || !r.more(&r.rules, MaxRules, v, "rules") {
			break
		}
		rule := read(v, where+"["+strconv.Itoa(i)+"]")
		rule.Line = v.Line
		rules = append(rules, rule)
	}
	return rules
}

func (r *reader) rule(n *yaml.Node, where string) (rule Rule) {
	known := map[string]func(*yaml.Node){
		"method": func(v *yaml.Node) { rule.Method = r.str(v, where+".method") },
		"path": func(v *yaml.Node) {
			rule.Path = r.str(v, where+".path")
			r.pathGlob(v, rule.Path)
		},
		"query": func(v *yaml.Node) {
			r.entries(v, where+".query", func(k, v *yaml.Node) {
				globs := r.queryGlobs(v, where+".query."+k.Value)
				rule.Query = append(rule.Query, QueryRule{Key: k.Value, Globs: globs})
			})
		},
	}
	for i := 0; i < len(n.Content); i += 2 {
		if known[n.Content[i].Value] != nil {
			continue
		}
		for name, tag := range unenforcedRule {
			known[name] = func(v *yaml.Node) { r.unset(v, where+"."+name, tag) }
		}
		break
	}
	r.fields(n, where, known)
	return rule
}

// queryGlobs reads "glob" or {any: ["glob", …]}.
func (r *reader) queryGlobs(n *yaml.Node, where string) (globs []string) {
	one := func(v *yaml.Node, where string) {
		if r.more(&r.globs, MaxQueryGlobs, v, "query patterns") {
			if v.Kind == yaml.ScalarNode && v.Tag != "!!str" && v.Tag != "!!null" {
				// YAML readers differ in what 010, 1e3 and yes are, and OpenShell's accepts
				// only strings.
				r.fail(v, fmt.Sprintf("%s must be a string, got %s", where, v.Value), fmt.Sprintf("write %q", v.Value))
				return
			}
			s := r.str(v, where)
			_, err := compileQueryGlob(s)
			r.pattern(v, err)
			globs = append(globs, s)
		}
	}
	if n.Kind != yaml.MappingNode {
		one(n, where)
		return globs
	}
	found := false
	r.fields(n, where, map[string]func(*yaml.Node){
		"any": func(v *yaml.Node) {
			found = true
			if v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				r.fail(v, where+".any: list must not be empty", "")
			}
			for _, e := range r.list(v, where+".any", MaxQueryGlobs) {
				one(e, where+".any")
			}
		},
	})
	if !found {
		r.fail(n, where+" has no pattern", `write "glob" or {any: ["glob", …]}`)
	}
	return globs
}
