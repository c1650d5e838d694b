// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInferenceUpdate: a running sandbox has other routes and keys at once, and so
// have workers and guards that take the place of killed ones.
func TestInferenceUpdate(t *testing.T) {
	t.Parallel()
	m := &model{}
	up := startUpstream(t)
	up.Handler = m
	b := boxOf(t, boxOptions{policy: testPolicy, up: up})
	file := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\", provider: work, model: first}]\nbudget: {total_requests: 8}\n")
	b.attach(t, routerProfile, "inference_file: "+file+"\n")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	inference := func(args ...string) (string, bool) {
		args = append(append([]string{"inference"}, args...), "--file", file, "--store", filepath.Join(b.dir, "providers"))
		out, err := exec.Command(filepath.Join(b.bin, "openshell"), args...).CombinedOutput()
		return string(out), err == nil
	}
	asks := func(what, want string) {
		t.Helper()
		m.asked.Store(nil)
		out := b.exec("/bin/probe", "keyed", "POST", "https://inference.local/v1/chat/completions", "A:b", `{"model":"callers","messages":[]}`)
		got := ""
		if p := m.asked.Load(); p != nil {
			got = *p
		}
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(out, realKey) {
			t.Errorf("%s: the backend was asked %q, want …%q; the sandbox got %q", what, got, want, out)
		}
	}
	asks("at first", "Bearer "+realKey+" key= model=first")
	if out, ok := inference("update", "main", "--model", "second"); !ok || !strings.Contains(out, "in use in sandbox "+b.id) {
		t.Fatalf("update: %s", out)
	}
	asks("after an update", "Bearer "+realKey+" key= model=second")
	if out, ok := b.provider([]string{"TEST_API_KEY=" + nextKey}, "update", "work", "--from-existing"); !ok || !strings.Contains(out, "in use in sandbox "+b.id) {
		t.Fatalf("provider update: %s", out)
	}
	asks("after another key", "Bearer "+nextKey+" key= model=second")
	if out, ok := inference("set", "other", "--dialect", "openai", "--base-url", "https://api.test/other/v1", "--match", "callers"); !ok {
		t.Fatalf("set: %s", out)
	}
	asks("after a new route", "/other/v1/chat/completions authorization= key= model=callers")
	if out, ok := inference("update", "nowhere", "--model", "x"); ok || !strings.Contains(out, "no route") {
		t.Errorf("update of no route: %s", out)
	}
	if out, ok := inference("update", "main", "--provider", "unknown"); ok || !strings.Contains(out, "keep the routes they have") {
		t.Errorf("update to an unknown provider: %s", out)
	}
	asks("after an update that could not be", "/other/v1/chat/completions")
	if out, ok := inference("update", "main", "--provider", "work"); !ok {
		t.Fatalf("update: %s", out)
	}
	if out, ok := inference("delete", "other"); !ok {
		t.Fatalf("delete: %s", out)
	}
	b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
	kill(t, b.proxy().Pid, unix.SIGKILL)
	asks("by another worker", "Bearer "+nextKey+" key= model=second")
	guard := b.guard()
	kill(t, guard, unix.SIGKILL)
	b.until("the standby is the guard", func() bool { return b.guard() != guard })
	asks("under another guard", "Bearer "+nextKey+" key= model=second")

	out, status := b.cli("inference", "metrics", b.id)
	if status != 0 || !strings.Contains(out, `openshell_inference_tokens_total{route="main",outcome="answered",direction="out"} 5`) {
		t.Errorf("metrics: %d: %s", status, out)
	}
	if out, ok := inference("delete", "main"); !ok {
		t.Fatalf("delete: %s", out)
	}
	asks("without routes", "")
	holdsNone(t, []string{realKey, nextKey}, filepath.Join(b.dir, "state"), b.records(), file)
}

// TestBudgetOutlivesRoutes: other routes do not fill a budget again.
func TestBudgetOutlivesRoutes(t *testing.T) {
	t.Parallel()
	m := &model{}
	up := startUpstream(t)
	up.Handler = m
	b := boxOf(t, boxOptions{policy: testPolicy, up: up})
	file := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\", provider: work}]\nbudget: {total_requests: 2}\n")
	b.attach(t, routerProfile, "inference_file: "+file+"\n")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	ask := func() string {
		return b.exec("/bin/probe", "keyed", "POST", "https://inference.local/v1/chat/completions", "A:b", `{"model":"m","messages":[]}`)
	}
	for i, want := range []string{"200 ", "200 ", "429 "} {
		if i == 1 {
			args := []string{"inference", "update", "main", "--model", "other", "--file", file, "--store", filepath.Join(b.dir, "providers")}
			if out, err := exec.Command(filepath.Join(b.bin, "openshell"), args...).CombinedOutput(); err != nil {
				t.Fatalf("update: %v: %s", err, out)
			}
		}
		if out := ask(); !strings.Contains(out, want) {
			t.Errorf("call %d: %q", i+1, out)
		}
	}
}

// TestHostBackend: a model on the machine itself is reached by the machine's name, in
// a sandbox with an uplink of its own too, and by the router alone.
func TestHostBackend(t *testing.T) {
	t.Parallel()
	m := &model{}
	up := startUpstream(t)
	up.Handler = m
	b := boxOf(t, boxOptions{policy: testPolicy, up: up, uplink: true})
	file := b.file("inference.yaml", "routes: [{name: local, dialect: openai, base_url: \"http://host.openshell.internal/v1\"}]\n")
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, append(config, "inference_file: "+file+"\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	out := b.exec("/bin/probe", "keyed", "POST", "https://inference.local/v1/chat/completions", "A:b", `{"model":"m","messages":[]}`)
	if p := m.asked.Load(); p == nil || !strings.Contains(*p, "POST /v1/chat/completions authorization= key= model=m") || !strings.Contains(out, "200 ") {
		t.Errorf("the sandbox got %q, recorded %q", out, b.log())
	}
	m.asked.Store(nil)
	if out := b.exec("/bin/probe", "http", "GET", "http://host.openshell.internal/v1/models"); m.asked.Load() != nil {
		t.Errorf("the sandbox itself got %q", out)
	}
}
