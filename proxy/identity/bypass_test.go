// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// The tests take the attacker's side: a policy permits /opt/allowed, and no other
// program may be taken for it.
const allowed = "/opt/allowed"

// refused checks that the connection has no identity, for the reason given.
func refused(t *testing.T, r *Resolver, conn connection, want error, text string) {
	t.Helper()
	ps, err := r.Resolve(conn.local, conn.remote)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%+v, %v; want %v: …%s…", ps, err, want, text)
	}
}

func binaries(t *testing.T, r *Resolver, conn connection) []string {
	t.Helper()
	ps, err := r.Resolve(conn.local, conn.remote)
	must(t, err)
	var paths []string
	for _, p := range ps {
		paths = append(paths, p.Binary)
	}
	slices.Sort(paths)
	return paths
}

// TestBypass_B32_Copies: a copy or another name of a program has its own path, and
// a program that changed is refused.
func TestBypass_B32_Copies(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install(allowed, "")
	pinned := one(t, r, c.client(allowed, "role", "dial", c.addr4))
	if pinned.Binary != allowed {
		t.Fatalf("control: %+v", pinned)
	}
	c.install("/tmp/copy", "")
	must(t, os.Link(c.path(allowed), c.path("/opt/linked")))
	for _, path := range []string{"/tmp/copy", "/opt/linked"} {
		got := one(t, r, c.client(path, "role", "dial", c.addr4))
		if got.Binary != path || got.Digest != pinned.Digest {
			t.Errorf("%s is taken for %+v", path, got)
		}
	}

	c.install("/tmp/evil", "another")
	must(t, os.Rename(c.path("/tmp/evil"), c.path(allowed)))
	evil := c.client(allowed, "role", "dial", c.addr4)
	refused(t, r, evil, ErrIntegrity, fmt.Sprintf(
		"binary integrity check failed: Binary integrity violation: %s hash changed (cached: %s, current: sha256:", allowed, pinned.Digest))

	t.Run("as an ancestor", func(t *testing.T) {
		refused(t, r, c.client(allowed, "role", "parent", c.self, "dial", c.addr4), ErrIntegrity, "hash changed")
	})
}

// TestBypass_B33_DynamicLoader: a program run by the loader is the loader.
func TestBypass_B33_DynamicLoader(t *testing.T) {
	loader := "/lib64/ld-linux-x86-64.so.2"
	if _, err := os.Stat(loader); err != nil {
		t.Skipf("needs %s and bash: %v", loader, err)
	}
	c := newContainer(t)
	r := c.open()
	// bash cannot tell its own port; the kernel's table can: it is the only client.
	c.send(loader, "/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s; echo connected; read -r -u 3", slash(c.addr4)))
	c.expect("connected")
	conn := c.onlyClient()
	got := one(t, r, conn)
	if !strings.Contains(got.Binary, "/ld-linux") {
		t.Errorf("binary %s, want the loader", got.Binary)
	}
}

// TestBypass_B35_Aliases: a program is what the container's own root says, however
// it was named when it was started.
func TestBypass_B35_Aliases(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install(allowed, "")
	c.install("/opt/evil", "another")
	c.jail("/srv/jail")
	must(t, os.Symlink(allowed, c.path("/opt/symlink")))
	must(t, os.Symlink("/opt/evil", c.path("/opt/looks-allowed")))
	for _, tc := range []struct {
		name, want string
		argv       []string
	}{
		{"symlink", allowed, []string{"/opt/symlink", "role", "dial", c.addr4}},
		{"symlink to another", "/opt/evil", []string{"/opt/looks-allowed", "role", "dial", c.addr4}},
		{"through /proc", allowed, []string{"/proc/self/root" + allowed, "role", "dial", c.addr4}},
		{"chroot", "/srv/jail" + allowed, []string{c.self, "role", "chroot", c.addr4, "/srv/jail", allowed}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := one(t, r, c.client(tc.argv...)); got.Binary != tc.want {
				t.Errorf("binary %s, want %s", got.Binary, tc.want)
			}
		})
	}
	t.Run("bind mount in its own mount namespace", func(t *testing.T) {
		refused(t, r, c.client("/opt/evil", "role", "bindover", c.addr4, allowed), ErrIntegrity, "another file")
	})
}

// TestBypass_B35_FirstProcessMoves: the container's first process, if it changes its
// root before the first connection, has no say in what paths mean.
func TestBypass_B35_FirstProcessMoves(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.jail("/srv/jail")
	c.send("CHROOT", "/srv/jail")
	c.expect("ready")
	refused(t, r, c.client(allowed, "role", "dial", c.addr4), ErrIntegrity, "has changed its root to /srv/jail")
	if got := r.Aliases([]string{"/bin/sh", allowed}); len(got) != 0 {
		t.Errorf("aliases %v", got)
	}
}

// TestBypass_B36_NoFile: programs that are no file of the container, or no longer.
func TestBypass_B36_NoFile(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install(allowed, "")
	t.Run("memfd", func(t *testing.T) {
		refused(t, r, c.client(c.self, "role", "memfd", c.addr4, allowed), ErrIntegrity, `"/memfd:allowed (deleted)"`)
	})
	t.Run("removed", func(t *testing.T) {
		c.install("/opt/gone", "")
		conn := c.client("/opt/gone", "role", "dial", c.addr4)
		one(t, r, conn)
		must(t, os.Remove(c.path("/opt/gone")))
		refused(t, r, conn, ErrIntegrity, "was removed")
	})
	t.Run("removed, with another name left", func(t *testing.T) {
		c.install("/opt/gone", "")
		must(t, os.Link(c.path("/opt/gone"), c.path("/opt/kept")))
		conn := c.client("/opt/gone", "role", "dial", c.addr4)
		must(t, os.Remove(c.path("/opt/gone")))
		refused(t, r, conn, ErrIntegrity, "/opt/gone (deleted)")
	})
	t.Run("removed, and the permitted program put in its place", func(t *testing.T) {
		c.install("/opt/evil", "another")
		conn := c.client("/opt/evil", "role", "dial", c.addr4)
		must(t, os.Remove(c.path("/opt/evil")))
		must(t, os.Link(c.path(allowed), c.path("/opt/evil")))
		refused(t, r, conn, ErrIntegrity, "")
	})
	t.Run("control: a name that ends so", func(t *testing.T) {
		path := c.install("/opt/tool (deleted)", "")
		if got := one(t, r, c.client(path, "role", "dial", c.addr4)); got.Binary != path {
			t.Errorf("binary %s", got.Binary)
		}
	})
}

// TestBypass_B38_SharedSocket: every program that holds the socket is told, and one
// that holds it no longer does not speak for it.
func TestBypass_B38_SharedSocket(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install(allowed, "")
	c.install("/opt/evil", "another")
	for _, tc := range []struct {
		name, mode string
		want       []string
	}{
		{"passed and kept", "keep", []string{allowed, "/opt/evil"}},
		{"passed on", "give", []string{"/opt/evil"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := c.client(allowed, "role", "share", c.addr4, "/opt/evil", tc.mode)
			c.expect("shared")
			if got := binaries(t, r, conn); !slices.Equal(got, tc.want) {
				t.Errorf("held by %v, want %v", got, tc.want)
			}
		})
	}
	t.Run("the same program twice has two parents", func(t *testing.T) {
		conn := c.client(allowed, "role", "share", c.addr4, allowed, "keep")
		c.expect("shared")
		if got := binaries(t, r, conn); !slices.Equal(got, []string{allowed, allowed}) {
			t.Errorf("held by %v", got)
		}
	})
}

// TestBypass_B38_Shadow: a second socket with the same addresses does not hide the
// one that is connected.
func TestBypass_B38_Shadow(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	conn := c.client(c.self, "role", "shadow", c.addr4)
	refused(t, r, conn, ErrNoSocket, "TCP state 2")
}

// TestBypass_B39_Gone: who is gone has no identity, not even that of its successor.
func TestBypass_B39_Gone(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	conn := c.client(c.self, "role", "dial", c.addr4)
	p := one(t, r, conn)
	must(t, unix.Kill(p.Pid, unix.SIGKILL))
	deadline := time.Now().Add(patienceOfTests)
	for {
		_, err := r.Resolve(conn.local, conn.remote)
		if errors.Is(err, ErrNoSocket) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("error %v, want ErrNoSocket", err)
		}
	}
}

// TestBypass_B39_PidReuse: an open process stays the one it was.
func TestBypass_B39_PidReuse(t *testing.T) {
	testenv.Require(t, testenv.Root)
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	start := func() *exec.Cmd {
		cmd := exec.Command(sleep, "1000")
		must(t, cmd.Start())
		return cmd
	}
	stop := func(cmd *exec.Cmd) {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	old := start()
	pid := old.Process.Pid
	p, err := openProcess(pid, pid)
	must(t, err)
	defer p.close()
	if _, _, err := p.look(); err != nil {
		t.Fatalf("control: %v", err)
	}
	stop(old)
	for range 200 {
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0))
		cmd := start()
		defer stop(cmd)
		if cmd.Process.Pid != pid {
			continue
		}
		path, _, err := p.look()
		if !errors.Is(err, errChanged) {
			t.Errorf("the new process %d is seen as %q, %v", pid, path, err)
		}
		if alive, err := p.alive(); alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
		return
	}
	t.Skip("the kernel did not give the id again")
}

// TestBypass_B39_ExecInBetween: a holder that executes another program while it is
// looked at is not taken for what it was.
func TestBypass_B39_ExecInBetween(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install(allowed, "")
	c.install("/opt/evil", "another")
	conn := c.client(allowed, "role", "late", c.addr4, "/opt/evil", "/tmp/now")
	sock, at, err := r.sockets.find(conn.local, conn.remote)
	must(t, err)
	hs, pids, err := r.sweeps.find(sock.inode, r.members.list)
	must(t, err)
	if len(hs) != 1 {
		t.Fatalf("%d holders", len(hs))
	}
	h := hs[0]
	defer h.close()
	got, err := r.describe(h, pids)
	must(t, err)
	must(t, r.sockets.still(sock, at))
	must(t, h.unchanged(sock.inode))
	if got.Binary != allowed {
		t.Fatalf("control: %+v", got)
	}
	must(t, os.WriteFile(c.path("/tmp/now"), nil, 0o600))
	deadline := time.Now().Add(patienceOfTests)
	for {
		path, _, err := h.look()
		if err == nil && path == "/opt/evil" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %s, %v", path, err)
		}
	}
	if err := h.unchanged(sock.inode); !errors.Is(err, errChanged) {
		t.Errorf("error %v, want errChanged", err)
	}
	if got := binaries(t, r, conn); !slices.Equal(got, []string{"/opt/evil"}) {
		t.Errorf("then held by %v", got)
	}
}
