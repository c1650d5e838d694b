// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
)

// soakVariable says how long TestSoak takes; usualSoak is enough to see that it works.
const (
	soakVariable = "OPENSHELL_TEST_SOAK"
	usualSoak    = "10s"
)

// What a proxy may have more after a soak than it had once it was warm.
const (
	soakMemory      = 64 << 10 // KiB
	soakDescriptors = 8
)

// TestSoak: whatever a workload does for however long, and while its policy changes to
// others that allow the same, everything allowed works, all else is refused, and
// nothing is left.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv(soakVariable), usualSoak))
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	up := startUpstream(t)
	for name, o := range map[string]boxOptions{"from the host": {up: up}, "from its own network": {up: up, uplink: true, nth: 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newBox(t, o).soak(length)
		})
	}
}

func (b *box) soak(length time.Duration) {
	t := b.t
	const more = "\n  more:\n    endpoints: [{host: other.test, port: 443}]\n    binaries: [{path: /bin/probe}]\n"
	policies := []string{b.file("policy1.yaml", netPolicy), b.file("policy2.yaml", netPolicy+more)}
	// Whatever is made once, is made.
	b.traffic(time.Second, nil)
	began := b.size()
	n := 0
	b.traffic(length, func() {
		if out, status := b.cli("policy", "set", b.id, "--policy", policies[n%2], "--wait"); status != 0 {
			t.Errorf("set the policy the %dth time: %s", n, out)
		}
		n++
		for _, r := range b.up.Requests() {
			if r.Method != http.MethodGet || !strings.HasPrefix(r.Path, "/ok/") || r.Host == "denied.test" {
				t.Errorf("the upstream saw %+v", r)
			}
		}
		b.up.Reset()
	})
	b.until("all connections have ended", func() bool { return b.proxy().Connections == 0 })
	ended := b.size()
	for i, was := range began {
		is := ended[i]
		t.Logf("%s: %d KiB and %d descriptors, then %d KiB and %d", was.program, was.memory, was.descriptors, is.memory, is.descriptors)
		if is.pid != was.pid || is.memory > was.memory+soakMemory || is.descriptors > was.descriptors+soakDescriptors {
			t.Errorf("%+v became %+v", was, is)
		}
	}
	t.Logf("%d policies", n)
}

// traffic has the box do everything usual, and calls aside now and then. All that was
// refused must have been for the policy's sake.
func (b *box) traffic(length time.Duration, aside func()) {
	t := b.t
	t.Helper()
	cmd := exec.Command(filepath.Join(b.bin, "openshell-runtime"), b.runtimeArgs("exec", b.id, "/bin/probe", "soak", length.String())...)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C:
			if aside != nil {
				aside()
			}
			continue
		case err := <-done:
			tick.Stop()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		case <-time.After(length + time.Minute):
			_ = cmd.Process.Kill()
			t.Fatalf("it does not end: %s", out)
		}
		break
	}
	if strings.Contains(out.String(), "surprise") || !strings.Contains(out.String(), "\tprogram") {
		t.Error(out)
	}
	t.Log(out)
	for _, line := range b.log() {
		var r decisionlog.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if r.Host == "denied.test" || r.Method == http.MethodPost || strings.HasPrefix(r.Path, "/not/") {
			continue
		}
		if r.Verdict != "allow" {
			t.Errorf("recorded: %s", line)
		}
	}
}

// size is what a process of the box's proxy takes.
type size struct {
	program                  string
	pid, memory, descriptors int
}

func (b *box) size() (sizes []size) {
	t := b.t
	t.Helper()
	for _, s := range []size{{program: "guard", pid: b.guard()}, {program: "worker", pid: b.proxy().Pid}} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
		if err != nil {
			t.Fatal(err)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		s.memory, s.descriptors = number(t, rss), len(fds)
		sizes = append(sizes, s)
	}
	return sizes
}
