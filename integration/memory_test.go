// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// maxWorkerPeak is what a worker may have in memory at any time, in KiB: its budget of
// 256 MiB, and what it needs besides. Without a budget the heads here take three times
// that.
const maxWorkerPeak = 384 << 10

// procField is a number in a process's status.
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

// TestBypass_B86_OutOfMemory: a worker that the kernel kills touches no other sandbox:
// there connections go on, and here another worker takes the place. Of worker and guard
// the kernel kills the worker first.
func TestBypass_B86_OutOfMemory(t *testing.T) {
	killed, other := newBox(t, boxOptions{}), newBox(t, boxOptions{})
	soFar, wait := other.watch(nil, "/bin/probe", "stream", "https://api.test/ok/events")
	other.until("the stream is open", func() bool { return strings.Contains(soFar(), "status 200") })
	score := func(pid int) int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, others := killed.proxy().Pid, other.proxy().Pid
	if worker, guard := score(before), score(killed.guard()); worker <= guard {
		t.Errorf("oom_score_adj: the worker has %d, the guard %d", worker, guard)
	}
	kill(t, before, unix.SIGKILL) // as the kernel does
	killed.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if after := killed.proxy().Pid; after == before {
		t.Error("the worker is still there")
	}
	if other.proxy().Pid != others {
		t.Error("the other sandbox has another worker")
	}
	if out := wait(); !strings.Contains(out, "still open") {
		t.Errorf("the other sandbox's stream printed %q", out)
	}
}
