// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
)

// TestEndedSandbox: commands say of a sandbox that has ended that it has, while the
// runtime still has its state and after that, and openshell logs -f ends with it.
func TestEndedSandbox(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	b.refused("/bin/probe", "dial", "tcp", "denied.test:80")
	follow := exec.CommandContext(t.Context(), filepath.Join(b.bin, "openshell"), "logs", "-f", b.id, "--config", b.config)
	followed := &output{}
	follow.Stdout, follow.Stderr = followed, followed
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- follow.Wait() }()
	b.until("the refusal is followed", func() bool { return strings.Contains(followed.String(), " deny ") })

	logs := b.records()
	if removed, err := decisionlog.Prune(logs, decisionlog.Limits{MaxAge: 1, MaxBytes: 1}); err != nil || len(removed) > 0 {
		t.Errorf("the log of a running sandbox: removed %+v, %v", removed, err)
	}
	if out, err := b.runtime("kill", b.id, "KILL"); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	b.until("the container has stopped", func() bool {
		out, err := b.runtime("state", b.id)
		return err == nil && strings.Contains(out, `"stopped"`)
	})
	b.until("logs -f has ended", func() bool { return len(ended) == 1 })
	if err := <-ended; err != nil {
		t.Errorf("logs -f: %v: %s", err, followed)
	}
	commands := [][]string{
		{"exec", "--root", b.state(), "--config", b.config, b.id, "/bin/probe", "stat", "/"},
		{"policy", "get", "--root", b.state(), "--config", b.config, b.id},
		{"policy", "set", "--root", b.state(), "--config", b.config, "--policy", b.policy, b.id},
		{"inference", "metrics", "--root", b.state(), "--config", b.config, b.id},
		{"provider", "detach", "--root", b.state(), "--config", b.config, b.id, "work"},
	}
	says := func(want string) {
		t.Helper()
		for _, args := range commands {
			if out, status := b.command(args...); status != 1 || !strings.HasPrefix(out, "sandbox "+b.id+" has ended") || !strings.Contains(out, want) {
				t.Errorf("%q: status %d, printed %q, want …%s…", args, status, out, want)
			}
		}
	}
	says("openshell-runtime --root " + b.state() + " delete " + b.id)
	if out, status := b.command("inspect", "--root", b.state(), b.id); status != 0 || !strings.Contains(out, "closed: the sandbox has ended") || !strings.Contains(out, "stopped") {
		t.Errorf("inspect: status %d, printed %q", status, out)
	}
	if out, err := b.runtime("delete", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	commands = append(commands, []string{"inspect", "--root", b.state(), "--config", b.config, b.id})
	says("openshell logs " + b.id)
	if out, status := b.logs("-f"); status != 0 || !strings.Contains(out, " deny ") {
		t.Errorf("logs -f of an ended sandbox: status %d, printed %q", status, out)
	}
	if removed, err := decisionlog.Prune(logs, decisionlog.Limits{MaxAge: 1}); err != nil || len(removed) != 1 || removed[0].ID != b.id {
		t.Errorf("removed %+v, %v", removed, err)
	}
}

// TestCreatePrunesLogs: a create removes logs that are older than the operator's
// log_max_age, once in an hour, and no other.
func TestCreatePrunesLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, openPolicy)
	w.config = w.file("config.yaml", "log_dir: "+w.records()+"\nlog_max_age: 1h\n")
	old := func(id string, age time.Duration) string {
		t.Helper()
		dir := filepath.Join(w.records(), id)
		file, at := filepath.Join(dir, decisionlog.FileName), time.Now().Add(-age)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, nil, 0o600), os.Chtimes(file, at, at), os.Chtimes(dir, at, at)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	there := func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	}
	aged, young := old("aged", 2*time.Hour), old("young", 30*time.Minute)
	w.expect("ok: ", "/bin/probe", "stat", "/")
	if there(aged) || !there(young) {
		t.Errorf("after a create: aged is there: %t, young is there: %t", there(aged), there(young))
	}
	aged = old("aged", 2*time.Hour)
	w.expect("ok: ", "/bin/probe", "stat", "/")
	if !there(aged) {
		t.Error("a second create within the hour pruned")
	}
}
