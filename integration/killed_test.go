// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

// stubborn starts a run whose first process ends at no signal but SIGKILL, and
// waits until it runs. It returns the CLI and the process's number.
func (w *world) stubborn(id string) (*exec.Cmd, int) {
	w.t.Helper()
	cmd := exec.Command(
		filepath.Join(built.bin, "openshell"), "run", "--root", filepath.Join(w.dir, "state"), "--rootfs", w.rootfs,
		"--policy", w.policy, "--config", w.config, "--name", id, "--", "/bin/probe", "stay", "10m",
	)
	// A file: a pipe would have Wait wait for whoever else holds it.
	printed := filepath.Join(w.dir, id+".out")
	out, err := os.OpenFile(printed, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	w.until("signals are ignored", func() bool {
		text, err := os.ReadFile(printed)
		return err == nil && strings.Contains(string(text), "staying")
	})
	var s struct {
		Status string
		Pid    int
	}
	w.until("the sandbox runs", func() bool {
		out, err := w.runtime("state", id)
		return err == nil && json.Unmarshal([]byte(out), &s) == nil && s.Status == "running"
	})
	return cmd, s.Pid
}

// until fails unless done comes true in time.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	waitFor(w.t, what, done)
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !testenv.Eventually(runTimeout, done) {
		t.Fatalf("not so after %s: %s", runTimeout, what)
	}
}

// inNamespace names the processes whose mount namespace is ns.
func inNamespace(t *testing.T, ns string) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if got, err := os.Readlink(l); err == nil && got == ns {
			pids = append(pids, l)
		}
	}
	return pids
}

func cgroupsOf(t *testing.T, id string) (found []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == id {
			found = append(found, path)
		}
		return nil // others' cgroups come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A run that is killed takes its sandbox with it, whatever the workload does
// about signals.
func TestKilledRunLeavesNothing(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("killed-%d", os.Getpid())
	cmd, pid := w.stubborn(id)
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The runtime, the CLI's child, shares the namespace in which the bundle is
	// mounted.
	staged, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", childOf(t, cmd.Process.Pid)))
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || own == staged || own == inside {
		t.Fatalf("namespaces: own %s, %v; staged %s, inside %s", own, err, staged, inside)
	}
	if len(cgroupsOf(t, id)) == 0 {
		t.Fatal("no cgroup is seen of a sandbox that runs")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	w.until("no process and no mount of the run is left", func() bool {
		return len(inNamespace(t, inside)) == 0 && len(inNamespace(t, staged)) == 0
	})
	if left := cgroupsOf(t, id); len(left) > 0 {
		t.Errorf("cgroups remain: %v", left)
	}
	w.nothingRemains()
}

// TestBypass_B62_Tasks: the kernel bounds a run's processes and threads, with no engine
// to say so.
func TestBypass_B62_Tasks(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("tasks-%d", os.Getpid())
	cmd, _ := w.stubborn(id)
	var limits []string
	for _, dir := range cgroupsOf(t, id) {
		if text, err := os.ReadFile(filepath.Join(dir, "pids.max")); err == nil {
			limits = append(limits, strings.TrimSpace(string(text)))
		}
	}
	if !slices.Equal(limits, []string{"8192"}) {
		t.Errorf("limits %q", limits)
	}
	runtime, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", childOf(t, cmd.Process.Pid)))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	w.until("the cgroups are gone, and the runtime that removes what is left", func() bool { return len(cgroupsOf(t, id)) == 0 && len(inNamespace(t, runtime)) == 0 })
	w.nothingRemains()
}

// childOf is a child of any of parent's threads.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		if b, err := os.ReadFile(l); err == nil && len(b) > 0 {
			var n int
			if _, err := fmt.Sscan(string(b), &n); err == nil {
				return n
			}
		}
	}
	t.Fatalf("%d has no child", parent)
	return 0
}
