// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

const patienceOfTests = 20 * time.Second

// container is a first process in PID, mount and network namespaces of its own,
// on a root made of an overlay, and servers in its network namespace.
type container struct {
	t      testing.TB
	ns     vnetns.NsHandle
	nsFile *os.File
	pid    int
	kill   func()
	stdin  io.Writer
	lines  chan string
	self   string
	addr4  string
	addr6  string
	conns  chan net.Conn // accepted
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newContainer(t testing.TB) *container {
	t.Helper()
	testenv.Require(t, testenv.Root)
	c := &container{t: t, lines: make(chan string, 64), conns: make(chan net.Conn, 256)}
	var err error
	c.self, err = os.Executable()
	must(t, err)
	cmd := exec.Command(c.self, "role", "first", t.TempDir())
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	c.stdin, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	inThread(t, func() error {
		if c.ns, err = vnetns.New(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		return cmd.Start()
	})
	c.nsFile, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", int(c.ns)))
	must(t, err)
	c.pid = cmd.Process.Pid
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			c.lines <- s.Text()
		}
		close(c.lines)
	}()
	c.kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		for range c.lines {
		}
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		c.kill()
		_ = c.nsFile.Close()
		_ = c.ns.Close()
	})
	c.expect("ready")
	c.addr4 = c.listen("tcp4", "127.0.0.1:0")
	c.addr6 = c.listen("tcp6", "[::1]:0")
	return c
}

// inThread runs f on a thread that ends with it.
func inThread(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	must(t, <-done)
}

// inside runs f in the container's network namespace.
func (c *container) inside(f func() error) {
	c.t.Helper()
	inThread(c.t, func() error {
		if err := vnetns.Set(c.ns); err != nil {
			return err
		}
		return f()
	})
}

// listen accepts connections and keeps them.
func (c *container) listen(network, addr string) string {
	c.t.Helper()
	var l net.Listener
	c.inside(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	c.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.conns <- conn
		}
	}()
	return l.Addr().String()
}

// slash is an address as bash wants it.
func slash(addr string) string { return strings.Replace(addr, ":", "/", 1) }

// onlyClient is the one connection that was ever made.
func (c *container) onlyClient() connection {
	conn := <-c.conns
	c.t.Cleanup(func() { conn.Close() })
	return connection{netip.MustParseAddrPort(conn.RemoteAddr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())}
}

func (c *container) line() string {
	c.t.Helper()
	select {
	case s, ok := <-c.lines:
		if !ok {
			c.t.Fatal("the container ended")
		}
		return s
	case <-time.After(patienceOfTests):
		c.t.Fatal("no answer from the container")
	}
	return ""
}

func (c *container) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("container says %q, want %q", got, want)
	}
}

func (c *container) send(argv ...string) {
	c.t.Helper()
	b, err := json.Marshal(argv)
	must(c.t, err)
	_, err = c.stdin.Write(append(b, '\n'))
	must(c.t, err)
}

// connection is a pair of addresses as the client sees it.
type connection struct{ local, remote netip.AddrPort }

// client starts a program and waits for the connection that it makes.
func (c *container) client(argv ...string) connection {
	c.t.Helper()
	c.send(argv...)
	return c.connection()
}

func (c *container) connection() connection {
	c.t.Helper()
	s := c.line()
	local, remote, ok := strings.Cut(s, " ")
	l, err := netip.ParseAddrPort(local)
	if !ok || err != nil {
		c.t.Fatalf("container says %q, want two addresses", s)
	}
	return connection{l, netip.MustParseAddrPort(remote)}
}

// path is a path in the container, from outside.
func (c *container) path(p string) string { return fmt.Sprintf("/proc/%d/root%s", c.pid, p) }

// install puts a copy of the test program into the container, with some bytes added.
func (c *container) install(path, extra string) string {
	c.t.Helper()
	b, err := os.ReadFile(c.self)
	must(c.t, err)
	must(c.t, os.MkdirAll(c.path(path[:strings.LastIndexByte(path, '/')]), 0o755))
	must(c.t, os.WriteFile(c.path(path), append(b, extra...), 0o755))
	return path
}

// jail makes a directory to change the root to, with a program in it.
func (c *container) jail(dir string) {
	c.t.Helper()
	c.install(dir+allowed, "another")
	c.copy("/dev/null", nil, dir)
	libs, _ := exec.Command("ldd", c.self).Output() // none if it is static
	for word := range strings.FieldsSeq(string(libs)) {
		if strings.HasPrefix(word, "/") {
			b, err := os.ReadFile(word)
			must(c.t, err)
			c.copy(word, b, dir)
		}
	}
}

func (c *container) copy(path string, contents []byte, to string) {
	c.t.Helper()
	must(c.t, os.MkdirAll(c.path(to+filepath.Dir(path)), 0o755))
	must(c.t, os.WriteFile(c.path(to+path), contents, 0o755))
}

func (c *container) open() *Resolver {
	c.t.Helper()
	r, err := Open(Config{Pid: c.pid, Netns: c.nsFile})
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, r.Close()) })
	return r
}

// one resolves a connection that one identity holds.
func one(t testing.TB, r *Resolver, conn connection) Process {
	t.Helper()
	ps, err := r.Resolve(conn.local, conn.remote)
	must(t, err)
	if len(ps) != 1 {
		t.Fatalf("%d identities, want 1: %+v", len(ps), ps)
	}
	return ps[0]
}
