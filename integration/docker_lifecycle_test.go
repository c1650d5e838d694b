// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"
)

// Every verb by which Docker leads a container's life, and what it leaves.
func TestDockerLifecycle(t *testing.T) {
	w := newWorld(t, testPolicy)
	e := startDocker(t, map[string]string{"openshell": testPolicy})
	e.importImage("probe", w.rootfs)
	start := func(t *testing.T, name string, args ...string) {
		t.Helper()
		e.must(append([]string{"run", "--detach", "--name", name, "--runtime", "openshell"}, args...)...)
		t.Cleanup(func() { e.docker("rm", "--force", name) })
	}
	inspect := func(t *testing.T, name, format, want string) {
		t.Helper()
		if got := e.must("inspect", "--format", format, name); got != want {
			t.Errorf("%s of %s is %q, want %q", format, name, got, want)
		}
	}

	t.Run("terminal", func(t *testing.T) { e.terminal(t) })
	t.Run("as runc: programs that do not start", func(t *testing.T) { e.asRunc(t) })
	t.Run("exec", func(t *testing.T) {
		start(t, "box", "probe", "/bin/probe", "serve", "8080")
		for _, tc := range []struct {
			name, want string
			status     int
			args       []string
		}{
			{"allowed", "ok: ", 0, []string{"box", "/bin/probe", "read", "/etc/passwd"}},
			{"outside the policy", "error: EACCES", 1, []string{"box", "/bin/probe", "read", "/secret/key"}},
			{"another user", "ok: uid=1000 gid=1000 ", 0, []string{"--user", "1000:1000", "box", "/bin/probe", "self"}},
			{"environment", `HTTPS_PROXY=mine`, 0, []string{"--env", "HTTPS_PROXY=mine", "box", "/bin/probe", "self"}},
		} {
			out, status := e.docker(append([]string{"exec"}, tc.args...)...)
			if status != tc.status || !strings.Contains(out, tc.want) {
				t.Errorf("%s: status %d, printed %q; want %d, …%s…", tc.name, status, out, tc.status, tc.want)
			}
		}
	})
	t.Run("stop", func(t *testing.T) {
		start(t, "box", "probe", "/bin/probe", "serve", "8080")
		e.until("the server serves", func() bool { return strings.Contains(e.must("logs", "box"), "serving") })
		began := time.Now()
		e.must("stop", "--time", "30", "box")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("stop took %s: SIGTERM did not arrive", took)
		}
		inspect(t, "box", "{{.State.ExitCode}}", "0")
		if out := e.must("logs", "box"); !strings.HasSuffix(out, "terminated") {
			t.Errorf("logs: %q", out)
		}
		if left := e.processes("openshell-proxy"); len(left) != 0 {
			t.Errorf("the proxy of a stopped container remains: %v", left)
		}
		e.must("start", "box")
		if out, status := e.docker("exec", "box", "/bin/probe", "read", "/secret/key"); status != 1 || !strings.HasPrefix(out, "error: EACCES") {
			t.Errorf("after stop and start: status %d, printed %q", status, out)
		}
	})
	t.Run("kill", func(t *testing.T) {
		start(t, "box", "probe", "/bin/probe", "stay", "60s")
		e.must("kill", "--signal", "KILL", "box")
		e.until("the container is gone", func() bool { return e.must("inspect", "--format", "{{.State.Status}}", "box") == "exited" })
		inspect(t, "box", "{{.State.ExitCode}}", "137")
	})
	t.Run("pause, update, top, stats", func(t *testing.T) {
		start(t, "box", "probe", "/bin/probe", "stay", "60s")
		e.must("pause", "box")
		inspect(t, "box", "{{.State.Status}}", "paused")
		if out, status := e.docker("exec", "box", "/bin/probe", "status"); status == 0 {
			t.Errorf("exec in a paused container: %s", out)
		}
		e.must("unpause", "box")
		e.must("update", "--memory", "64m", "--memory-swap", "64m", "box")
		inspect(t, "box", "{{.HostConfig.Memory}}", "67108864")
		if out := e.must("top", "box"); !strings.Contains(out, "/bin/probe stay 60s") {
			t.Errorf("top: %q", out)
		}
		if out := e.must("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "box"); !strings.HasPrefix(out, "box ") || !strings.HasSuffix(out, "/ 64MiB") {
			t.Errorf("stats: %q", out)
		}
	})
	t.Run("restart policy", func(t *testing.T) {
		start(t, "box", "--restart", "on-failure:2", "probe", "/bin/probe", "read", "/secret/key")
		e.until("Docker gives up", func() bool {
			return e.must("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "box") == "2 exited"
		})
		if out := e.must("logs", "box"); strings.Count(out, "error: EACCES") != 3 {
			t.Errorf("three runs logged %q", out)
		}
	})
	t.Run("health check", func(t *testing.T) {
		for name, file := range map[string]string{"healthy": "/etc/passwd", "unhealthy": "/secret/key"} {
			e.must("import", "--change", fmt.Sprintf(`HEALTHCHECK --interval=1s --retries=1 CMD ["/bin/probe", "read", %q]`, file), tarOf(t, w.rootfs), name)
			start(t, name, name, "/bin/probe", "stay", "60s")
			e.until("the check has been made", func() bool { return e.must("inspect", "--format", "{{.State.Health.Status}}", name) != "starting" })
			inspect(t, name, "{{.State.Health.Status}}", name)
		}
	})
	t.Run("ten at once", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				out, err := e.command("run", "--rm", "--runtime", "openshell", "probe", "/bin/probe", "read", "/secret/key").CombinedOutput()
				if !strings.HasPrefix(string(out), "error: EACCES") {
					t.Errorf("container %d: %v: %s", i, err, out)
				}
			})
		}
		all.Wait()
	})
	e.nothingRemains()
}

// command is one docker command to be run.
func (e *engine) command(args ...string) *exec.Cmd {
	return exec.Command("docker", append([]string{"--host", "unix://" + e.socket()}, args...)...)
}

func tarOf(t *testing.T, rootfs string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rootfs.tar")
	if out, err := exec.Command("tar", "-C", rootfs, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return file
}

// terminal: what is typed reaches the command of `docker run -it`, and what it
// prints comes back.
func (e *engine) terminal(t *testing.T) {
	pty, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := e.command("run", "--rm", "-it", "--runtime", "openshell", "probe", "/bin/probe", "terminal")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(pty, "typed\r"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(pty)
	if err := cmd.Wait(); err != nil || !strings.Contains(string(out), `ok: terminal, read "typed"`) {
		t.Errorf("%v, printed %q", err, out)
	}
}

// asRunc: Docker reads what a runtime says of a program that does not start, and
// makes a status of it. Debian's runc looks the program up before the container is
// there and says so in fewer words.
func (e *engine) asRunc(t *testing.T) {
	for name, args := range map[string][]string{
		"missing":              {"/bin/missing"},
		"missing in PATH":      {"missing"},
		"not executable":       {"/etc/passwd"},
		"a folder":             {"/etc"},
		"missing work folder":  {"--workdir", "/etc/passwd", "/bin/probe"},
		"user that is no user": {"--user", "nobody-here", "/bin/probe"},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(runtime string) (string, int) {
				flags, argv := args[:len(args)-1], args[len(args)-1:]
				all := append([]string{"run", "--rm", "--runtime", runtime}, flags...)
				out, status := e.docker(append(append(all, "probe"), argv...)...)
				return strings.ReplaceAll(out, "openshell-runtime", "runc"), status
			}
			want, wantStatus := run("runc")
			if got, status := run("openshell"); status != wantStatus {
				t.Errorf("status %d, printed %q;\nrunc: %d, %q", status, got, wantStatus, want)
			} else if strings.ReplaceAll(got, "error during container init: ", "") != want {
				t.Errorf("printed %q;\nrunc: %q", got, want)
			}
		})
	}
}
