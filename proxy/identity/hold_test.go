// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// Lookups, also those that fail, and Close leave no descriptors behind.
func TestNoDescriptorsLeft(t *testing.T) {
	c := newContainer(t)
	program := c.install(allowed, "")
	good := c.client(program, "role", "parent", program, "dial", c.addr4)
	hidden := c.client(c.self, "role", "memfd", c.addr4, allowed)
	open := func() (files []string) {
		t.Helper()
		names, err := list(unix.AT_FDCWD, "/proc/self/fd")
		must(t, err)
		for _, n := range names {
			to, _ := os.Readlink("/proc/self/fd/" + n)
			files = append(files, n+" → "+to)
		}
		return files
	}
	// What the Go runtime opens once is open before.
	r, err := Open(Config{Pid: c.pid, Netns: c.nsFile})
	must(t, err)
	one(t, r, good)
	must(t, r.Close())
	before := open()
	r, err = Open(Config{Pid: c.pid, Netns: c.nsFile})
	must(t, err)
	for range 20 {
		one(t, r, good)
		r.Aliases([]string{"/bin/sh", "/nowhere"})
		for _, conn := range []connection{hidden, {good.remote, good.local}, {good.local, netip.MustParseAddrPort("127.0.0.1:1")}} {
			if _, err := r.Resolve(conn.local, conn.remote); err == nil {
				t.Fatalf("%v resolved", conn)
			}
		}
	}
	must(t, r.Close())
	for range 20 {
		if _, err := Open(Config{Pid: c.pid}); err == nil {
			t.Fatal("opened without a network namespace")
		}
	}
	// Those of the Go runtime's own come and go.
	var after []string
	if !testenv.Eventually(10*time.Second, func() bool {
		after = open()
		return len(after) <= len(before)
	}) {
		t.Errorf("%d descriptors %q, %d before %q", len(after), after, len(before), before)
	}
}

// Before the container has its own root, paths mean nothing: the host's would be
// taken for the container's.
func TestNoRootYet(t *testing.T) {
	testenv.Require(t, testenv.Root)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	p, err := openProcess(cmd.Process.Pid, cmd.Process.Pid)
	must(t, err)
	defer p.close()
	r, err := openRoot(p)
	must(t, err)
	defer r.close()
	if own, err := r.canonical("/etc/passwd"); err == nil || !strings.Contains(err.Error(), "has not got its root yet") {
		t.Errorf("%q, %v", own, err)
	}
}

// Who waits for its turn too long is refused.
func TestResolveWhenBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Resolver{slots: make(chan struct{})}
		ps, err := r.Resolve(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"))
		if err == nil || !strings.Contains(err.Error(), "have been running for "+patience.String()) {
			t.Errorf("%v, %v", ps, err)
		}
	})
}
