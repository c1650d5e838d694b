// SPDX-License-Identifier: Apache-2.0

package policy

// Limits of a document, as OpenShell sets them.
const (
	// MaxSize bounds the document, in bytes.
	MaxSize = 4 << 20
	// MaxPathLength bounds one path, in bytes.
	MaxPathLength = 4096
	// MaxPaths bounds the paths of both lists together.
	MaxPaths = 256
	// MaxMiddlewares bounds the entries of network_middlewares, MaxSelector the host
	// patterns of one, and MaxMiddlewareConfig its config as JSON, in bytes.
	MaxMiddlewares      = 10
	MaxSelector         = 32
	MaxMiddlewareConfig = 64 << 10
)

// Limits of a document that OpenShell does not have: no document can keep its
// reader busy.
const (
	// MaxDepth bounds how deep lists and mappings nest. The schema needs 13.
	MaxDepth = 32
	// MaxKey bounds a key, and the name of a policy, in bytes.
	MaxKey = 1024
	// MaxMessage bounds one message about a document, in bytes.
	MaxMessage = 4096
	// MaxPolicies bounds the entries of network_policies.
	MaxPolicies = 10_000
	// MaxEndpoints bounds the endpoints of all entries together.
	MaxEndpoints = 10_000
	// MaxBinaries bounds the binaries of all entries together.
	MaxBinaries = 10_000
	// MaxRules bounds the rules and deny_rules of all endpoints together.
	MaxRules = 50_000
	// MaxQueryGlobs bounds the query patterns of all rules together.
	MaxQueryGlobs = 50_000
	// MaxPorts bounds the ports of one endpoint.
	MaxPorts = 1024
	// MaxAllowedIPs bounds the allowed_ips of one endpoint.
	MaxAllowedIPs = 1024
	// MaxRegexes bounds the patterns of one openshell/regex, MaxRegex each of them,
	// in bytes.
	MaxRegexes = 32
	MaxRegex   = 1024
	// MaxProblems bounds what one error reports.
	MaxProblems = 100
	// MaxOverlapWork bounds the search for endpoints that contradict each other,
	// in steps of some 10 ns.
	MaxOverlapWork = 1 << 26
)
