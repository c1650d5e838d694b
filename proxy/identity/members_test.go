// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// cgroupRoot finds where a hierarchy is mounted: version 2, or a named one.
func cgroupRoot(t testing.TB, h hierarchy) string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	must(t, err)
	for _, m := range mounts {
		if h.mountedAt(m) && m.Root == "/" {
			return m.Mountpoint
		}
	}
	t.Skipf("no hierarchy %q", h.controllers)
	return ""
}

// newCgroup makes a cgroup and removes it, and what is below it, at the end.
func newCgroup(t testing.TB, root string) string {
	t.Helper()
	dir, err := os.MkdirTemp(root, "identity-test-")
	if err != nil {
		testenv.Lacks(t, testenv.Cgroups, err)
	}
	t.Cleanup(func() {
		_ = os.Remove(filepath.Join(dir, "sub", "sub"))
		_ = os.Remove(filepath.Join(dir, "sub"))
		must(t, os.Remove(dir))
	})
	return dir
}

func join(t testing.TB, dir string, pid int) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0))
}

var hierarchies = map[string]hierarchy{"version 2": {}, "version 1": {controllers: "name=systemd"}}

func TestMembersByCgroup(t *testing.T) {
	for name, h := range hierarchies {
		t.Run(name, func(t *testing.T) {
			testenv.Require(t, testenv.Root)
			dir := newCgroup(t, cgroupRoot(t, h))
			c := newContainer(t)
			t.Cleanup(c.kill) // before the cgroup goes
			join(t, dir, c.pid)
			r := c.open()
			if r.members.cgroup == nil || r.members.cgroup.path != dir || r.members.pidns != nil {
				t.Fatalf("members by %+v", r.members)
			}
			one(t, r, c.client(c.self, "role", "dial", c.addr4))

			// A process that moves to a cgroup below stays a member.
			sub := filepath.Join(dir, "sub", "sub")
			must(t, os.MkdirAll(sub, 0o755))
			p := one(t, r, c.client(c.self, "role", "dial", c.addr4))
			join(t, sub, p.Pid)
			conn := c.client(c.self, "role", "dial", c.addr4)
			q := one(t, r, conn)
			join(t, sub, q.Pid)
			if got := one(t, r, conn); got.Pid != q.Pid {
				t.Errorf("pid %d, want %d", got.Pid, q.Pid)
			}
			// One that leaves is none: only the host can take it out.
			join(t, filepath.Dir(dir), q.Pid)
			if ps, err := r.Resolve(conn.local, conn.remote); err == nil {
				t.Errorf("resolved to %+v", ps)
			}
		})
	}
}

// TestMembersOutsideTheCgroup: where the first process is in a cgroup below the
// container's, as systemd is, the others are still members.
func TestMembersOutsideTheCgroup(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := newCgroup(t, cgroupRoot(t, hierarchy{}))
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	c := newContainer(t)
	t.Cleanup(c.kill)
	join(t, dir, c.pid)
	conn := c.client(c.self, "role", "dial", c.addr4)
	join(t, sub, c.pid)
	r := c.open()
	if r.members.cgroup == nil || r.members.pidns == nil {
		t.Errorf("members by %+v, want both", r.members)
	}
	one(t, r, conn)
}

// TestMembersByNamespace: without a cgroup of its own, those of the PID namespace
// and of namespaces nested in it.
func TestMembersByNamespace(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	if r.members.cgroup != nil || r.members.pidns == nil {
		t.Skipf("the test itself runs in a cgroup of its own: %+v", r.members)
	}
	one(t, r, c.client(c.self, "role", "nested", c.self, "dial", c.addr4))
	pids, err := r.members.list()
	must(t, err)
	if !pids[c.pid] || pids[os.Getpid()] || pids[1] || len(pids) != 3 {
		t.Errorf("members %v", pids)
	}
}

// A process that is put in from outside, as by exec of the runtime, is a member; its
// parent is not, and no ancestor.
func TestMembersExec(t *testing.T) {
	for name, h := range hierarchies {
		t.Run(name, func(t *testing.T) {
			testenv.Require(t, testenv.Root)
			dir := newCgroup(t, cgroupRoot(t, h))
			c := newContainer(t)
			t.Cleanup(c.kill)
			join(t, dir, c.pid)
			r := c.open()
			cmd := exec.Command(c.self, "role", "dial", c.addr4)
			out, err := cmd.StdoutPipe()
			must(t, err)
			gate, err := cmd.StdinPipe()
			must(t, err)
			pidfd, err := unix.PidfdOpen(c.pid, 0)
			must(t, err)
			defer unix.Close(pidfd)
			inThread(t, func() error {
				if err := unix.Unshare(unix.CLONE_FS); err != nil {
					return err
				}
				if err := unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET); err != nil {
					return err
				}
				return cmd.Start()
			})
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			_ = gate.Close()
			join(t, dir, cmd.Process.Pid)
			line, err := bufio.NewReader(io.LimitReader(out, 200)).ReadString('\n')
			must(t, err)
			local, remote, _ := strings.Cut(strings.TrimSpace(line), " ")
			p := one(t, r, connection{netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)})
			if p.Pid != cmd.Process.Pid || len(p.Ancestors) != 0 {
				t.Errorf("%+v, want pid %d without ancestors", p, cmd.Process.Pid)
			}
		})
	}
}
