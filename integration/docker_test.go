// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/libsandbox/state"
)

// An ordinary image becomes a sandbox with one flag.
func TestDocker(t *testing.T) {
	w := newWorld(t, testPolicy)
	e := startDocker(t, map[string]string{
		"openshell": testPolicy, "strict": strings.Replace(testPolicy, "/tmp, ", "", 1), "broken": "version: 1\nfilesystem_polic: {}\n",
	})
	e.importImage("probe", w.rootfs)
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
		{"systempaths=unconfined keeps our masks", "ok: 0 bytes", 0, []string{"--security-opt", "systempaths=unconfined", "probe", "/bin/probe", "read", "/proc/keys"}},
		{"missing program", "docker: Error response from daemon", 127, []string{"probe", "/bin/missing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, status := e.sandbox("openshell", tc.args...)
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
			out, status := e.sandbox("openshell", append(flags, "probe", "/bin/probe", "status")...)
			if status != 125 || !strings.Contains(out, "config.json: "+field+": ") || strings.Contains(out, "hook") || field == "linux.namespaces.network" && !strings.Contains(out, "(without --network host)") {
				t.Errorf("status %d, printed %q", status, out)
			}
		})
	}
	t.Run("invalid policy", func(t *testing.T) {
		out, status := e.sandbox("broken", "probe", "/bin/probe", "status")
		if status != 125 || !strings.Contains(out, `:2:1: unknown field "filesystem_polic" in policy (did you mean "filesystem_policy"?)`) {
			t.Errorf("status %d, printed %q", status, out)
		}
	})
	t.Run("policy by annotation", func(t *testing.T) { e.annotated(t) })
	e.nothingRemains()
}

// TestBypass_B45_B57_DockerMounts: what Docker mounts by itself and ordinary folders
// are accepted; folders that hand the sandbox the host, and a folder in which an
// engine listens however deep, are refused. The control is a listener of another
// name, to which the workload connects.
func TestBypass_B45_B57_DockerMounts(t *testing.T) {
	w := newWorld(t, testPolicy)
	e := startDocker(t, map[string]string{"openshell": testPolicy})
	e.importImage("probe", w.rootfs)
	host, err := os.MkdirTemp("", "osm-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(host) })
	listen := func(name string) {
		t.Helper()
		file := filepath.Join(host, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		e.within(func() error { // in the network namespace that is Docker's host namespace
			l, err := net.Listen("unix", file)
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
				go accept(l)
			}
			return err
		})
	}
	listen("engine/a/b/c/docker.sock")
	listen("agent/ssh-XXabc/agent.42")
	listen("database/a/b/mysqld.sock")
	if err := os.Symlink("/run", filepath.Join(host, "run")); err != nil {
		t.Fatal(err)
	}
	refused := func(field string, flags ...string) {
		t.Helper()
		out, status := e.sandbox("openshell", append(flags, "probe", "/bin/probe", "status")...)
		if status != 125 || !strings.Contains(out, "config.json: "+field+": ") {
			t.Errorf("%v: status %d, printed %q", flags, status, out)
		}
	}
	for _, source := range []string{"/run", "/var/run/", "/var/lib", "/dev", filepath.Join(host, "run"), filepath.Join(host, "engine"), filepath.Join(host, "agent"), host, e.run} {
		refused("mounts", "-v", source+":/tmp/v")
	}
	refused("linux.sysctl", "--sysctl", "net.ipv4.conf.all.route_localnet=1")
	e.must("volume", "create", "plain")
	e.must("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/run", "hostile")
	refused("mounts", "-v", "hostile:/tmp/v")
	for _, flags := range [][]string{
		{"-v", "plain:/tmp/v"},
		{"--tmpfs", "/tmp/v"},
		{"-v", "/dev/shm:/tmp/shm", "-v", "plain:/tmp/v"},
		{"-v", "/tmp/v"},
		{"-v", "plain:/tmp/v", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--sysctl", "net.core.somaxconn=1024"},
	} {
		if out, status := e.sandbox("openshell", append(flags, "probe", "/bin/probe", "write", "/tmp/v/x")...); status != 0 || !strings.HasPrefix(out, "ok: ") {
			t.Errorf("%v: status %d, printed %q", flags, status, out)
		}
	}
	id := e.must("run", "--detach", "--runtime", "openshell", "-v", filepath.Join(host, "database")+":/tmp/v", "probe", "/bin/probe", "sleep", "1m")
	if out := e.must("exec", id, "/bin/probe", "unix", "/tmp/v/a/b/mysqld.sock"); !strings.Contains(out, "unix=0") {
		t.Errorf("the control does not reach its listener: %s", out)
	}
	st, err := state.LoadState(filepath.Join(e.run, "exec/runtime-runc/moby"), id)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Sockets) != 1 || !strings.HasSuffix(st.Sockets[0], ": "+filepath.Join(host, "database/a/b/mysqld.sock")) {
		t.Errorf("recorded %q", st.Sockets)
	}
	e.must("rm", "--force", id)
	e.nothingRemains()
}

// accept takes connections until l is closed, and reads each to its end.
func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

// annotated: where Docker has annotations (API 1.43), one names the policy. Where
// it has none, Docker says so, and a runtime's name stands for a policy.
func (e *engine) annotated(t *testing.T) {
	write := []string{"probe", "/bin/probe", "write", "/tmp/x"}
	var major, minor int
	if _, err := fmt.Sscanf(e.must("version", "--format", "{{.Server.APIVersion}}"), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		want   string
		status int
	}{
		"openshell": {"ok: written", 0},
		"strict":    {"error: EACCES", 1},
		"missing":   {"there is no policy", 125},
		"none":      {"there is no policy", 125},
		"../strict": {"is a path", 125},
	} {
		if major == 1 && minor < 43 {
			tc.want, tc.status = "API version 1.43", 1
		}
		out, status := e.sandbox("annotated", append([]string{"--annotation", "openshell.dev/policy=" + name}, write...)...)
		if status != tc.status || !strings.Contains(out, tc.want) {
			t.Errorf("%s: status %d, printed %q; want %d, …%s…", name, status, out, tc.status, tc.want)
		}
	}
}
