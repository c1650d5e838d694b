// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		"linux.maskedPaths":        {"--security-opt", "systempaths=unconfined"},
		"mounts":                   {"-v", sock + ":/d.sock"},
	} {
		t.Run("refuses "+field, func(t *testing.T) {
			out, status := e.sandbox("openshell", append(flags, "probe", "/bin/probe", "status")...)
			if status != 125 || !strings.Contains(out, "config.json: "+field+": ") {
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
