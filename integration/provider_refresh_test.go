// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
)

const refreshProfile = `id: testapi
credentials:
  - name: api_key
    env_vars: [TEST_API_KEY]
    required: true
    auth_style: header
    header_name: x-api-key
    refresh: {strategy: oauth2_refresh_token, token_url: "%s/token", refresh_before_seconds: 2}
endpoints: [{host: api.test, ports: [443, 80]}]
`

// What the token endpoint is given and what it makes; each is found in a search.
const (
	clientSecret = "client-secret-0123456789"
	refreshBegin = "refresh-token-0123456789-"
	accessBegin  = "access-token-0123456789-"
)

// issuer is a token endpoint that takes each refresh token once.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	count  int
	life   int
	broken bool
	heard  []string
}

func newIssuer(t *testing.T, life int) *issuer {
	t.Helper()
	i := &issuer{life: life}
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sent, client, secret := r.FormValue("refresh_token"), r.FormValue("client_id"), r.FormValue("client_secret")
	i.mu.Lock()
	defer i.mu.Unlock()
	i.heard = append(i.heard, strings.Join([]string{client, secret, sent}, " "))
	w.Header().Set("Content-Type", "application/json")
	if i.broken || sent != fmt.Sprint(refreshBegin, i.count) || secret != clientSecret {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant", "error_description": "bad token " + sent})
		return
	}
	i.count++
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": fmt.Sprint(accessBegin, i.count), "token_type": "Bearer", "expires_in": i.life, "refresh_token": fmt.Sprint(refreshBegin, i.count),
	})
}

func (i *issuer) breaks(yes bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = yes
}

func (i *issuer) made() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.count
}

// refreshBox is a box that has not been created yet, with a provider whose credential
// the issuer makes.
func refreshBox(t *testing.T, i *issuer) (*box, *heard) {
	t.Helper()
	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: providerPolicy, up: up})
	ca := b.file("issuer.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})))
	store := filepath.Join(b.dir, "providers")
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, fmt.Appendf(config, "providers_dir: %s\nupstream: {ca_files: [%s]}\n", store, ca), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, ok := b.provider(nil, "profile", "import", b.file("profile.yaml", fmt.Sprintf(refreshProfile, i.URL))); !ok {
		t.Fatal(out)
	}
	if out, ok := b.provider(nil, "create", "work", "--type", "testapi", "--runtime-credentials"); !ok {
		t.Fatal(out)
	}
	env := []string{"RT=" + refreshBegin + "0", "CS=" + clientSecret}
	if out, ok := b.provider(env, "refresh", "configure", "work", "--credential-key", "TEST_API_KEY", "--config", b.config, "--material", "client_id=me", "--secret-material-env", "refresh_token=RT", "--secret-material-env", "client_secret=CS"); !ok {
		t.Fatal(out)
	}
	b.flags = append(b.flags, "--provider", "work")
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(b.records(), "@refresher.log")); t.Failed() && err == nil {
			t.Logf("the refresher: %s", log)
		}
		if log, err := os.ReadFile(filepath.Join(b.records(), b.id, "proxy.log")); t.Failed() && err == nil {
			t.Logf("the guard: %s", log)
		}
		for _, pid := range refreshers(store) {
			kill(t, pid, unix.SIGTERM)
		}
	})
	return b, h
}

// refreshers are the processes that serve a store.
func refreshers(store string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range all {
		line, _ := os.ReadFile(p)
		if bytes.Contains(line, []byte("openshell-refresher\x00serve\x00")) && bytes.Contains(line, []byte(store+"\x00")) {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// key is what the API hears of a request with the placeholder; the sandbox's answer
// where it hears nothing.
func (b *box) key(h *heard) (key, out string) {
	b.t.Helper()
	h.take()
	out = b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:$TEST_API_KEY")
	got := h.take()
	key, _, _ = strings.Cut(strings.TrimPrefix(got, "x-api-key="), " ")
	return key, out
}

// TestProviderRefresh: a running sandbox uses tokens that are made anew all the time,
// by a process that comes back when it is killed; no part of the proxy knows what they
// are made from. What has ended is refused.
func TestProviderRefresh(t *testing.T) {
	t.Parallel()
	i := newIssuer(t, 8)
	b, h := refreshBox(t, i)
	store := filepath.Join(b.dir, "providers")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	first, out := b.key(h)
	if !strings.HasPrefix(first, accessBegin) || strings.Contains(out, accessBegin) {
		t.Fatalf("the API heard %q, the sandbox %q", first, out)
	}
	another := func(than string) (now string) {
		t.Helper()
		b.until("another token is used", func() bool {
			now, out = b.key(h)
			return now != than && strings.HasPrefix(now, accessBegin)
		})
		return now
	}
	second := another(first)
	b.until("there is one refresher", func() bool { return len(refreshers(store)) == 1 })
	b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
	secretsIn(t, b, store)

	gone := refreshers(store)[0]
	kill(t, gone, unix.SIGKILL)
	b.until("another refresher runs", func() bool { r := refreshers(store); return len(r) == 1 && r[0] != gone })
	another(second)

	i.breaks(true)
	b.until("what has ended is refused", func() bool {
		key, out := b.key(h)
		return key == "" && strings.Contains(out, "credential_injection_failed") && strings.Contains(out, "it expired at ")
	})
	if out, ok := b.provider(nil, "refresh", "status", "work"); !ok || !strings.Contains(out, "invalid_grant") || strings.Contains(out, refreshBegin) {
		t.Errorf("status: %s", out)
	}
	if out, ok := b.provider(nil, "refresh", "work", "--config", b.config); ok || !strings.Contains(out, "the token endpoint answers 400: invalid_grant") || strings.Contains(out, refreshBegin) {
		t.Errorf("refresh: %s", out)
	}
	b.record("the refusal", func(r decisionlog.Record) bool {
		return r.Verdict == "deny" && strings.Contains(r.Reason, "it expired at ")
	})
	i.breaks(false)
	if out, ok := b.provider(nil, "refresh", "work", "--config", b.config); !ok {
		t.Errorf("refresh: %s", out)
	}
	if key, out := b.key(h); !strings.HasPrefix(key, accessBegin) {
		t.Errorf("after the repair the API heard %q, the sandbox %q", key, out)
	}
	holdsNone(t, []string{accessBegin, refreshBegin, clientSecret}, filepath.Join(b.dir, "state"), b.records(), store)
	log, err := os.ReadFile(filepath.Join(b.records(), "@refresher.log"))
	if err != nil || !bytes.Contains(log, []byte("provider work was refreshed")) || !bytes.Contains(log, []byte("invalid_grant")) {
		t.Errorf("the refresher's log: %v: %s", err, log)
	}
}

// secretsIn looks into the arguments, environments and memory of the processes: the
// proxy's know the token and nothing that it is made from.
func secretsIn(t *testing.T, b *box, store string) {
	t.Helper()
	for _, pid := range append(b.proxies(), refreshers(store)...) {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			for _, s := range []string{accessBegin, refreshBegin, clientSecret} {
				if err != nil || bytes.Contains(text, []byte(s)) {
					t.Errorf("%s of %d holds %s, %v", file, pid, s, err)
				}
			}
		}
	}
	worker := b.proxy().Pid
	for _, pid := range b.proxies() {
		memory := memoryOf(t, pid)
		for _, s := range []string{refreshBegin, clientSecret} {
			if bytes.Contains(memory, []byte(s)) {
				t.Errorf("the memory of %d (worker %d) holds %s", pid, worker, s)
			}
		}
		if !bytes.Contains(memory, []byte(accessBegin)) {
			t.Errorf("control: the memory of %d holds no token", pid)
		}
	}
}

// memoryOf is all that can be read of a process's memory.
func memoryOf(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []byte
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil || perms[:2] != "rw" {
			continue
		}
		part, _ := io.ReadAll(io.NewSectionReader(f, from, to-from)) // some cannot be read to their end
		out = append(out, part...)
	}
	return out
}

// TestProviderRefreshAtCreate: a sandbox begins with a token that has not ended; where
// none can be made there is no sandbox.
func TestProviderRefreshAtCreate(t *testing.T) {
	t.Parallel()
	i := newIssuer(t, 1)
	b, h := refreshBox(t, i)
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // the first token expires after a second
	before := i.made()
	i.mu.Lock()
	i.life = 600
	i.mu.Unlock()
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	if key, out := b.key(h); key != fmt.Sprint(accessBegin, before+1) || i.made() != before+1 {
		t.Errorf("the API heard %q after %d, the sandbox %q", key, before, out)
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}

	i = newIssuer(t, 1)
	b, _ = refreshBox(t, i)
	i.breaks(true)
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // the first token expires after a second
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err == nil || !strings.Contains(out, "provider work: credential api_key") || !strings.Contains(out, "invalid_grant") || strings.Contains(out, refreshBegin) {
		t.Errorf("run: %v: %s", err, out)
	}
	b.gone()
}
