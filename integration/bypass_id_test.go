// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBypass_B94_Identifiers: each ID that runc takes works with each command that takes
// an ID: roles and flags of our programs, names of our files and folders, the longest
// name that a folder can have. An ID that runc refuses is refused.
func TestBypass_B94_Identifiers(t *testing.T) {
	w := newWorld(t, testPolicy)
	dir := w.bundle()
	for _, id := range []string{
		"guard", "worker", "standby", "openshell-proxy", // roles
		"-h", "--help", "--root", "-", // flags
		".sandbox", ".stage", ".hidden", "...", "@", // folders
		"sandbox.json", "state.json", "control.sock", "lock", "refresher.log", "notify", // files
		"a+b_c-D.9", strings.Repeat("n", 255),
	} {
		t.Run(id[:min(len(id), 20)], func(t *testing.T) {
			t.Parallel()
			do := func(args ...string) string {
				t.Helper()
				out, err := w.runtime(args...)
				if err != nil {
					t.Fatalf("%s: %v: %s", args[0], err, out)
				}
				return out
			}
			if id == "@" {
				if out, err := w.runtime("create", "--bundle", dir, "--", id); err == nil || !strings.Contains(out, "invalid container ID format") {
					t.Errorf("create: %v: %s", err, out)
				}
				return
			}
			do("create", "--bundle", dir, "--", id)
			t.Cleanup(func() { _, _ = w.runtime("delete", "--force", "--", id) })
			do("start", "--", id)
			var st struct{ ID, Status string }
			if out := do("state", "--", id); json.Unmarshal([]byte(out), &st) != nil || st.ID != id || st.Status != "running" {
				t.Errorf("state: %s", out)
			}
			if out := do("exec", "--", id, "/bin/probe", "stat", "/"); out != "ok: there" {
				t.Errorf("exec printed %q", out)
			}
			if out := do("list", "--quiet"); !strings.Contains("\n"+out+"\n", "\n"+id+"\n") {
				t.Errorf("list: %s", out)
			}
			cli := func(args ...string) string {
				t.Helper()
				out, err := exec.Command(filepath.Join(w.bin, "openshell"), args...).CombinedOutput()
				if err != nil {
					t.Errorf("openshell %s: %v: %s", args[0], err, out)
				}
				return string(out)
			}
			if out := cli("inspect", "--root", w.state(), "--", id); !strings.Contains(out, id) || !strings.Contains(out, "running") {
				t.Errorf("inspect: %s", out)
			}
			if out := cli("exec", "--root", w.state(), "--", id, "/bin/probe", "stat", "/"); out != "ok: there\n" {
				t.Errorf("openshell exec printed %q", out)
			}
			if out, err := w.runtime("exec", "--", id, "/bin/probe", "say", "tcp", "192.0.2.1:443", "hello"); err == nil {
				t.Errorf("connected: %s", out)
			}
			waitFor(t, "the refusal is in the log", func() bool {
				return strings.Contains(cli("logs", "--log-dir", w.records(), "--", id), "192.0.2.1")
			})
			cli("policy", "get", "--root", w.state(), "--", id)
			do("ps", "--", id)
			do("kill", "--", id, "KILL")
			do("delete", "--force", "--", id)
			if out, err := w.runtime("state", "--", id); err == nil {
				t.Errorf("state after delete: %s", out)
			}
		})
	}
	t.Run("no longer than a file's name", func(t *testing.T) {
		id := strings.Repeat("n", 256)
		if out, err := w.runtime("create", "--bundle", dir, "--", id); err == nil {
			t.Errorf("created: %s", out)
		}
	})
	t.Cleanup(w.nothingRemains)
}
