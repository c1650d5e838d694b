// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
)

// remote is a kind of request with an effect outside the sandbox: the service executes the
// content, passes it on to others, or stores it for any tenant.
type remote struct {
	// what names the effect in a warning, and why says what follows from it.
	what, why string
	requests  []remoteRequest
}

// remoteRequest matches requests by their host, method and path.
type remoteRequest struct {
	// hosts are names or patterns of the service.
	hosts        []string
	method, path string
	// example is a path that the pattern matches. It is used to test deny rules.
	example string
	// mark, if it is not empty, identifies the request at any host: a rule whose path
	// contains mark allows it.
	mark string
}

// nobody stands for a tenant that no policy names.
const nobody = "tenant-that-no-policy-names"

// remotes lists the services that policies usually name. Private forges and registries are
// recognized by the paths of rules.
var remotes = []remote{
	{
		"git push", "the forge's CI runs what is pushed (.github/workflows and the like), with its own secrets and network; protect the branches, or push to a fork without CI",
		[]remoteRequest{
			{[]string{"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "dev.azure.com"}, "POST", "/**/git-receive-pack", "/owner/repo.git/git-receive-pack", "git-"},
		},
	},
	{
		"changing files or starting workflows through the forge's API", "the forge's CI runs them, with its own secrets and network",
		[]remoteRequest{
			{[]string{"api.github.com"}, "PUT", "/repos/*/*/contents/**", "/repos/owner/repo/contents/file", ""},
			{[]string{"api.github.com"}, "POST", "/repos/*/*/git/**", "/repos/owner/repo/git/refs", ""},
			{[]string{"api.github.com"}, "PATCH", "/repos/*/*/git/**", "/repos/owner/repo/git/refs/heads/main", ""},
			{[]string{"api.github.com"}, "PUT", "/repos/*/*/pulls/*/merge", "/repos/owner/repo/pulls/1/merge", ""},
			{[]string{"api.github.com"}, "POST", "/repos/*/*/actions/**", "/repos/owner/repo/actions/workflows/1/dispatches", ""},
			{[]string{"api.github.com"}, "POST", "/repos/*/*/dispatches", "/repos/owner/repo/dispatches", ""},
			{[]string{"api.github.com"}, "POST", "/graphql", "/graphql", ""},
			{[]string{"gitlab.com"}, "POST", "/api/v4/projects/*/repository/**", "/api/v4/projects/1/repository/commits", ""},
			{[]string{"gitlab.com"}, "PUT", "/api/v4/projects/*/repository/**", "/api/v4/projects/1/repository/files/f", ""},
			{[]string{"gitlab.com"}, "POST", "/api/v4/projects/*/{pipeline,trigger/pipeline}", "/api/v4/projects/1/pipeline", ""},
			{[]string{"gitlab.com"}, "POST", "/api/graphql", "/api/graphql", ""},
		},
	},
	{
		"publishing packages or images", "whoever installs or starts them runs what was published",
		[]remoteRequest{
			{[]string{"registry.npmjs.org", "npm.pkg.github.com"}, "PUT", "/**", "/package", ""},
			{[]string{"upload.pypi.org"}, "POST", "/legacy/", "/legacy/", ""},
			{[]string{"crates.io"}, "PUT", "/api/v1/crates/new", "/api/v1/crates/new", ""},
			{[]string{"rubygems.org"}, "POST", "/api/v1/gems", "/api/v1/gems", ""},
			{[]string{"registry-*.docker.io", "registry.gitlab.com"}, "PUT", "/v2/**/manifests/*", "/v2/name/manifests/latest", "/manifests/"},
		},
	},
	{
		"writing to the storage of any tenant", "the host's tenants are told apart by the path alone; name the bucket or repository in the paths of rules",
		[]remoteRequest{
			{[]string{"s3.amazonaws.com", "s3.*.amazonaws.com", "s3-*.amazonaws.com", "storage.googleapis.com"}, "PUT", "/" + nobody + "/**", "/" + nobody + "/object", ""},
			{[]string{"storage.googleapis.com"}, "POST", "/upload/storage/v1/b/" + nobody + "/o", "/upload/storage/v1/b/" + nobody + "/o", ""},
			{[]string{"huggingface.co"}, "POST", "/api/{models,datasets,spaces}/" + nobody + "/*/commit/*", "/api/models/" + nobody + "/model/commit/main", ""},
		},
	},
}

// remotes warns once of each listed effect that the endpoint e of n allows.
func (l *linter) remotes(n *NetworkPolicy, e *Endpoint) {
	for i := range remotes {
		what := &remotes[i]
		for j := range what.requests {
			if line := l.allows(n, e, &what.requests[j]); line != 0 {
				l.warn(line, "%s is allowed at %s: %s", what.what, e.Host, what.why)
				break
			}
		}
	}
}

// allows returns the line of the rule or endpoint that allows one of the requests, or 0.
func (l *linter) allows(n *NetworkPolicy, e *Endpoint, r *remoteRequest) int {
	known := isHost(e.Host, r.hosts)
	if e.Protocol == ProtocolWebSocket || !known && r.mark == "" {
		return 0
	}
	if !e.Protocol.judges() {
		if !known || judged(n, e) {
			return 0
		}
		return e.Line
	}
	path := tokens(r.path, '/', ruleDialect)
	if e.Path != "" && !l.overlaps(canonicalPattern(e.Path, ruleDialect), path) {
		return 0
	}
	for _, m := range presets[e.Access] {
		if known && (m == "*" || m == r.method) && !l.denies(e.Host, r.method, r.example) {
			return e.Line
		}
	}
	for _, rule := range e.Rules {
		method, pattern := strings.ToUpper(rule.Method), canonicalPattern(rule.Path, ruleDialect)
		if pattern == "" || method != "*" && method != r.method || !known && !strings.Contains(pattern, r.mark) || !l.overlaps(pattern, path) {
			continue
		}
		example := r.example
		if !strings.ContainsAny(pattern, `*?[{\`) {
			example = pattern
		}
		if !l.denies(e.Host, r.method, example) {
			return rule.Line
		}
	}
	return 0
}

// overlaps reports whether a path may match both patterns. pattern is in the spelling of
// canonicalPattern. If the budget of work is used up, it returns false, so that there is no
// warning.
func (l *linter) overlaps(pattern string, path []step) bool {
	return l.work > 0 && overlap(tokens(pattern, '/', ruleDialect), path, &l.work) && l.work > 0
}

// denies reports whether a deny rule of an endpoint for the host matches the request.
func (l *linter) denies(host, method, path string) bool {
	for i := range l.network {
		for j := range l.network[i].Endpoints {
			e := &l.network[i].Endpoints[j]
			if e.Host != host {
				continue
			}
			for _, r := range e.DenyRules {
				d, err := compileDenyPath(r.Path)
				if (r.Method == "*" || strings.EqualFold(r.Method, method)) && len(r.Query) == 0 && (r.Path == "" || err == nil && d.covers(path)) {
					return true
				}
			}
		}
	}
	return false
}

// judged reports whether another endpoint of n judges requests to e's host. An endpoint
// without rules then allows no further requests.
func judged(n *NetworkPolicy, e *Endpoint) bool {
	for i := range n.Endpoints {
		if n.Endpoints[i].Protocol.judges() && n.Endpoints[i].Host == e.Host {
			return true
		}
	}
	return false
}

// isHost reports whether host, a name or a pattern, is one of the services or matches one.
// It does not compare two patterns.
func isHost(host string, services []string) bool {
	for _, s := range services {
		pattern, name := s, host
		if strings.Contains(host, "*") {
			pattern, name = host, s
		}
		if g, err := CompileGlob(pattern, '.'); err == nil && !strings.Contains(name, "*") && g.Match(name) {
			return true
		}
	}
	return false
}
