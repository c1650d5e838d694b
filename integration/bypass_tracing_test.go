// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestBypass_B37_Memory: no process writes into another, be it an allowed program
// of the same container, one that the attacker started, or one outside.
func TestBypass_B37_Memory(t *testing.T) {
	t.Parallel()
	refused := map[string]string{"attach": "EPERM", "seize": "EPERM", "writev": "EPERM", "getfd": "EPERM"}
	for _, tc := range []struct {
		name, policy, pid, write string
	}{
		{"the container's first process", netPolicy, "1", "EROFS"},
		{"the first process, where files are not restricted", openPolicy, "1", "EACCES"},
		{"a program that the attacker started", netPolicy, "child", "EROFS"},
		{"the proxy", netPolicy, "proxy", "ENOENT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{policy: tc.policy, spec: privileged})
			pid := tc.pid
			if pid == "proxy" {
				pid = fmt.Sprint(b.guard())
			}
			got := answers(t, b.exec("/bin/probe", "mem", pid))
			if got["write"] != tc.write {
				t.Errorf("opening its memory: %s, want %s", got["write"], tc.write)
			}
			for how, want := range refused {
				if how == "getfd" && tc.pid == "proxy" {
					want = "ESRCH" // there is no such process to begin with
				}
				if got[how] != want {
					t.Errorf("%s: %s, want %s", how, got[how], want)
				}
			}
		})
	}
}

// TestBypass_B37_WritableProc: where a policy names programs, no program writes into
// the memory of a program that it has started, although the policy makes /proc writable;
// standard output can still be written by its link below /proc. Where a policy names no
// program, tracing a child is not refused, because it gives no other program's rights.
func TestBypass_B37_WritableProc(t *testing.T) {
	t.Parallel()
	const network = `network_policies:
  api:
    endpoints: [{host: api.test, port: 443}]
    binaries: [{path: %q}]
`
	named, everybody := fmt.Sprintf(network, "/bin/probe"), fmt.Sprintf(network, "/**")
	const files = "version: 1\nfilesystem_policy: {read_only: [/bin, /lib, /lib64, /usr, /etc], read_write: [/tmp, %s]}\n"
	for _, tc := range []struct {
		name, policy, config string
		traces               bool
	}{
		{"/proc", fmt.Sprintf(files, "/proc") + named, "", false},
		{"a folder in it", fmt.Sprintf(files, "/proc/") + named, "", false},
		{"everything", "version: 1\nfilesystem_policy: {}\n" + named, "", false},
		{"everything, for every program, and tracing: deny", openPolicy, "tracing: deny\n", false},
		{"control: /proc, for every program", fmt.Sprintf(files, "/proc") + everybody, "", true},
		{"control: everything, for every program", "version: 1\nfilesystem_policy: {}\n" + everybody, "", true},
		{"control: no network", openPolicy, "", true},
		{"control: tracing: allow", "version: 1\nfilesystem_policy: {}\n" + named, "tracing: allow\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// With the baseline an empty filesystem_policy restricts files.
			b := newBox(t, boxOptions{policy: tc.policy, config: "filesystem_baseline: explicit\n" + tc.config, spec: privileged})
			want := map[string]string{"write": "EROFS", "attach": "EPERM", "seize": "EPERM", "writev": "EPERM", "getfd": "EPERM"}
			if tc.traces { // seize comes after attach; the address of writev is the program's text
				want = map[string]string{"write": "0", "attach": "0", "seize": "EPERM", "writev": "EFAULT", "getfd": "0"}
			}
			if got := answers(t, b.exec("/bin/probe", "mem", "child")); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if out := b.exec("/bin/probe", "write", "/proc/self/fd/1"); !strings.Contains(out, "ok: written") {
				t.Errorf("writing to standard output by its link printed %q", out)
			}
			// The first process is in another Landlock domain.
			for how, errno := range answers(t, b.exec("/bin/probe", "mem", "1")) {
				if errno != "EPERM" && errno != "EACCES" && errno != "EROFS" {
					t.Errorf("the first process, %s: %s", how, errno)
				}
			}
		})
	}
}

// TestBypass_B37_Puppet: a program that no rule names starts one that is named, static
// and its own child, as its tracer and writes system calls into it: nothing arrives. The
// control is the same sandbox with the operator's tracing: allow.
func TestBypass_B37_Puppet(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the probe traces on amd64 only")
	}
	for _, tc := range []struct {
		name, config, prints string
		arrives              int
	}{
		{"a named program", "", "error: EPERM", 0},
		{"control: tracing: allow", "tracing: allow\n", `ok: "HTTP/1.1 200"`, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{config: tc.config, files: func(rootfs string) {
				probe, err := os.ReadFile(filepath.Join(rootfs, "bin/probe"))
				if err == nil {
					err = os.WriteFile(filepath.Join(rootfs, "bin/attacker"), probe, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			}})
			address := b.up.Addr.String() + ":80"
			const request = "GET /stolen HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"
			if out := b.exec("/bin/attacker", "puppet", "/bin/probe", address, request); !strings.HasPrefix(out, tc.prints) {
				t.Errorf("printed %q, want %q", out, tc.prints)
			}
			stolen := 0
			for _, r := range b.up.Requests() {
				if r.Path == "/stolen" {
					stolen++
				}
			}
			if stolen != tc.arrives {
				t.Errorf("%d requests arrived, want %d", stolen, tc.arrives)
			}
		})
	}
}

// TestBypass_B37_Reload: a sandbox whose programs can trace each other takes no policy that
// names a program, by any way in which a policy comes; with tracing: deny or allow it does.
func TestBypass_B37_Reload(t *testing.T) {
	t.Parallel()
	const rules = "network_policies:\n  api:\n    endpoints: [{host: api.test, port: 443}]\n    binaries: [{path: %q}]\n"
	const files = "version: 1\nfilesystem_policy: {}\n"
	const refusal = "network_policies.api.binaries[0]: the programs of this sandbox can trace each other"
	for _, tc := range []struct {
		name, config string
		refused      bool
	}{
		{"tracing: auto", "", true},
		{"tracing: deny", "tracing: deny\n", false},
		{"tracing: allow", "tracing: allow\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{policy: files + "network_policies: {}\n", config: tc.config})
			if out, status := b.set(files + fmt.Sprintf(rules, "/**")); status != 0 {
				t.Errorf("every program: status %d: %s", status, out)
			}
			out, status := b.set(files + fmt.Sprintf(rules, "/bin/probe"))
			if !tc.refused {
				if status != 0 {
					t.Errorf("a program: status %d: %s", status, out)
				}
				return
			}
			if status != 3 || !strings.Contains(out, refusal) || !strings.Contains(out, "tracing: deny") {
				t.Errorf("a program: status %d: %s", status, out)
			}
			if out, _ := b.cli("policy", "get", b.id); strings.Contains(out, "/bin/probe") {
				t.Errorf("in force: %s", out)
			}
			// Another worker and another guard have the same answer.
			b.killed(func() {
				b.until("the sandbox answers", func() bool { _, err := b.control().Status(t.Context()); return err == nil })
				if out, status := b.set(files + fmt.Sprintf(rules, "/bin/probe")); status != 3 || !strings.Contains(out, refusal) {
					t.Errorf("a program, of a new process: status %d: %s", status, out)
				}
			})
		})
	}
}
