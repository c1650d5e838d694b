// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
)

// remote are requests to services that have an effect out of the sandbox's reach: the
// service runs what it is sent, passes it on to others, or takes it for any tenant.
type remote struct {
	// what names the effect, why says what follows.
	what, why string
	requests  []remoteRequest
}

// remoteRequest is some requests: a method, and a pattern of the path.
type remoteRequest struct {
	// hosts are names or patterns of the service.
	hosts        []string
	method, path string
	// example is a path that the pattern matches, by which deny rules are asked.
	example string
	// mark, if any, is a part of a rule's path that says at any host which request is
	// meant.
	mark string
}

// nobody is a tenant that no policy names.
const nobody = "tenant-that-no-policy-names"

// remotes is a short list of the services that policies usually name. A forge or a
// registry of one's own is known by the paths of rules alone.
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

// remotes warns of what an endpoint of n allows at the services of the list, once for
// each effect.
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

// allows is the line of the rule, or of the endpoint, that allows some of the requests;
// 0 if none does, or if that cannot be said.
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
	if e.Path != "" && !l.overlaps(e.Path, path) {
		return 0
	}
	for _, m := range presets[e.Access] {
		if known && (m == "*" || m == r.method) && !l.denies(e.Host, r.method, r.example) {
			return e.Line
		}
	}
	for _, rule := range e.Rules {
		method := strings.ToUpper(rule.Method)
		if rule.Path == "" || method != "*" && method != r.method || !known && !strings.Contains(rule.Path, r.mark) || !l.overlaps(rule.Path, path) {
			continue
		}
		example := r.example
		if !strings.ContainsAny(rule.Path, `*?[{\`) {
			example = rule.Path
		}
		if !l.denies(e.Host, r.method, example) {
			return rule.Line
		}
	}
	return 0
}

// overlaps says whether a path may match both patterns. When the work is used up it
// does not, for want of a reason to warn.
func (l *linter) overlaps(pattern string, path []step) bool {
	return l.work > 0 && overlap(tokens(pattern, '/', ruleDialect), path, &l.work) && l.work > 0
}

// denies says whether a deny rule of some endpoint for the host is about the request.
func (l *linter) denies(host, method, path string) bool {
	for i := range l.network {
		for j := range l.network[i].Endpoints {
			e := &l.network[i].Endpoints[j]
			if e.Host != host {
				continue
			}
			for _, r := range e.DenyRules {
				g, err := CompileGlob(r.Path, '/')
				if (r.Method == "*" || strings.EqualFold(r.Method, method)) && len(r.Query) == 0 && (r.Path == "" || err == nil && g.Match(path)) {
					return true
				}
			}
		}
	}
	return false
}

// judged says whether another endpoint of n has the requests to e's host judged, which
// leaves an endpoint without rules nothing to allow.
func judged(n *NetworkPolicy, e *Endpoint) bool {
	for i := range n.Endpoints {
		if n.Endpoints[i].Protocol.judges() && n.Endpoints[i].Host == e.Host {
			return true
		}
	}
	return false
}

// isHost says whether host, a name or a pattern, is or matches one of the services. A
// pattern is not compared with another pattern.
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
