// SPDX-License-Identifier: Apache-2.0

package policy

// Limits of a document that OpenShell has, too.
const (
	// MaxSize is the largest size of a document in bytes.
	MaxSize = 4 << 20
	// MaxPathLength is the length of the longest path in bytes.
	MaxPathLength = 4096
	// MaxPaths is the largest number of paths in both lists together.
	MaxPaths = 256
	// MaxMiddlewares is the largest number of entries of network_middlewares, MaxSelector
	// that of the host patterns of one entry, and MaxMiddlewareConfig the largest size of
	// its config as JSON in bytes.
	MaxMiddlewares      = 10
	MaxSelector         = 32
	MaxMiddlewareConfig = 64 << 10
)

// Limits of a document that OpenShell does not have. They bound the time and the memory
// that a document can cost.
const (
	// MaxDepth is the largest nesting depth of lists and mappings. The schema needs 13.
	MaxDepth = 32
	// MaxKey is the length of the longest key or policy name in bytes.
	MaxKey = 1024
	// MaxMessage is the length of the longest error message in bytes.
	MaxMessage = 4096
	// MaxPolicies is the largest number of entries of network_policies.
	MaxPolicies = 10_000
	// MaxEndpoints is the largest number of endpoints in all entries together.
	MaxEndpoints = 10_000
	// MaxBinaries is the largest number of binaries in all entries together.
	MaxBinaries = 10_000
	// MaxRules is the largest number of rules and deny_rules of all endpoints together.
	MaxRules = 50_000
	// MaxQueryGlobs is the largest number of query patterns of all rules together.
	MaxQueryGlobs = 50_000
	// MaxPorts is the largest number of ports of one endpoint.
	MaxPorts = 1024
	// MaxAllowedIPs is the largest number of allowed_ips of one endpoint.
	MaxAllowedIPs = 1024
	// MaxRegexes is the largest number of patterns of one openshell/regex, and MaxRegex the
	// length of the longest one in bytes.
	MaxRegexes = 32
	MaxRegex   = 1024
	// MaxProblems is the largest number of problems that one error reports.
	MaxProblems = 100
	// MaxOverlapWork is the largest number of steps, of about 10 ns each, in the search for
	// endpoints that contradict each other.
	MaxOverlapWork = 1 << 26
)
