// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

// maxWorkerPeak bounds a worker's memory at any time, in KiB: its budget of 256 MiB, and
// 128 MiB for everything else. Without a budget the heads here take three times as much.
const maxWorkerPeak = 384 << 10

// procField returns a number in a process's status.
func procField(t *testing.T, pid int, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("the process is gone: %v", err)
	}
	_, after, ok := strings.Cut(string(text), "\n"+name+":")
	if !ok {
		t.Fatalf("%s is not in the status", name)
	}
	return number(t, after)
}

// TestBypass_B86_WorkerMemory: heads of HTTP/2 requests whose answers nobody takes do
// not make the worker grow beyond its budget, and another program is served meanwhile.
func TestBypass_B86_WorkerMemory(t *testing.T) {
	b := newBox(t, boxOptions{})
	before := b.proxy().Pid
	soFar := len(b.log())
	wait := b.start(nil, "/bin/probe", "heads", "250", "api.test")
	b.until("the first refusal is recorded", func() bool { return len(b.log()) > soFar })
	for range 3 {
		b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	}
	if out := wait(); !strings.HasPrefix(out, "ok: ") || number(t, strings.TrimPrefix(out, "ok: ")) < 50 {
		t.Errorf("the attack printed %q", out)
	}
	if peak := procField(t, before, "VmHWM"); peak > maxWorkerPeak {
		t.Errorf("the worker had %d KiB in memory", peak)
	} else {
		t.Logf("the worker had %d KiB in memory", peak)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if after := b.proxy().Pid; after != before {
		t.Errorf("the worker was replaced: %d, then %d", before, after)
	}
}

// TestBypass_B86_OutOfMemory: a sandbox whose helper processes use up the memory of their
// cgroup loses its worker to the kernel, not its guard. Another worker takes the place,
// and no other sandbox is touched.
func TestBypass_B86_OutOfMemory(t *testing.T) {
	group := newMemoryGroup(t)
	killed, other := newBox(t, boxOptions{}), newBox(t, boxOptions{})
	soFar, wait := other.watch(nil, "/bin/probe", "stream", "https://api.test/ok/events")
	other.until("the stream is open", func() bool { return strings.Contains(soFar(), "status 200") })
	for _, b := range []*box{killed, other} {
		b.until("guard, worker and standby run", func() bool { return len(b.proxies()) == 3 })
	}
	worker, guard, others := killed.proxy().Pid, killed.guard(), other.proxies()
	group.confine(killed.proxies(), outOfMemoryLimit)
	attack := killed.start(nil, "/bin/probe", "heads", "250", "api.test")
	killed.until("the kernel kills for want of memory", func() bool { return group.kills() > 0 })
	group.limit(memoryUnlimited)
	attack()
	killed.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if after := killed.proxy().Pid; after == worker {
		t.Error("the worker is still there")
	}
	if after := killed.guard(); after != guard {
		t.Errorf("the guard was replaced: %d, then %d", guard, after)
	}
	if after := other.proxies(); !slices.Equal(after, others) {
		t.Errorf("the other sandbox had the processes %v and has %v", others, after)
	}
	if out := wait(); !strings.Contains(out, "still open") {
		t.Errorf("the other sandbox's stream printed %q", out)
	}
}

const (
	// outOfMemoryLimit is less than the attack takes and more than guard and standby
	// need, in bytes.
	outOfMemoryLimit = 24 << 20
	memoryUnlimited  = -1
)

// memoryGroup is a cgroup of the test's own that bounds memory.
type memoryGroup struct {
	t *testing.T
	// dir is the folder; max its file of the limit, events that of the kills.
	dir, max, events string
}

// newMemoryGroup makes a cgroup, in either version's hierarchy. It is removed when the
// processes of sandboxes that are made later have ended.
func newMemoryGroup(t *testing.T) *memoryGroup {
	t.Helper()
	testenv.Require(t, testenv.Root)
	g := &memoryGroup{t: t, dir: "/sys/fs/cgroup/memory", max: "memory.limit_in_bytes", events: "memory.oom_control"}
	if _, err := os.Stat(g.dir); err != nil {
		g.dir, g.max, g.events = "/sys/fs/cgroup", "memory.max", "memory.events"
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
			testenv.Lacks(t, testenv.Cgroups, err)
		}
	}
	g.dir = filepath.Join(g.dir, fmt.Sprintf("openshell-test-%d", os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		testenv.Lacks(t, testenv.Cgroups, err)
	}
	t.Cleanup(func() { waitFor(t, "the cgroup is empty", func() bool { return os.Remove(g.dir) == nil }) })
	return g
}

// confine moves processes into the cgroup and bounds what they take from then on.
func (g *memoryGroup) confine(pids []int, bytes int) {
	g.t.Helper()
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			g.t.Fatal(err)
		}
	}
	g.limit(bytes)
}

// limit bounds the memory in bytes.
func (g *memoryGroup) limit(bytes int) {
	g.t.Helper()
	text := strconv.Itoa(bytes)
	if bytes == memoryUnlimited && g.max == "memory.max" {
		text = "max"
	}
	if err := os.WriteFile(filepath.Join(g.dir, g.max), []byte(text), 0); err != nil {
		g.t.Fatal(err)
	}
}

// kills is how many processes the kernel has killed for want of memory.
func (g *memoryGroup) kills() int {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, g.events))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return number(g.t, strings.TrimSpace(n))
		}
	}
	g.t.Fatalf("%s says nothing of kills: %s", g.events, text)
	return 0
}
