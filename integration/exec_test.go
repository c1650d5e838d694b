// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// execIn runs `openshell exec` in a sandbox of the world's.
func (w *world) execIn(args ...string) (string, int) {
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
			{"no such program", []string{id, "/bin/nothing"}, 127, "exec failed: "},
			{"no command", []string{id}, 2, "want a CONTAINER and a COMMAND"},
			{"no sandbox", []string{"nobody", "/bin/probe", "self"}, 1, `no sandbox has the ID "nobody"`},
		} {
			if out, status := w.execIn(tc.args...); status != tc.status || !strings.Contains(out, tc.want) {
				t.Errorf("%s, %s: status %d: %q, want %d and …%s…", id, tc.name, status, out, tc.status, tc.want)
			}
		}
	}
}

// exec finds the bundle of every run, although one thread of the runtime, any one, has
// stayed in the container's mount namespace. A look at the main thread alone misses one
// run in three.
func TestExecEveryRun(t *testing.T) {
	w := newWorld(t, testPolicy)
	for i := range 15 {
		id := fmt.Sprintf("run-%d", i)
		w.stubborn(id)
		if out, status := w.execIn(id, "/bin/probe", "self"); status != 0 {
			t.Errorf("%s: status %d: %s", id, status, out)
		}
	}
}

// exec ends when its command ends, although a process that the command has started holds
// the output. All output of the command arrives, even if the reader is slower than the
// grace for such processes.
func TestExecLeavesAProcess(t *testing.T) {
	const size = 1 << 20
	w := newWorld(t, testPolicy)
	w.stubborn("box")
	for name, slow := range map[string]time.Duration{"reader": 0, "slow reader": 3 * time.Second} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(built.bin, "openshell"), "exec", "--root", w.state(), "box", "/bin/probe", "leave", strconv.Itoa(size), "10m")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(slow) //nolint:forbidigo // the test is about a slow reader
			text, err := io.ReadAll(out)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("exec: %v: %s", err, stderr.String())
			}
			if n := strings.Count(string(text), "x"); n != size/64*63 || !strings.Contains(string(text), "ok: left") {
				t.Errorf("%d of %d bytes arrived, and …%.40q", n, size/64*63, text[max(0, len(text)-40):])
			}
		})
	}
}
