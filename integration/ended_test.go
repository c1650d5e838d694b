// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
