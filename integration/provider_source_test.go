// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProviderSources: a credential in a file is read again while the sandbox runs;
// one of the environment is the sandbox's own, and stays when others change.
func TestProviderSources(t *testing.T) {
	t.Parallel()
	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: providerPolicy, up: up})
	store := filepath.Join(b.dir, "providers")
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, append(config, "providers_dir: "+store+"\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range refreshers(store) {
			kill(t, pid, unix.SIGTERM)
		}
	})
	const profile = `id: two
credentials:
  - {name: api_key, env_vars: [TEST_API_KEY], auth_style: header, header_name: x-api-key}
  - {name: other, env_vars: [TEST_OTHER], auth_style: header, header_name: x-api-key}
endpoints: [{host: api.test, port: 443}]
`
	if out, ok := b.provider(nil, "profile", "import", b.file("profile.yaml", profile)); !ok {
		t.Fatal(out)
	}
	missing := filepath.Join(b.dir, "key.txt")
	if out, ok := b.provider(nil, "create", "work", "--type", "two", "--credential-file", "TEST_API_KEY="+missing); ok || !strings.Contains(out, "no such file") || !strings.Contains(out, "nothing was stored") {
		t.Errorf("create: %s", out)
	}
	file := b.file("key.txt", realKey+"\n")
	if out, ok := b.provider(nil, "create", "work", "--type", "two", "--credential-file", "TEST_API_KEY="+file, "--credential-env", "TEST_OTHER=MINE"); !ok {
		t.Fatal(out)
	}
	b.flags = append(b.flags, "--provider", "work")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err == nil || !strings.Contains(out, "MINE") {
		t.Fatalf("without the variable: %v: %s", err, out)
	}
	b.env = append(b.env, "MINE="+lastKey)
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	b.arrives(h, realKey)
	other := func() string {
		h.take()
		b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:openshell:resolve:env:TEST_OTHER")
		return h.take()
	}
	if got := other(); !strings.Contains(got, lastKey) {
		t.Errorf("the API heard %q", got)
	}
	b.file("key.txt", nextKey+"\n")
	// At once for who insists, and within the minute by itself.
	if out, ok := b.provider(nil, "refresh", "work", "--config", b.config); !ok {
		t.Errorf("refresh: %s", out)
	}
	b.arrives(h, nextKey)
	if got := other(); !strings.Contains(got, lastKey) {
		t.Errorf("the API heard %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if out, ok := b.provider(nil, "refresh", "work", "--config", b.config); ok || !strings.Contains(out, "no such file") {
		t.Errorf("refresh: %s", out)
	}
	b.arrives(h, nextKey)
	holdsNone(t, []string{realKey, nextKey, lastKey}, filepath.Join(b.dir, "state"), b.records(), store)
}

// TestRouterKeyUpdate: the privacy router's routes have the provider's newest key, and
// none after its deletion.
func TestRouterKeyUpdate(t *testing.T) {
	t.Parallel()
	m := &model{}
	up := startUpstream(t)
	up.Handler = m
	b := boxOf(t, boxOptions{policy: testPolicy, up: up})
	routes := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\", provider: work, model: real-model}]\n")
	b.attach(t, routerProfile, "inference_file: "+routes+"\n")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	ask := func() (asked, out string) {
		m.asked.Store(nil)
		out = b.exec("/bin/probe", "keyed", "POST", "https://inference.local/v1/chat/completions", "A:b", `{"model":"x","messages":[{"role":"user","content":"hi"}]}`)
		if p := m.asked.Load(); p != nil {
			asked = *p
		}
		return asked, out
	}
	if asked, out := ask(); !strings.Contains(asked, "Bearer "+realKey+" ") {
		t.Fatalf("the backend was asked %q, the sandbox %q", asked, out)
	}
	if out, ok := b.provider([]string{"TEST_API_KEY=" + nextKey}, "update", "work", "--from-existing"); !ok || !strings.Contains(out, "in use in sandbox "+b.id) {
		t.Fatalf("update: %s", out)
	}
	if asked, out := ask(); !strings.Contains(asked, "Bearer "+nextKey+" ") || strings.Contains(out, nextKey) {
		t.Errorf("the backend was asked %q, the sandbox %q", asked, out)
	}
	kill(t, b.proxy().Pid, unix.SIGKILL)
	if asked, out := ask(); !strings.Contains(asked, "Bearer "+nextKey+" ") {
		t.Errorf("after a kill the backend was asked %q, the sandbox %q", asked, out)
	}
	if out, ok := b.provider(nil, "delete", "work"); !ok || !strings.Contains(out, b.id) {
		t.Fatalf("delete: %s", out)
	}
	if asked, out := ask(); asked != "" || !strings.Contains(out, " 50") {
		t.Errorf("after deletion the backend was asked %q, the sandbox %q", asked, out)
	}
	holdsNone(t, []string{realKey, nextKey}, filepath.Join(b.dir, "state"), b.records(), filepath.Join(b.dir, "providers"))
}
