// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestBypass_B92_PushesThatRunElsewhere: Lint warns where a policy allows requests whose
// content a service runs, passes on, or stores for any tenant, and nowhere else.
func TestBypass_B92_PushesThatRunElsewhere(t *testing.T) {
	const push, api, publish, storage = "git push", "changing files or starting workflows through the forge's API", "publishing packages or images", "writing to the storage of any tenant"
	rules := func(list string) string { return "protocol: rest, enforcement: enforce, rules: [" + list + "]" }
	access := func(a string) string { return "protocol: rest, enforcement: enforce, access: " + a }
	allow := func(method, path string) string {
		return fmt.Sprintf("{allow: {method: %q, path: %q}}", method, path)
	}
	for _, tc := range []struct{ name, host, rest, want string }{
		{"a push to one repository", "github.com", rules(allow("POST", "/o/r{,.git}/git-receive-pack")), push},
		{"push and fetch in one pattern", "github.com", rules(allow("post", "/o/r/git-*-pack")), push},
		{"everything of a repository", "gitlab.com", rules(allow("*", "/o/r/**")), push},
		{"a preset that writes", "github.com", access("read-write"), push},
		{"a full preset", "codeberg.org", access("full"), push},
		{"a connection", "github.com", "tls: auto", push},
		{"raw TCP", "github.com", "protocol: tcp", push},
		{"a wildcard over a forge", "*.azure.com", "tls: auto", push},
		{"a name below a forge", "*.github.com", access("full"), api},
		{"a forge of one's own", "git.example.com", rules(allow("POST", "/o/r.git/git-receive-pack")), push},
		{"a forge of one's own, by a preset", "git.example.com", access("full"), ""},
		{"a connection to a host of one's own", "git.example.com", "tls: auto", ""},
		{"everything of a host of one's own", "git.example.com", rules(allow("POST", "/**")), ""},
		{"reading", "github.com", access("read-only"), ""},
		{"fetching", "github.com", rules(allow("GET", "/**") + ", " + allow("POST", "/o/*/git-upload-pack")), ""},
		{"a rule that matches nothing", "github.com", rules(allow("POST", "")), ""},
		{"another part of the host", "github.com", "path: /login, " + access("full"), ""},
		{"a part of the host", "github.com", "path: /o/**, " + access("full"), push},
		{"a WebSocket", "github.com", "protocol: websocket, enforcement: enforce, access: full", ""},
		{"a deny rule", "github.com", access("full") + `, deny_rules: [{method: POST, path: "/**/git-receive-pack"}]`, ""},
		{"a deny rule that covers the path by its base", "github.com", rules(allow("POST", "/o/r/git-receive-pack")) + `, deny_rules: [{method: POST, path: "/o/r/git-receive-pack/**"}]`, ""},
		{"a deny rule in another spelling", "github.com", rules(allow("POST", "/@o/r/git-receive-pack")) + `, deny_rules: [{method: POST, path: "/%40o/r/git-receive-pack"}]`, ""},
		{"a rule in another spelling", "git.example.com", rules(allow("POST", "/o/r/git%2Dreceive%2Dpack")), push},
		{"a deny rule for another method", "github.com", access("full") + `, deny_rules: [{method: PUT, path: "/**/git-receive-pack"}]`, push},
		{"a deny rule for some queries", "github.com", access("full") + `, deny_rules: [{method: "*", query: {a: b}}]`, push},
		{"a deny rule for the literal path", "github.com", rules(allow("POST", "/o/r/git-receive-pack")) + `, deny_rules: [{method: "*", path: "/o/**"}]`, ""},
		{"files by the API", "api.github.com", rules(allow("PUT", "/repos/o/r/contents/**")), api},
		{"a workflow by the API", "api.github.com", rules(allow("POST", "/repos/o/r/actions/workflows/*/dispatches")), api},
		{"GraphQL", "api.github.com", rules(allow("POST", "/graphql")), api},
		{"GitLab's API", "gitlab.com", rules(allow("PUT", "/api/v4/projects/7/repository/files/a")), api},
		{"issues by the API", "api.github.com", rules(allow("GET", "/**") + ", " + allow("POST", "/repos/o/r/issues")), ""},
		{"npm publish", "registry.npmjs.org", rules(allow("PUT", "/@scope%2fname")), publish},
		{"npm audit", "registry.npmjs.org", rules(allow("GET", "/**") + ", " + allow("POST", "/-/npm/v1/security/**")), ""},
		{"twine upload", "upload.pypi.org", rules(allow("POST", "/legacy/")), publish},
		{"cargo publish", "crates.io", access("read-write"), publish},
		{"docker push", "registry-2.docker.io", access("full"), publish},
		{"an image to a registry of one's own", "images.example.com", rules(allow("PUT", "/v2/a/b/manifests/*")), publish},
		{"docker pull", "registry-2.docker.io", access("read-only"), ""},
		{"any bucket", "s3.eu-west-1.amazonaws.com", access("read-write"), storage},
		{"one bucket", "s3.eu-west-1.amazonaws.com", rules(allow("PUT", "/my-bucket/**")), ""},
		{"reading any bucket", "storage.googleapis.com", access("read-only"), ""},
		{"a bucket by its name", "my-bucket.s3.amazonaws.com", access("full"), ""},
		{"any model", "huggingface.co", rules(allow("POST", "/api/**")), storage},
	} {
		text := inEntry(fmt.Sprintf("binaries: [/b], endpoints: [{host: %q, port: 443, %s}]", tc.host, tc.rest))
		var got []string
		for _, w := range Lint(parsed(t, text), CompileOptions{}) {
			if what, ok := strings.CutSuffix(strings.SplitN(w.Msg, ": ", 2)[0], " is allowed at "+tc.host); ok {
				got = append(got, what)
			}
		}
		if all := strings.Join(got, ", "); all != tc.want && !(strings.HasPrefix(all, tc.want+", ") && strings.Contains(tc.rest, "full")) && !(tc.host == "gitlab.com" && strings.HasPrefix(all, tc.want)) {
			t.Errorf("%s: warned of %q, want %q", tc.name, all, tc.want)
		}
	}
	// An endpoint without rules does not bypass an endpoint of the same entry that judges.
	text := inEntry(`binaries: [/b], endpoints: [{host: github.com, port: 443}, {host: github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}]`)
	for _, w := range Lint(parsed(t, text), CompileOptions{}) {
		t.Errorf("judged by another endpoint: %s", w.Msg)
	}
	// A deny rule for another host does not apply to this one.
	text = inEntry(`binaries: [/b], endpoints: [{host: other.test, port: 443, protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: "*"}]}, {host: codeberg.org, port: 443, protocol: rest, enforcement: enforce, access: full}]`)
	if w := Lint(parsed(t, text), CompileOptions{}); len(w) != 1 || !strings.HasPrefix(w[0].Msg, push) {
		t.Errorf("denied at another host: %v", w)
	}
	// There are no warnings once the budget of work is used up.
	l := &linter{}
	if l.overlaps("/**", tokens("/**", '/', ruleDialect)) {
		t.Error("overlap without work")
	}
}

// The patterns match their examples.
func TestRemoteExamples(t *testing.T) {
	for _, what := range remotes {
		for _, r := range what.requests {
			if g, err := compilePath(r.path); err != nil || !g.Match(r.example) {
				t.Errorf("%s: %s does not match %s, %v", what.what, r.path, r.example, err)
			}
		}
	}
}
