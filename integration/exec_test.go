// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"
)

// execIn runs `openshell exec` in a sandbox of the world's.
func (w *world) execIn(id string, args ...string) (string, int) {
	w.t.Helper()
	return w.command(append([]string{"exec", "--root", w.state()}, args...)...)
}

// TestExec: another command in a sandbox of `openshell run`, whose bundle nobody outside
// sees, and in one whose bundle is a folder, has what the sandbox's own has, and its policy.
func TestExec(t *testing.T) {
	w := newWorld(t, testPolicy)
	ours, theirs := "ours", w.detached("theirs")
	w.stubborn(ours)
	for _, id := range []string{ours, theirs} {
		for _, tc := range []struct {
			name   string
			args   []string
			status int
			want   string
		}{
			{"itself", []string{id, "/bin/probe", "self"}, 0, "ok: uid=0 gid=0 cwd=/ "},
			{"changed", []string{"-e", "A=b,c", "-w", "/tmp", "-u", "1000:1001", id, "--", "/bin/probe", "self"}, 0, "ok: uid=1000 gid=1001 cwd=/tmp "},
			{"another variable", []string{"-e", "A=b,c", id, "/bin/probe", "self"}, 0, " A=b,c"},
			{"a file of the policy's", []string{id, "/bin/probe", "write", "/tmp/exec"}, 0, "ok: written"},
			{"another file", []string{id, "/bin/probe", "read", "/secret/key"}, 1, "error: EACCES"},
			{"a call", []string{id, "/bin/probe", "mount"}, 1, "error: EPERM"},
			{"no such program", []string{id, "/bin/nothing"}, 255, "exec failed: "},
			{"no command", []string{id}, 2, "want a CONTAINER and a COMMAND"},
			{"no sandbox", []string{"nobody", "/bin/probe", "self"}, 1, `no sandbox has the ID "nobody"`},
		} {
			if out, status := w.execIn(id, tc.args...); status != tc.status || !strings.Contains(out, tc.want) {
				t.Errorf("%s, %s: status %d: %q, want %d and …%s…", id, tc.name, status, out, tc.status, tc.want)
			}
		}
	}
}
