// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// The fields of OpenShell's schema that are not enforced, with the type of their values. A
// document may contain a field whose value equals its absence. A field without a type here
// may not occur at all.
var (
	unenforcedEndpoint = map[string]string{
		"persisted_queries":         "!!str",
		"graphql_persisted_queries": "!!map",
		"graphql_max_body_bytes":    "!!int",
		"json_rpc":                  "",
		"mcp":                       "",
	}
	unenforcedRule = map[string]string{
		"command":        "!!str",
		"operation_type": "!!str",
		"operation_name": "!!str",
		"fields":         "!!seq",
		"tool":           "!!null",
		"params":         "!!map",
	}
)

// unset refuses a field of unenforcedEndpoint or unenforcedRule whose value differs from
// the field's absence.
func (r *reader) unset(n *yaml.Node, what, tag string) {
	nothing := []string{"", "false", "0"}
	if n.Tag != tag || len(n.Content) > 0 || tag != "!!null" && !slices.Contains(nothing, n.Value) {
		r.fail(n, what+" is not enforced by this version, so a policy that sets it is refused", "")
	}
}

// protocol reads the field protocol and refuses the protocols that are not enforced.
func (e *endpointReader) protocol(n *yaml.Node) {
	switch p := e.str(n, e.where()+": protocol"); p {
	case "", "tcp", "rest", "websocket":
		e.Protocol = Protocol(p)
	case "sql":
		e.fail(n, e.invalid("protocol sql is not enforced by this version, and OpenShell does not inspect it either: every statement would pass"),
			"leave protocol out to allow the whole connection")
	case "graphql", "json-rpc", "mcp":
		e.fail(n, e.invalid("protocol "+p+" is not enforced by this version, so a policy that has it is refused"), "")
	default:
		const all = "tcp, rest, websocket, graphql, sql, json-rpc, or mcp"
		known := slices.Values([]string{"tcp", "rest", "websocket", "graphql", "sql", "json-rpc", "mcp"})
		fix := ""
		if near := nearest(asciiLower(p), known); near != "" {
			fix = "did you mean \"" + near + "\"?"
		}
		e.fail(n, e.invalid("unknown protocol '"+p+"' (expected "+all+")"), fix)
	}
}
