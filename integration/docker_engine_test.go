// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/libsandbox/netns"
)

// engine is a dockerd of the test's own: its data, its socket, its network
// namespace, so that it meets no other one and its bridge goes with it, and its
// mount namespace, by which everything that it starts is known.
type engine struct {
	t *testing.T
	// run holds what must have a short path, dir the rest; logs holds the records.
	run, dir, logs string
	daemon         *exec.Cmd
	output         bytes.Buffer
}

// startDocker starts a dockerd with one runtime for each policy: its name is the
// runtime's. The runtime annotated has none and can be told one of them. flags are
// the runtimes' further ones.
func startDocker(t *testing.T, policies map[string]string, flags ...string) *engine {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.Docker)
	if built.err != nil {
		t.Fatal(built.err)
	}
	e := &engine{t: t, dir: t.TempDir()}
	e.logs = filepath.Join(e.dir, "logs")
	// A socket's path may have 107 bytes; the test's folder may be longer.
	var err error
	if e.run, err = os.MkdirTemp("", "osd-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(e.run) })
	operator := e.write("operator.yaml", "log_dir: "+e.logs+"\npolicies_dir: "+e.dir+"\n")
	program := filepath.Join(built.bin, "openshell-runtime")
	runtimes := map[string]any{"annotated": map[string]any{"path": program, "runtimeArgs": append([]string{"--config", operator}, flags...)}}
	for name, policy := range policies {
		args := append([]string{"--config", operator, "--policy", e.write(name+".yaml", policy)}, flags...)
		runtimes[name] = map[string]any{"path": program, "runtimeArgs": args}
	}
	config, err := json.Marshal(map[string]any{"runtimes": runtimes})
	if err != nil {
		t.Fatal(err)
	}
	e.daemon = exec.Command(
		"dockerd", "--config-file", e.write("daemon.json", string(config)), "--data-root", filepath.Join(e.dir, "data"),
		"--exec-root", filepath.Join(e.run, "exec"), "--pidfile", filepath.Join(e.run, "pid"), "--host", "unix://"+e.socket(),
	)
	e.daemon.Stdout, e.daemon.Stderr = &e.output, &e.output
	e.daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	if err := e.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	e.within(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		return err
	})
	e.until("dockerd answers", func() bool {
		_, code := e.docker("version")
		return code == 0
	})
	return e
}

func (e *engine) socket() string { return filepath.Join(e.run, "d.sock") }

func (e *engine) write(name, text string) string {
	e.t.Helper()
	file := filepath.Join(e.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		e.t.Fatal(err)
	}
	return file
}

// within runs f in dockerd's network namespace: there is what Docker calls the
// host.
func (e *engine) within(f func() error) {
	e.t.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", e.daemon.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Within(ns, f); err != nil {
		e.t.Fatal(err)
	}
}

// importImage makes an image of a root filesystem.
func (e *engine) importImage(name, rootfs string) {
	e.t.Helper()
	tar := exec.Command("tar", "-C", rootfs, "--one-file-system", "-c", ".")
	load := exec.Command("docker", "--host", "unix://"+e.socket(), "import", "-", name)
	var out bytes.Buffer
	load.Stdout, load.Stderr = &out, &out
	pipe, err := tar.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	load.Stdin = pipe
	if err := errors.Join(tar.Start(), load.Run(), tar.Wait()); err != nil {
		e.t.Fatalf("docker import: %v: %s", err, out.Bytes())
	}
}

// docker runs one docker command and returns what it printed and its status.
func (e *engine) docker(args ...string) (string, int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"--host", "unix://" + e.socket()}, args...)...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		e.t.Fatalf("docker %v: still running after %s; printed %s", args, runTimeout, out)
	}
	if cmd.ProcessState == nil {
		e.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// must is docker for what has to succeed.
func (e *engine) must(args ...string) string {
	e.t.Helper()
	out, status := e.docker(args...)
	if status != 0 {
		e.t.Fatalf("docker %v: status %d: %s", args, status, out)
	}
	return out
}

// sandbox runs a command of the image probe and removes the container.
func (e *engine) sandbox(runtime string, args ...string) (string, int) {
	e.t.Helper()
	return e.docker(append([]string{"run", "--rm", "--runtime", runtime}, args...)...)
}

// until waits for something to become so.
func (e *engine) until(what string, f func() bool) {
	e.t.Helper()
	if !testenv.Eventually(runTimeout, f) {
		e.t.Fatalf("not within %s: %s\n%s", runTimeout, what, e.output.Bytes())
	}
}

// records are the decisions on a container, by its name or ID.
func (e *engine) records(container string) []decisionlog.Record {
	e.t.Helper()
	return readRecords(e.t, filepath.Join(e.logs, e.must("inspect", "--format", "{{.Id}}", container)))
}

// processes are those of the engine whose command line holds text.
func (e *engine) processes(text string) (pids []int) {
	e.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", e.daemon.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	return processesOf(own, text)
}

// processesOf are the processes in a mount namespace whose command line holds
// text.
func processesOf(mnt, text string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if ns, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err != nil || ns != mnt || !bytes.Contains(line, []byte(text)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// nothingRemains fails unless every trace of every container is gone: proxies,
// shims, states, mounts and namespaces.
func (e *engine) nothingRemains() {
	e.t.Helper()
	if out := e.must("ps", "--all", "--quiet"); out != "" {
		e.t.Errorf("containers remain: %s", out)
	}
	// A shim ends a moment after its container is gone.
	e.until("the shims are gone", func() bool { return len(e.processes("containerd-shim")) == 0 })
	if left := e.processes("openshell-"); len(left) != 0 {
		e.t.Errorf("processes of the runtime remain: %v", left)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", e.daemon.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		at := strings.Fields(line)[4]
		// Docker keeps its own namespace and the folder of its storage.
		kept := strings.HasSuffix(at, "/netns/default") || at == filepath.Join(e.dir, "data")
		if !kept && (strings.HasPrefix(at, e.dir) || strings.HasPrefix(at, e.run)) {
			e.t.Errorf("mount remains: %s", line)
		}
	}
	for _, kind := range []string{"[^@]*", "@sandbox/*"} {
		left, err := filepath.Glob(filepath.Join(e.run, "exec/runtime-runc/moby", kind))
		if err != nil || len(left) != 0 {
			e.t.Errorf("states remain: %v (%v)", left, err)
		}
	}
	e.within(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "veth") }); i >= 0 {
			e.t.Errorf("interface remains: %s", links[i].Attrs().Name)
		}
		return nil
	})
}

// stop ends dockerd, and fails if something of it stays.
func (e *engine) stop() {
	mnt, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", e.daemon.Process.Pid))
	if err != nil {
		e.t.Errorf("dockerd ended by itself: %v\n%s", err, e.output.Bytes())
		return
	}
	if ids, status := e.docker("ps", "--all", "--quiet"); status == 0 && ids != "" {
		e.docker(append([]string{"rm", "--force"}, strings.Fields(ids)...)...)
	}
	_ = e.daemon.Process.Signal(syscall.SIGTERM)
	err = e.daemon.Wait()
	if e.t.Failed() {
		e.t.Logf("dockerd: %v\n%s", err, e.output.Bytes())
	}
	var left []int
	testenv.Eventually(10*time.Second, func() bool {
		left = processesOf(mnt, "")
		return len(left) == 0
	})
	for _, pid := range left {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		e.t.Errorf("process %d of dockerd remains: %q", pid, line)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// readRecords reads the records of decisions in dir.
func readRecords(t *testing.T, dir string) (out []decisionlog.Record) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "decisions.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r decisionlog.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		out = append(out, r)
	}
	return out
}
