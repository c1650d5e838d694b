// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/testenv"
)

// debian is the Debian root filesystem with real clients in it.
func debian(t *testing.T) string {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Debian)
	cmd := exec.Command("../scripts/rootfs.sh")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		tail := said.Bytes()[max(0, said.Len()-2000):]
		testenv.Lacks(t, testenv.Debian, fmt.Errorf("scripts/rootfs.sh: %w\n%s", err, tail))
	}
	return strings.TrimSpace(string(out))
}

// registries are where this machine's package clients are configured to ask. They
// are the machine's own affair: no test prints them.
type registries struct {
	npm, goproxy *url.URL
	apt          []*url.URL
	// aptTLS says that apt's mirror can be asked over HTTPS as well.
	aptTLS bool
	goroot string
}

// findRegistries asks the clients. The root filesystem's apt has this machine's
// mirror; npm is this machine's, if it has one.
func findRegistries(t *testing.T, rootfs string) *registries {
	t.Helper()
	ask := func(name string, args ...string) []string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %v: %v", name, args, err)
		}
		return strings.Fields(string(out))
	}
	parse := func(what, s string) *url.URL {
		t.Helper()
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			testenv.Lacks(t, testenv.Registries, fmt.Errorf("%s is configured for no URL", what))
		}
		return u
	}
	npm := []string{"npm"}
	if _, err := exec.LookPath("npm"); err != nil {
		npm = []string{"chroot", rootfs, "npm"}
	}
	r := &registries{goroot: ask("go", "env", "GOROOT")[0]}
	r.npm = parse("npm", ask(npm[0], append(npm[1:], "config", "get", "registry")...)[0])
	first, _, _ := strings.Cut(strings.ReplaceAll(ask("go", "env", "GOPROXY")[0], "|", ","), ",")
	r.goproxy = parse("go", first)
	for _, u := range ask("chroot", rootfs, "apt-get", "update", "--print-uris") {
		if u, quoted := strings.CutPrefix(u, "'"); quoted {
			r.apt = append(r.apt, parse("apt", strings.TrimSuffix(u, "'")))
		}
	}
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, u := range r.all() {
		resp, err := client.Head(u.String())
		if err != nil {
			testenv.Lacks(t, testenv.Registries, errors.New(r.mask(err.Error())))
		}
		_ = resp.Body.Close()
	}
	encrypted := *r.apt[0]
	encrypted.Scheme = "https"
	if resp, err := client.Head(encrypted.String()); err == nil {
		r.aptTLS = resp.StatusCode < http.StatusBadRequest
		_ = resp.Body.Close()
	}
	return r
}

// mask takes the registries' names out of what is printed.
func (r *registries) mask(s string) string {
	for _, u := range r.all() {
		s = strings.ReplaceAll(s, u.Hostname(), "REGISTRY")
	}
	return s
}

func (r *registries) all() []*url.URL { return slices.Concat(r.apt, []*url.URL{r.npm, r.goproxy}) }

// policy allows the clients to read from the registries, and to clone, but not to
// push to, one repository of git.test.
func (r *registries) policy() string {
	var b strings.Builder
	b.WriteString(`version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /bin, /sbin, /lib, /lib64, /etc, /proc, /sys, /dev/urandom, /var/lib/dpkg]
  read_write: [/tmp, /root, /dev/null, /var/lib/apt, /var/cache/apt, /var/log, /run]
network_policies:
  git:
    endpoints:
    - host: git.test
      port: 443
      protocol: rest
      enforcement: enforce
      rules:
      - allow: {method: GET, path: /repo.git/**}
      - allow: {method: POST, path: /repo.git/git-upload-pack}
    binaries: [{path: /usr/bin/git}]
  api:
    endpoints: [{host: api.test, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/curl}, {path: "/usr/bin/python3.*"}, {path: /usr/bin/node}]
`)
	add := func(name string, binaries []string, urls ...*url.URL) {
		fmt.Fprintf(&b, "  %s:\n    binaries: [{path: %s}]\n    endpoints:\n", name, strings.Join(binaries, "}, {path: "))
		seen := map[string]bool{}
		for _, u := range urls {
			ports := "80, 443"
			if u.Port() != "" {
				ports = u.Port()
			}
			if seen[u.Hostname()+ports] {
				continue
			}
			seen[u.Hostname()+ports] = true
			fmt.Fprintf(&b, "    - {host: %q, ports: [%s], protocol: rest, enforcement: enforce, access: read-only}\n", u.Hostname(), ports)
		}
	}
	add("npm", []string{"/usr/bin/node", "/usr/bin/curl", "/usr/bin/python3"}, r.npm)
	add("go", []string{"/usr/local/go/bin/go"}, r.goproxy)
	add("apt", []string{"/usr/lib/apt/methods/http", "/usr/lib/apt/methods/https"}, r.apt...)
	return b.String()
}

// serveGit has up serve one repository under git.test, as git's own server, which
// would take a push.
func serveGit(t *testing.T, up *upstream.Host) {
	t.Helper()
	root := t.TempDir()
	repo := filepath.Join(root, "repo.git")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Env = append(
			os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@test",
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	work := filepath.Join(root, "work")
	git("init", "--quiet", "--initial-branch", "main", work)
	git("-C", work, "commit", "--quiet", "--allow-empty", "--message", "first")
	git("clone", "--quiet", "--bare", work, repo)
	git("-C", repo, "config", "http.receivepack", "true")
	backend := &cgi.Handler{
		Path: filepath.Join(git("--exec-path"), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=pusher", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	up.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Host == "git.test" {
			backend.ServeHTTP(w, q)
			return
		}
		fmt.Fprintf(w, "upstream saw %s %s\n", q.Method, q.URL.Path)
	})
}
