// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
)

// nextKey and lastKey follow realKey.
const (
	nextKey = "sk-the-next-key-0123456789abcdef"
	lastKey = "sk-the-last-key-0123456789abcdef"
)

// provider runs `openshell provider …` on the box's store, with variables.
func (b *box) provider(env []string, args ...string) (out string, ok bool) {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(b.bin, "openshell"), append(append([]string{"provider"}, args...), "--store", filepath.Join(b.dir, "providers"))...)
	cmd.Env = env
	text, err := cmd.CombinedOutput()
	for _, e := range env {
		if _, v, _ := strings.Cut(e, "="); len(v) > 8 && strings.Contains(string(text), v) && !filepath.IsAbs(v) {
			b.t.Errorf("%v printed a value: %s", args, text)
		}
	}
	return string(text), err == nil
}

// arrives says whether a request of the sandbox reaches the API with a key.
func (b *box) arrives(h *heard, key string) {
	b.t.Helper()
	h.take()
	out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:$TEST_API_KEY")
	if got := h.take(); !strings.Contains(got, "x-api-key="+key+" ") {
		b.t.Errorf("the API heard %q, want %s; the sandbox %q", got, key, out)
	}
	if strings.Contains(out, key) {
		b.t.Errorf("the key came back: %q", out)
	}
}

// holdsNone fails if a file below one of the roots holds one of the texts.
func holdsNone(t *testing.T, texts []string, roots ...string) {
	t.Helper()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			for _, s := range texts {
				if strings.Contains(string(text), s) {
					t.Errorf("%s holds %q", path, s[:8])
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestProviderUpdate: a new key is used by a running sandbox at once, and by a worker
// and a guard that take the place of killed ones; old revisions stay known; what was
// deleted is refused.
func TestProviderUpdate(t *testing.T) {
	t.Parallel()
	b, h := providerBox(t)
	b.arrives(h, realKey)
	if out, ok := b.provider([]string{"TEST_API_KEY=" + nextKey}, "update", "work", "--from-existing"); !ok || !strings.Contains(out, "in use in sandbox "+b.id) {
		t.Fatalf("update: %s", out)
	}
	b.arrives(h, nextKey)
	for placeholder, key := range map[string]string{"v1_": realKey, "v2_": nextKey} {
		h.take()
		out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:openshell:resolve:env:"+placeholder+"TEST_API_KEY")
		if got := h.take(); !strings.Contains(got, "x-api-key="+key+" ") || strings.Contains(out, key) {
			t.Errorf("%s: the API heard %q, the sandbox %q", placeholder, got, out)
		}
	}
	b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
	if out, ok := b.provider([]string{"TEST_API_KEY=" + lastKey}, "update", "work", "--from-existing"); !ok {
		t.Fatalf("update: %s", out)
	}
	b.arrives(h, lastKey)
	kill(t, b.proxy().Pid, unix.SIGKILL)
	b.arrives(h, lastKey)
	guard := b.guard()
	kill(t, guard, unix.SIGKILL)
	b.until("the standby is the guard", func() bool { return b.guard() != guard })
	b.arrives(h, lastKey)

	if out, ok := b.provider(nil, "delete", "work"); !ok || !strings.Contains(out, "refused from now on in sandbox "+b.id) {
		t.Fatalf("delete: %s", out)
	}
	for _, key := range []string{"$TEST_API_KEY", "openshell:resolve:env:v1_TEST_API_KEY"} {
		h.take()
		out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:"+key)
		if got := h.take(); got != "" || !strings.Contains(out, "its provider work was deleted") {
			t.Errorf("after deletion the API heard %q, the sandbox %q", got, out)
		}
	}
	// What the provider protected stays protected.
	if out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:sk-attacker"); !strings.Contains(out, "foreign_credential") || h.take() != "" {
		t.Errorf("a foreign key: %q", out)
	}
	b.record("the deletion", func(r decisionlog.Record) bool {
		return r.Layer == "credentials" && r.Rule == "work" && strings.Contains(r.Reason, "was deleted")
	})
	b.record("the refusal", func(r decisionlog.Record) bool {
		return r.Verdict == "deny" && r.Host == "api.test" && strings.Contains(r.Reason, "was deleted")
	})
	holdsNone(t, []string{realKey, nextKey, lastKey}, filepath.Join(b.dir, "state"), b.records(), filepath.Join(b.dir, "providers"))
	if out := b.exec("/bin/probe", "environments"); strings.Contains(out, "sk-the-") {
		t.Errorf("the environments inside: %s", out)
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	left, err := os.ReadDir(filepath.Join(b.dir, "providers", "attached"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	b.gone()
}
