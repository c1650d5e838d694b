// SPDX-License-Identifier: Apache-2.0

// Package integration tests the built programs on a real kernel: what a process
// in a sandbox gets, asked by a probe inside and seen from the other side.
package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/testenv"
)

// runTimeout limits one run of a sandbox in a test.
const runTimeout = 60 * time.Second

const testPolicy = `version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /bin, /etc, /proc, /dev/urandom]
  read_write: [/tmp, /dev/null]
network_policies: {}
`

var built = struct {
	bin string
	err error
}{}

// binVariable names a folder with the programs already built, for a machine
// without Go.
const binVariable = "OPENSHELL_TEST_BIN"

// TestMain builds the five programs and the probe once, side by side.
func TestMain(m *testing.M) {
	if dir := os.Getenv(binVariable); dir != "" {
		built.bin = dir
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "openshell-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.bin, built.err = dir, build(dir)
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func build(dir string) error {
	for _, p := range []struct{ out, pkg, cgo string }{
		{"openshell-runtime", "../cmd/openshell-runtime", "1"},
		{"openshell", "../cmd/openshell", "0"},
		{"openshell-launch", "../hooks/launch", "0"},
		{"openshell-proxy", "../cmd/openshell-proxy", "0"},
		{"openshell-refresher", "../cmd/openshell-refresher", "0"},
		{"probe", "./probe", "0"},
		{"demo", "./demo", "0"},
		{"agent", "./demo/agent", "0"},
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags", "seccomp,urfave_cli_no_docs", "-o", filepath.Join(dir, p.out), p.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+p.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.pkg, err, out)
		}
	}
	return nil
}

// world is one root filesystem with the probe in it, one policy, one operator's
// configuration and one root of states.
type world struct {
	t                           *testing.T
	dir, rootfs, policy, config string
	// bin holds the programs; flags are the runtime's own, beside the world's.
	bin   string
	flags []string
	// env is added to the runtime's own environment.
	env []string
}

func newWorld(t *testing.T, policy string) *world {
	t.Helper()
	testenv.Require(t, testenv.Root)
	if built.err != nil {
		t.Fatal(built.err)
	}
	w := &world{t: t, dir: t.TempDir(), bin: built.bin}
	w.rootfs = filepath.Join(w.dir, "rootfs")
	for _, d := range []string{"bin", "usr", "etc", "tmp", "proc", "dev", "sys", "secret", "root"} {
		if err := os.MkdirAll(filepath.Join(w.rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	probe, err := os.ReadFile(filepath.Join(built.bin, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.rootfs, "bin/probe"), probe, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secret/key": "secret", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(w.rootfs, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.policy, w.config = w.file("policy.yaml", policy), w.file("config.yaml", "log_dir: "+w.records()+"\n")
	return w
}

// file writes a file of the world's, outside the sandbox.
func (w *world) file(name, text string) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// records is the folder of all decision records.
func (w *world) records() string { return filepath.Join(w.dir, "records") }

// state is the root of the runtime's states.
func (w *world) state() string { return filepath.Join(w.dir, "state") }

// runtimeArgs are the runtime's own flags.
func (w *world) runtimeArgs(args ...string) []string {
	return slices.Concat([]string{"--root", w.state(), "--policy", w.policy, "--config", w.config}, w.flags, args)
}

// run runs argv in a sandbox through `openshell run` and returns what it
// printed and its exit status.
func (w *world) run(argv ...string) (string, int) {
	w.t.Helper()
	return w.runWith(nil, argv...)
}

func (w *world) runWith(flags []string, argv ...string) (string, int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	args := []string{
		"run", "--root", w.state(), "--rootfs", w.rootfs, "--policy", w.policy, "--config", w.config,
	}
	args = append(append(append(args, flags...), "--"), argv...)
	cmd := exec.CommandContext(ctx, filepath.Join(built.bin, "openshell"), args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		w.t.Fatalf("%v: still running after %s; printed %s", argv, runTimeout, out)
	}
	if err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// expect fails unless the sandboxed argv printed a line starting with prefix.
func (w *world) expect(prefix string, argv ...string) string {
	w.t.Helper()
	out, _ := w.run(argv...)
	if !strings.HasPrefix(out, prefix) {
		w.t.Errorf("%v printed %q, want %q…", argv, out, prefix)
	}
	return out
}

// A policy that uses what is not enforced is refused, and the refusal leaves
// nothing behind.
func TestUnenforcedRulesAreRefusedNotIgnored(t *testing.T) {
	w := newWorld(t, strings.Replace(testPolicy, "network_policies: {}", "network_policies:\n  api:\n    endpoints: [{host: api.test, port: 443, protocol: graphql, access: full}]\n    binaries: [/bin/probe]", 1))
	out, code := w.run("/bin/probe", "read", "/etc/passwd")
	if code == 0 || !strings.Contains(out, "graphql") {
		t.Errorf("status %d, printed %q", code, out)
	}
	w.nothingRemains()
}

func TestSandboxConfinesProcess(t *testing.T) {
	w := newWorld(t, testPolicy)
	for _, tc := range []struct {
		name, want string
		argv       []string
	}{
		{"file outside the policy", "error: EACCES", []string{"/bin/probe", "read", "/secret/key"}},
		{"file inside the policy", "ok: ", []string{"/bin/probe", "read", "/etc/passwd"}},
		{"write below read_only", "error: EACCES", []string{"/bin/probe", "write", "/etc/new"}},
		{"write below read_write", "ok: written", []string{"/bin/probe", "write", "/tmp/new"}},
		{"new user namespace", "error: EPERM", []string{"/bin/probe", "unshare"}},
		{"mount", "error: EPERM", []string{"/bin/probe", "mount"}},
		{"raw socket", "error: EPERM", []string{"/bin/probe", "raw"}},
		{"the proxy's mark", "error: EPERM", []string{"/bin/probe", "mark"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, _ := w.run(tc.argv...); !strings.HasPrefix(out, tc.want) {
				t.Errorf("printed %q, want %q…", out, tc.want)
			}
		})
	}
}

func TestSandboxExitStatus(t *testing.T) {
	w := newWorld(t, testPolicy)
	if out, code := w.run("/bin/probe", "nonsense"); code != 2 {
		t.Errorf("exit status %d, want the command's own 2; printed %q", code, out)
	}
	out, code := w.run("/bin/missing")
	if code == 0 || !strings.Contains(out, "/bin/missing") || !strings.Contains(out, "no such file or directory") {
		t.Errorf("missing command: status %d, printed %q", code, out)
	}
}

// No descriptor of the runtime, the proxy or launch reaches the command.
func TestBypass_B53_LeakedDescriptors(t *testing.T) {
	w := newWorld(t, testPolicy)
	out := w.expect("ok: ", "/bin/probe", "fds")
	for _, f := range strings.Fields(strings.TrimPrefix(out, "ok: ")) {
		n, target, _ := strings.Cut(f, "=")
		// An empty target is the listing's own descriptor, closed by now; the
		// event ones are the probe's own Go runtime.
		if !slices.Contains([]string{"0", "1", "2"}, n) && target != "" && !strings.HasPrefix(target, "anon_inode:[event") {
			t.Errorf("descriptor %s is open: %s", n, out)
		}
	}
}

// nothingRemains fails if a container's state or a mount is left.
func (w *world) nothingRemains() {
	w.t.Helper()
	for _, dir := range []string{"", "@sandbox"} {
		entries, err := os.ReadDir(filepath.Join(w.dir, "state", dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "@sandbox" {
				w.t.Errorf("state remains: %s", e.Name())
			}
		}
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), w.dir) {
		w.t.Errorf("mounts remain (%v):\n%s", err, b)
	}
}

func TestSandboxLeavesNothing(t *testing.T) {
	w := newWorld(t, testPolicy)
	w.expect("ok:", "/bin/probe", "read", "/etc/passwd")
	w.nothingRemains()
	if _, code := w.run("/bin/missing"); code == 0 {
		t.Error("a missing command ran")
	}
	w.nothingRemains()
}

// bundle lays out an OCI bundle that sleeps, for the runtime's own verbs.
func (w *world) bundle() string {
	w.t.Helper()
	text := fmt.Sprintf(`{
	"ociVersion": "1.2.0", "root": {"path": %q},
	"process": {"args": ["/bin/probe", "sleep", "60s"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
		"capabilities": {"bounding": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"], "permitted": ["CAP_NET_RAW"]}},
	"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
	"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
		"maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"],
		"readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]}
}`, w.rootfs)
	dir := filepath.Join(w.dir, "bundle")
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// runtime runs one of the runtime's verbs and returns what it printed.
func (w *world) runtime(args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "openshell-runtime"), w.runtimeArgs(args...)...)
	cmd.Env = append(os.Environ(), w.env...)
	// A detached process holds these: pipes would be waited for.
	log, err := os.CreateTemp(w.dir, "log-")
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	out, readErr := os.ReadFile(log.Name())
	if readErr != nil {
		w.t.Fatal(readErr)
	}
	return strings.TrimSpace(string(out)), err
}

// The verbs an engine calls, in its order, and what they leave.
func TestLifecycle(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("life-%d", os.Getpid())
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	status := func(want string) {
		t.Helper()
		out, err := w.runtime("state", id)
		var s struct{ Status string }
		if err != nil || json.Unmarshal([]byte(out), &s) != nil || s.Status != want {
			t.Fatalf("state: %v: %s, want %s", err, out, want)
		}
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := w.runtime(args...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return out
	}
	pid := filepath.Join(w.dir, "pid")
	must("create", "--bundle", w.bundle(), "--pid-file", pid, id)
	status("created")
	if b, err := os.ReadFile(pid); err != nil || len(b) == 0 {
		t.Errorf("pid file: %v", err)
	}
	if out, err := w.runtime("create", "--bundle", filepath.Join(w.dir, "bundle"), id); err == nil {
		t.Errorf("a second container of the same ID was made: %s", out)
	}
	status("created")
	must("start", id)
	status("running")
	if out := must("list", "-q"); out != id {
		t.Errorf("list printed %q", out)
	}
	if out, err := w.runtime("delete", id); err == nil || !strings.Contains(out, "that is not stopped") {
		t.Errorf("delete of a running container: %v: %s", err, out)
	}
	must("delete", "--force", id)
	if out, err := w.runtime("state", id); err == nil || !strings.Contains(out, "container does not exist") {
		t.Errorf("state after delete: %v: %s", err, out)
	}
	w.nothingRemains()
}

// A process that is exec'd is as confined as the first, and state of ours that
// vanished does not open a way in.
func TestBypass_B40_Exec(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("exec-%d", os.Getpid())
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	if out, err := w.runtime("run", "--detach", "--bundle", w.bundle(), id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{[]string{"/bin/probe", "read", "/etc/passwd"}, "ok: "},
		{[]string{"/bin/probe", "read", "/secret/key"}, "error: EACCES"},
		{[]string{"/bin/probe", "raw"}, "error: EPERM"},
		{[]string{"/bin/probe", "mark"}, "error: EPERM"},
		{[]string{"/bin/probe", "unshare"}, "error: EPERM"},
	} {
		if out, _ := w.runtime(append([]string{"exec", id}, tc.argv...)...); !strings.HasPrefix(out, tc.want) {
			t.Errorf("exec %v printed %q, want %q…", tc.argv, out, tc.want)
		}
	}
	out, err := w.runtime("exec", id, "missing")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 255 || !strings.Contains(out, "executable file not found in $PATH") {
		t.Errorf("exec of a missing program: %v: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "state", "@sandbox", id)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.runtime("exec", id, "/bin/probe", "read", "/secret/key"); err == nil || strings.HasPrefix(out, "ok:") {
		t.Errorf("exec without the sandbox's state: %s", out)
	}
}

// TestBypass_B50_SwappedPath: a path of the policy that the workload swaps for a
// link gives a later exec nothing at the link's target.
func TestBypass_B50_SwappedPath(t *testing.T) {
	w := newWorld(t, strings.Replace(testPolicy, "[/tmp, /dev/null]", "[/tmp, /tmp/project, /dev/null]", 1))
	if err := os.Mkdir(filepath.Join(w.rootfs, "tmp/project"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("swap-%d", os.Getpid())
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	if out, err := w.runtime("run", "--detach", "--bundle", w.bundle(), id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{[]string{"/bin/probe", "read", "/secret/key"}, "error: EACCES"},
		{[]string{"/bin/probe", "swap", "/tmp/project", "/"}, "ok: swapped"},
		{[]string{"/bin/probe", "read", "/secret/key"}, "error: EACCES"},
		{[]string{"/bin/probe", "write", "/secret/new"}, "error: EACCES"},
		{[]string{"/bin/probe", "write", "/tmp/still"}, "ok: written"},
	} {
		if out, _ := w.runtime(append([]string{"exec", id}, tc.argv...)...); !strings.HasPrefix(out, tc.want) {
			t.Errorf("exec %v printed %q, want %q…", tc.argv, out, tc.want)
		}
	}
}

// TestBypass_B50_LinkToRoot: an image that makes a writable path a link to / does
// not start.
func TestBypass_B50_LinkToRoot(t *testing.T) {
	w := newWorld(t, testPolicy)
	if err := errors.Join(os.Remove(filepath.Join(w.rootfs, "tmp")), os.Symlink("/", filepath.Join(w.rootfs, "tmp"))); err != nil {
		t.Fatal(err)
	}
	out, code := w.run("/bin/probe", "read", "/secret/key")
	if code == 0 || !strings.Contains(out, "read_write path /tmp is a link to the container's root") {
		t.Errorf("status %d, printed %q", code, out)
	}
	w.nothingRemains()
}

// TestBypass_B57_HostNamespaceByPath: the host's namespaces are refused when they
// come as a path, too.
func TestBypass_B57_HostNamespaceByPath(t *testing.T) {
	w := newWorld(t, testPolicy)
	file := filepath.Join(w.bundle(), "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"pid", "ipc"} {
		changed := strings.Replace(string(text), fmt.Sprintf(`{"type": %q}`, ns), fmt.Sprintf(`{"type": %q, "path": "/proc/%d/ns/%s"}`, ns, os.Getpid(), ns), 1)
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("%s-%d", ns, os.Getpid())
		t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
		out, err := w.runtime("run", "--detach", "--bundle", filepath.Dir(file), id)
		if err == nil || !strings.Contains(out, "config.json: linux.namespaces."+ns+": ") {
			t.Errorf("%s: %v: %s", ns, err, out)
		}
		w.nothingRemains()
	}
}

// TestBypass_B46_Families: only unix (1), IPv4 (2), IPv6 (10) and route netlink
// (16) sockets open; every other family and netlink protocol is refused, and of IP
// what is neither TCP nor UDP (multipath TCP, UDP-Lite, SCTP).
func TestBypass_B46_Families(t *testing.T) {
	w := newWorld(t, testPolicy)
	if out, _ := w.run("/bin/probe", "families"); out != "ok: 1 2 10 16 2/1/0 2/1/6 2/2/0 2/2/17 10/1/0 10/1/6 10/2/0 10/2/17" {
		t.Errorf("printed %q", out)
	}
}

// TestBypass_B41_NoNewPrivileges: no process gains privileges, and the
// capabilities the engine granted beyond a sandbox's are gone.
func TestBypass_B41_NoNewPrivileges(t *testing.T) {
	w := newWorld(t, testPolicy)
	out := w.expect("ok: ", "/bin/probe", "status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q: %s", want, out)
		}
	}
}
