// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/decisionlog"
)

// realInput is an ordinary program in a Debian sandbox.
type realInput struct {
	name string
	// script runs in sh. fails says that it has to.
	script string
	fails  bool
	// prints is a part of what it says.
	prints string
	// allowed and denied are the programs of which such decisions are recorded;
	// there are no others.
	allowed, denied []string
	// arrives is what the test's own upstream gets, each "METHOD host/path".
	arrives []string
}

// The programs as they are recorded.
const (
	curlBinary   = "/usr/bin/curl"
	nodeBinary   = "/usr/bin/node"
	pythonBinary = "/usr/bin/python3.11"
	goBinary     = "/usr/local/go/bin/go"
	aptBinary    = "/usr/lib/apt/methods/http"
	gitBinary    = "/usr/lib/git-core/git-remote-http"
)

func realInputs(r *registries) []realInput {
	npm, proxy := strings.TrimSuffix(r.npm.String(), "/"), strings.TrimSuffix(r.goproxy.String(), "/")
	curl := "curl --silent --show-error --fail-with-body --output /dev/null --write-out '%{http_version} %{http_code}' "
	node := `node -e 'fetch(process.argv[1], {method: process.argv[2]}).then(r => console.log("status", r.status)).catch(e => { console.log(e); process.exit(3) })' `
	refs := "GET git.test/repo.git/info/refs"
	clone := []string{refs, "POST git.test/repo.git/git-upload-pack", "POST git.test/repo.git/git-upload-pack"}
	one := func(s string) []string { return []string{s} }
	all := []realInput{
		{name: "curl, HTTP/1.1", script: curl + "--http1.1 " + npm + "/left-pad", prints: "1.1 200", allowed: one(curlBinary)},
		{name: "curl, HTTP/2", script: curl + "--http2 https://api.test/zen", prints: "2 200", allowed: one(curlBinary), arrives: one("GET api.test/zen")},
		{name: "curl without any environment", script: "env -i /usr/bin/" + curl + npm + "/left-pad", prints: " 200", allowed: one(curlBinary)},
		{name: "python3 urllib", script: `python3 -c 'import sys, urllib.request as u; print("status", u.urlopen(sys.argv[1]).status)' ` + npm + "/left-pad", prints: "status 200", allowed: one(pythonBinary)},
		{name: "node fetch", script: node + npm + "/left-pad GET", prints: "status 200", allowed: one(nodeBinary)},
		{
			name: "npm install", script: "cd /tmp && npm install --no-fund --no-audit --no-update-notifier --registry " + npm + "/ left-pad && ls node_modules/left-pad/package.json",
			prints: "node_modules/left-pad/package.json", allowed: one(nodeBinary),
		},
		{
			name: "go mod download", script: "mkdir /tmp/m && cd /tmp/m && export HOME=/tmp GOFLAGS=-modcacherw GOTOOLCHAIN=local GOPROXY=" + proxy +
				" && go mod init m && go mod download -x golang.org/x/xerrors@v0.0.0-20240903120638-7835f813f4da && ls /tmp/go/pkg/mod/golang.org/x",
			prints: "xerrors@v0.0.0", allowed: one(goBinary),
		},
		{name: "apt-get update", script: "apt-get -o APT::Update::Error-Mode=any update", prints: "Reading package lists", allowed: one(aptBinary)},
		{
			name: "git clone", script: "cd /tmp && git clone https://git.test/repo.git && git -C repo log --format=%s",
			prints: "first", allowed: one(gitBinary), arrives: clone,
		},
		{
			name: "git push", script: "cd /tmp && git clone https://git.test/repo.git && cd repo && git -c user.name=a -c user.email=a@test commit --allow-empty --message more && git push",
			fails: true, prints: "403", allowed: one(gitBinary), denied: one(gitBinary), arrives: append(clone, refs),
		},
		{
			name: "npm publish", script: `mkdir /tmp/p && cd /tmp/p && echo '{"name":"openshell-runtime-never-published","version":"0.0.1"}' >package.json && npm publish --registry ` + npm + "/ '--" +
				strings.TrimPrefix(npm, r.npm.Scheme+":") + "/:_authToken=none'",
			fails: true, prints: "403", denied: one(nodeBinary),
		},
		{name: "PUT by curl", script: curl + "--request PUT --data x https://api.test/package", fails: true, prints: " 403", denied: one(curlBinary)},
		{name: "POST by node", script: node + "https://api.test/package POST", prints: "status 403", denied: one(nodeBinary)},
		{name: "DELETE by python", script: `python3 -c 'import urllib.request as u; u.urlopen(u.Request("https://api.test/package", method="DELETE"))'`, fails: true, prints: "HTTP Error 403", denied: one(pythonBinary)},
		{name: "another host by curl", script: curl + "https://other.test/", fails: true, prints: "403", denied: one(curlBinary)},
		{name: "another host by node", script: node + "https://other.test/ GET", prints: "status 403", denied: one(nodeBinary)},
		{name: "another host by git", script: "git clone https://other.test/repo.git /tmp/other", fails: true, prints: "403", denied: one(gitBinary)},
		{name: "another's registry", script: curl + proxy + "/golang.org/x/xerrors/@v/list", fails: true, prints: "403", denied: one(curlBinary)},
	}
	if r.aptTLS {
		all = append(all, realInput{
			name: "apt-get update over HTTPS", script: "sed s,http://,https://, /etc/apt/sources.list >/tmp/sources.list && apt-get -o Dir::Etc::SourceList=/tmp/sources.list -o APT::Update::Error-Mode=any update",
			prints: "Reading package lists", allowed: one(aptBinary),
		})
	}
	return all
}

// check compares what happened with what had to.
func (in *realInput) check(t *testing.T, r *registries, out string, status int, records []decisionlog.Record, arrived []upstream.Request) {
	t.Helper()
	if (status != 0) != in.fails || !strings.Contains(out, in.prints) {
		t.Errorf("status %d, printed %s", status, r.mask(out))
	}
	got := map[string][]string{}
	for _, rec := range records {
		// A name is asked by the C library for whoever wants it.
		if rec.Layer == "dns" {
			continue
		}
		if !slices.Contains(got[rec.Verdict], rec.Binary) {
			got[rec.Verdict] = append(got[rec.Verdict], rec.Binary)
		}
	}
	want := map[string][]string{"allow": in.allowed, "deny": in.denied}
	for _, verdict := range []string{"allow", "audit", "deny"} {
		if !slices.Equal(got[verdict], want[verdict]) {
			t.Errorf("recorded as %s: %q, want %q", verdict, got[verdict], want[verdict])
		}
	}
	var paths []string
	for _, q := range arrived {
		paths = append(paths, q.Method+" "+q.Host+q.Path)
	}
	if !slices.Equal(paths, in.arrives) {
		t.Errorf("the upstream got %q, want %q", paths, in.arrives)
	}
	if t.Failed() {
		for _, rec := range records {
			t.Log(r.mask(fmt.Sprintf("%+v", rec)))
		}
	}
}

// Ordinary clients in an ordinary Debian do not notice the sandbox until policy
// says no.
func TestRealClients(t *testing.T) {
	rootfs := debian(t)
	r := findRegistries(t, rootfs)
	w := newWorld(t, r.policy())
	w.rootfs = rootfs
	up, err := upstream.Open("api.test", "git.test", "other.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	serveGit(t, up)
	ca := filepath.Join(w.dir, "upstream.pem")
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	for i, in := range realInputs(r) {
		t.Run(in.name, func(t *testing.T) {
			name := fmt.Sprintf("real-%d-%d", os.Getpid(), i)
			before := len(up.Requests())
			flags := []string{"--name", name, "--upstream-ca", ca, "-v", r.goroot + ":/usr/local/go:ro", "-e", "PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
			for _, host := range []string{"api.test", "git.test", "other.test"} {
				flags = append(flags, "--add-host", host+":"+up.Addr.String())
			}
			out, status := w.runWith(flags, "/bin/sh", "-c", in.script)
			in.check(t, r, out, status, readRecords(t, filepath.Join(w.records(), name)), up.Requests()[before:])
		})
	}
	w.nothingRemains()
}
