// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// engine is a dockerd of the test's own: its data, its socket and its network
// namespace, so that it meets no other one and its bridge goes with it.
type engine struct {
	t      *testing.T
	socket string
}

func startDocker(t *testing.T, w *world) *engine {
	t.Helper()
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("needs dockerd: make setup installs docker.io")
	}
	dir := filepath.Join(w.dir, "docker")
	// A socket's path may have 107 bytes; the test's folder may be longer.
	run, err := os.MkdirTemp("", "osd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	e := &engine{t, filepath.Join(run, "d.sock")}
	config, err := json.Marshal(map[string]any{"runtimes": map[string]any{
		"openshell": map[string]any{"path": filepath.Join(built.bin, "openshell-runtime"), "runtimeArgs": []string{"--policy", w.policy}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(run, "daemon.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := exec.Command(
		"dockerd", "--config-file", file, "--data-root", dir, "--exec-root", filepath.Join(run, "exec"),
		"--pidfile", filepath.Join(run, "pid"), "--host", "unix://"+e.socket,
	)
	d.Stdout, d.Stderr = &log, &log
	d.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.Process.Signal(syscall.SIGTERM)
		if err := d.Wait(); err != nil && t.Failed() {
			t.Logf("dockerd: %v\n%s", err, log.Bytes())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if _, code := e.docker("version"); code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("dockerd does not answer\n%s", log.Bytes())
		}
	}
	tar := exec.Command("tar", "-C", w.rootfs, "-c", ".")
	out, err := tar.Output()
	if err != nil {
		t.Fatal(err)
	}
	imp := exec.Command("docker", "--host", "unix://"+e.socket, "import", "-", "probe")
	imp.Stdin = bytes.NewReader(out)
	if out, err := imp.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v: %s", err, out)
	}
	return e
}

// docker runs one docker command and returns what it printed and its status.
func (e *engine) docker(args ...string) (string, int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"--host", "unix://" + e.socket}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		e.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// An ordinary image becomes a sandbox with one flag.
func TestDocker(t *testing.T) {
	w := newWorld(t, testPolicy)
	e := startDocker(t, w)
	run := []string{"run", "--rm", "--runtime", "openshell"}
	host := t.TempDir()
	for _, tc := range []struct {
		name, want string
		status     int
		args       []string
	}{
		{"allowed file", "ok: ", 0, []string{"probe", "/bin/probe", "read", "/etc/passwd"}},
		{"other file", "error: EACCES", 1, []string{"probe", "/bin/probe", "read", "/secret/key"}},
		{"raw socket, which Docker grants", "error: EPERM", 1, []string{"probe", "/bin/probe", "raw"}},
		{"seccomp=unconfined keeps ours", "error: EPERM", 1, []string{"--security-opt", "seccomp=unconfined", "probe", "/bin/probe", "unshare"}},
		{"name lookup", "error: ", 1, []string{"probe", "/bin/probe", "lookup", "c2VjcmV0.attacker.test"}},
		{"the bridge's gateway", "error: ", 1, []string{"probe", "/bin/probe", "dial", "tcp", "172.17.0.1:80"}},
		{"another user", "ok: ", 0, []string{"--user", "1000:1000", "probe", "/bin/probe", "read", "/etc/passwd"}},
		{"volume below a policy path", "ok: written", 0, []string{"-v", host + ":/tmp/v", "probe", "/bin/probe", "write", "/tmp/v/x"}},
		{"volume outside the policy", "error: EACCES", 1, []string{"-v", host + ":/v", "probe", "/bin/probe", "write", "/v/x"}},
		{"missing program", "docker: Error response from daemon", 127, []string{"probe", "/bin/missing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, status := e.docker(append(append([]string{}, run...), tc.args...)...)
			if !strings.HasPrefix(out, tc.want) || status != tc.status {
				t.Errorf("status %d, printed %q; want %d, %q…", status, out, tc.status, tc.want)
			}
		})
	}
	sock := filepath.Join(host, "docker.sock")
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for field, flags := range map[string][]string{
		"linux.namespaces.network": {"--network", "host"},
		"linux.namespaces.pid":     {"--pid", "host"},
		"linux.namespaces.ipc":     {"--ipc", "host"},
		"linux.resources.devices":  {"--privileged"},
		"mounts":                   {"-v", sock + ":/d.sock"},
	} {
		t.Run("refuses "+field, func(t *testing.T) {
			out, status := e.docker(append(append(append([]string{}, run...), flags...), "probe", "/bin/probe", "status")...)
			if status != 125 || !strings.Contains(out, "config.json: "+field+": ") {
				t.Errorf("status %d, printed %q", status, out)
			}
		})
	}
	t.Run("exec and stop", func(t *testing.T) {
		if out, status := e.docker("run", "-d", "--name", "box", "--runtime", "openshell", "probe", "/bin/probe", "sleep", "60s"); status != 0 {
			t.Fatalf("run -d: %s", out)
		}
		if out, status := e.docker("exec", "box", "/bin/probe", "read", "/etc/passwd"); status != 0 || !strings.HasPrefix(out, "ok: ") {
			t.Errorf("exec: status %d, printed %q", status, out)
		}
		if out, status := e.docker("exec", "box", "/bin/probe", "read", "/secret/key"); status != 1 || !strings.HasPrefix(out, "error: EACCES") {
			t.Errorf("exec outside the policy: status %d, printed %q", status, out)
		}
		if out, status := e.docker("rm", "-f", "box"); status != 0 {
			t.Errorf("rm: %s", out)
		}
	})
}
