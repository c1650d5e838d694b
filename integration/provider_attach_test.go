// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
)

// attachment runs `openshell provider attach` or detach on the box.
func (b *box) attachment(verb, name string) (string, bool) {
	b.t.Helper()
	args := []string{verb, b.id, name, "--root", b.state()}
	if verb == "detach" {
		out, status := b.command(append([]string{"provider"}, args...)...)
		return out, status == 0
	}
	return b.provider(nil, append(args, "--config", b.config)...)
}

// refusesKey fails unless a request with the placeholder is refused, for a reason, and the
// API hears nothing.
func (b *box) refusesKey(h *heard, why string) {
	b.t.Helper()
	h.take()
	out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:openshell:resolve:env:TEST_API_KEY")
	if got := h.take(); got != "" || !strings.Contains(out, why) {
		b.t.Errorf("the API heard %q, the sandbox %q, want …%s…", got, out, why)
	}
}

// TestProviderAttach: a sandbox that was created without providers gets one, as if it
// had been there from the start, and loses it at once; whoever of its proxy is killed.
func TestProviderAttach(t *testing.T) {
	t.Parallel()
	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: providerPolicy, up: up, env: []string{"TEST_API_KEY=" + imageKey}})
	b.attach(t, testProfile, "")
	if out, ok := b.provider([]string{"TEST_API_KEY=" + nextKey}, "create", "rival", "--type", "testapi", "--from-existing"); !ok {
		t.Fatal(out)
	}
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	// The control: as yet nobody replaces anything, nobody refuses a foreign key.
	for _, key := range []string{"openshell:resolve:env:TEST_API_KEY", imageKey} {
		h.take()
		if out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:"+key); !strings.Contains(h.take(), "x-api-key="+key+" ") {
			t.Fatalf("before: %s", out)
		}
	}
	if links, _ := os.ReadDir(filepath.Join(b.dir, "providers", "attached")); len(links) > 0 {
		t.Errorf("it shows itself to the store: %v", links)
	}

	for range 2 { // the second changes nothing
		out, ok := b.attachment("attach", "work")
		if !ok || !strings.Contains(out, "\n  TEST_API_KEY=openshell:resolve:env:TEST_API_KEY\n") || strings.Contains(out, realKey) {
			t.Fatalf("attach: %s", out)
		}
	}
	b.arrives(h, realKey)
	// From outside: older Landlocks keep the environments of processes apart.
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", b.init())); err != nil || !strings.Contains(string(env), "TEST_API_KEY="+imageKey) {
		t.Errorf("the first process keeps its environment: %q, %v", env, err)
	}
	if out := b.exec("/bin/probe", "environments"); !strings.Contains(out, "TEST_API_KEY=openshell:resolve:env:TEST_API_KEY") {
		t.Errorf("want the exec's new variable: %s", out)
	}
	for url, key := range map[string]string{
		"https://api.test/v1":    imageKey,
		"https://denied.test/v1": "openshell:resolve:env:TEST_API_KEY",
		"http://api.test/v1":     "openshell:resolve:env:TEST_API_KEY",
	} {
		h.take()
		if out := b.exec("/bin/probe", "keyed", "GET", url, "X-Api-Key:"+key); h.take() != "" || !strings.Contains(out, " 403 ") {
			t.Errorf("%s with %s: %s", url, key, out)
		}
	}
	if out, ok := b.attachment("attach", "rival"); ok || !strings.Contains(out, "work and rival both bring TEST_API_KEY: detach work first") {
		t.Errorf("attach rival: %s", out)
	}
	if out, ok := b.attachment("attach", "nothing"); ok || !strings.Contains(out, `provider "nothing" not found`) {
		t.Errorf("attach nothing: %s", out)
	}
	if out, ok := b.provider([]string{"TEST_API_KEY=" + lastKey}, "update", "work", "--from-existing"); !ok || !strings.Contains(out, "in use in sandbox "+b.id) {
		t.Errorf("update: %s", out)
	}
	b.arrives(h, lastKey)
	b.killed(func() { b.arrives(h, lastKey) })

	if out, ok := b.attachment("detach", "work"); !ok {
		t.Fatalf("detach: %s", out)
	}
	b.refusesKey(h, "its provider work was detached")
	b.killed(func() { b.refusesKey(h, "its provider work was detached") })
	if out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:"+imageKey); !strings.Contains(out, "foreign_credential") || h.take() != "" {
		t.Errorf("a foreign key after detaching: %s", out)
	}
	b.record("the detaching", func(r decisionlog.Record) bool {
		return r.Layer == "credentials" && r.Rule == "work" && strings.Contains(r.Reason, "was detached")
	})
	if out, ok := b.provider([]string{"TEST_API_KEY=" + realKey}, "update", "work", "--from-existing"); !ok || strings.Contains(out, b.id) {
		t.Errorf("update of what is detached: %s", out)
	}
	b.refusesKey(h, "its provider work was detached")
	if out, ok := b.provider(nil, "get", "work"); !ok || strings.Contains(out, b.id) {
		t.Errorf("get: %s", out)
	}
	if out, ok := b.attachment("attach", "rival"); !ok {
		t.Fatalf("attach rival: %s", out)
	}
	b.arrives(h, nextKey)
	if out, status := b.cli("inspect", b.id); status != 0 || !strings.Contains(out, "work, revision 2, detached") || !strings.Contains(out, "rival, revision 1\n") {
		t.Errorf("inspect: %s", out)
	}
	if out, ok := b.attachment("detach", "rival"); !ok {
		t.Fatalf("detach rival: %s", out)
	}
	if out, ok := b.attachment("attach", "work"); !ok {
		t.Fatalf("attach work again: %s", out)
	}
	b.arrives(h, realKey)
	holdsNone(t, []string{realKey, nextKey, lastKey}, b.stateDir(), b.records())
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	b.gone()
}

// imageKey is one that the workload had of its own.
const imageKey = "sk-the-image-had-this-0123456789"

// killed kills the worker and then the guard, and checks after each.
func (b *box) killed(check func()) {
	b.t.Helper()
	b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
	kill(b.t, b.proxy().Pid, unix.SIGKILL)
	check()
	guard := b.guard()
	kill(b.t, guard, unix.SIGKILL)
	b.until("the standby is the guard", func() bool { return b.guard() != guard })
	check()
}

// TestAttachRefreshed: a provider whose value has ended is attached with one made anew,
// or not at all; from then on it is made anew, until it is detached.
func TestAttachRefreshed(t *testing.T) {
	t.Parallel()
	i := newIssuer(t, 1)
	b, h := refreshBox(t, i)
	b.flags = b.flags[:len(b.flags)-2] // without --provider
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // the first token expires after a second
	i.breaks(true)
	if out, ok := b.attachment("attach", "work"); ok || !strings.Contains(out, "invalid_grant") || strings.Contains(out, refreshBegin) {
		t.Errorf("attach of what has ended: %s", out)
	}
	b.refusesNothing(h)
	store := filepath.Join(b.dir, "providers")
	if r := refreshers(store); len(r) > 0 {
		t.Errorf("refreshers run: %v", r)
	}
	i.mu.Lock()
	i.broken, i.life = false, 8
	i.mu.Unlock()
	b.until("it is tried again", func() bool {
		out, ok := b.attachment("attach", "work")
		return ok && !strings.Contains(out, accessBegin)
	})
	first, out := b.key(h)
	if !strings.HasPrefix(first, accessBegin) || strings.Contains(out, accessBegin) {
		t.Fatalf("the API heard %q, the sandbox %q", first, out)
	}
	b.until("another token is used", func() bool {
		now, _ := b.key(h)
		return now != first && strings.HasPrefix(now, accessBegin)
	})
	b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
	secretsIn(t, b, store)
	if out, ok := b.attachment("detach", "work"); !ok {
		t.Fatalf("detach: %s", out)
	}
	b.refusesKey(h, "its provider work was detached")
	b.until("no refresher runs", func() bool { return len(refreshers(store)) == 0 })
}

// refusesNothing fails unless a placeholder reaches the API as it is: the sandbox has no
// provider.
func (b *box) refusesNothing(h *heard) {
	b.t.Helper()
	h.take()
	out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:openshell:resolve:env:TEST_API_KEY")
	if got := h.take(); !strings.Contains(got, "x-api-key=openshell:resolve:env:TEST_API_KEY ") {
		b.t.Errorf("the API heard %q, the sandbox %q", got, out)
	}
}
