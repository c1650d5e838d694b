// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cli runs one of the CLI's commands on the world's sandboxes and returns what it
// printed and its status.
func (w *world) cli(args ...string) (string, int) {
	w.t.Helper()
	return w.command(append(args, "--root", w.state())...)
}

// command is cli for commands that ask no sandbox.
func (w *world) command(args ...string) (string, int) {
	w.t.Helper()
	out, err := exec.Command(filepath.Join(built.bin, "openshell"), args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return strings.TrimSpace(string(out)), exit.ExitCode()
	case err != nil:
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), 0
}

// A running sandbox takes another policy, keeps the old one when that is refused,
// says what was refused, and goes back.
func TestPolicyOfARunningSandbox(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("reload-%d", os.Getpid())
	w.stubborn(id)
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(w.dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	rules := "network_policies:\n  api:\n    endpoints: [{host: api.test, port: 443}]\n    binaries: [{path: %q}]\n"
	network := write("network.yaml", strings.Replace(testPolicy, "network_policies: {}\n", fmt.Sprintf(rules, "/**"), 1))
	program := write("program.yaml", strings.Replace(testPolicy, "network_policies: {}\n", fmt.Sprintf(rules, "/bin/probe"), 1))
	static := write("static.yaml", strings.Replace(testPolicy, "/usr, ", "/usr, /secret, ", 1))
	invalid := write("invalid.yaml", "version: 1\nnetwork_polices: {}\n")
	for _, tc := range []struct {
		name, want string
		status     int
		args       []string
	}{
		{"set", "revision 2", 0, []string{"policy", "set", id, "--policy", network, "--wait"}},
		{"a program", "network_policies.api.binaries[0]: ", 3, []string{"policy", "set", id, "--policy", program}},
		{"static change", "filesystem_policy", 3, []string{"policy", "set", id, "--policy", static}},
		{"invalid", "invalid.yaml:2:1: ", 3, []string{"policy", "set", id, "--policy", invalid}},
		{"get", "host: api.test", 0, []string{"policy", "get", id}},
		{"get the first", "network_policies: {}", 0, []string{"policy", "get", id, "--revision", "1"}},
		{"rollback", "revision 3", 0, []string{"policy", "rollback", id, "--revision", "1"}},
		{"rollback to what never was", "revision 9 is not kept", 1, []string{"policy", "rollback", id, "--revision", "9"}},
		{"get what is rolled back", "network_policies: {}", 0, []string{"policy", "get", id}},
		{"inspect", "revision 3 from ", 0, []string{"inspect", id}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, status := w.cli(tc.args...); status != tc.status || !strings.Contains(out, tc.want) {
				t.Errorf("status %d, printed %s; want %d, …%s…", status, out, tc.status, tc.want)
			}
		})
	}
	out, _ := w.cli("policy", "list", id)
	if lines := strings.Split(out, "\n"); len(lines) != 4 || !strings.Contains(lines[2], "superseded") || !strings.Contains(lines[3], "loaded") {
		t.Errorf("list printed\n%s", out)
	}
}
