// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// The test binary is also every program in the containers of the tests:
// PROGRAM role NAME ARGUMENTS.

func init() {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		runtime.LockOSThread() // main stays on the first thread
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		if err := roles[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Println("error", os.Args[2:], err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var roles map[string]func([]string) error

func init() {
	roles = map[string]func([]string) error{
		"first": first, "commands": commands, "dial": dialRole, "mapped": mappedRole, "bound": boundRole, "shadow": shadowRole,
		"share": shareRole, "receive": receiveRole, "thread": threadRole, "leaderless": leaderlessRole,
		"memfd": memfdRole, "bindover": bindoverRole, "chroot": chrootRole, "late": lateRole,
		"idle": idleRole, "parent": parentRole, "halfclose": halfCloseRole, "nested": nestedRole,
	}
}

// first is the container's first process: it gives itself a root and then executes
// itself from there.
func first(args []string) error {
	tmp := args[0]
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("tmpfs", tmp, "tmpfs", 0, "") },
		func() error {
			return errors.Join(os.Mkdir(tmp+"/upper", 0o755), os.Mkdir(tmp+"/work", 0o755), os.Mkdir(tmp+"/root", 0o755))
		},
		func() error {
			return unix.Mount("overlay", tmp+"/root", "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%[1]s/work", tmp))
		},
		func() error { return unix.Mount("/dev", tmp+"/root/dev", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Chdir(tmp + "/root") },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Chdir("/") },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return os.MkdirAll("/opt", 0o755) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Up to here it runs the host's file.
	return unix.Exec(self, []string{self, "role", "commands"}, os.Environ())
}

// commands starts what it is told to, one command a line.
func commands([]string) error {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var argv []string
		if err := json.Unmarshal(in.Bytes(), &argv); err != nil {
			return err
		}
		if argv[0] == "CHROOT" {
			if err := errors.Join(unix.Chroot(argv[1]), unix.Chdir("/")); err != nil {
				return err
			}
			fmt.Println("ready")
			continue
		}
		start := func() error {
			c := exec.Command(argv[0], argv[1:]...)
			c.Stdout, c.Stderr = os.Stdout, os.Stderr
			err := c.Start()
			if err == nil {
				go func() { _ = c.Wait() }()
			}
			return err
		}
		err := start()
		for errors.Is(err, unix.ETXTBSY) {
			err = start()
		}
		if err != nil {
			fmt.Println("error", err)
		}
	}
	return in.Err()
}

// dial connects with a plain socket, that is closed on exec unless kept.
func dial(family int, remote netip.AddrPort, dev string) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if dev != "" {
		if err := unix.BindToDevice(fd, dev); err != nil {
			return -1, err
		}
	}
	return fd, unix.Connect(fd, sockaddr(family, remote))
}

func sockaddr(family int, a netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func familyOf(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// report tells the test the addresses of a connection.
func report(fd int, remote netip.AddrPort) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	var local netip.AddrPort
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		local = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		local = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	_, err = fmt.Println(local, remote)
	return err
}

func dialAndReport(family int, addr, dev string) (int, error) {
	remote, err := netip.ParseAddrPort(addr)
	if err != nil {
		return -1, err
	}
	if family == 0 {
		family = familyOf(remote)
	}
	fd, err := dial(family, remote, dev)
	if err != nil {
		return fd, err
	}
	return fd, report(fd, remote)
}

func dialRole(args []string) error {
	_, err := dialAndReport(0, args[0], "")
	return stay(err)
}

func mappedRole(args []string) error {
	_, err := dialAndReport(unix.AF_INET6, args[0], "")
	return stay(err)
}

func boundRole(args []string) error {
	_, err := dialAndReport(0, args[0], "lo")
	return stay(err)
}

func halfCloseRole(args []string) error {
	remote := netip.MustParseAddrPort(args[0])
	fd, err := dial(familyOf(remote), remote, "")
	if err == nil {
		err = unix.Shutdown(fd, unix.SHUT_WR)
	}
	if err == nil {
		err = report(fd, remote)
	}
	return stay(err)
}

func stay(err error) error {
	for err == nil {
		_ = unix.Pause() // until the process is killed
	}
	return err
}

// shadowRole makes a second socket with the addresses of a connection, that is
// bound to no interface where the first is.
func shadowRole(args []string) error {
	remote := netip.MustParseAddrPort(args[0])
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		fds[i] = fd
	}
	if err := unix.BindToDevice(fds[0], "lo"); err != nil {
		return err
	}
	for i, fd := range fds {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 45678, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		if i == 1 {
			// It takes no answer: the first one would end the other side of the
			// connection, and the next try take its place.
			drop := unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}}
			if err := errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &drop)); err != nil {
				return err
			}
		}
		if err := unix.Connect(fd, sockaddr(unix.AF_INET, remote)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect %d: %w", i, err)
		}
	}
	return stay(report(fds[0], remote))
}

// shareRole connects and passes the socket to another program over a unix socket.
// With "give" it keeps none.
func shareRole(args []string) error {
	addr, other, mode := args[0], args[1], args[2]
	remote := netip.MustParseAddrPort(addr)
	fd, err := dial(familyOf(remote), remote, "")
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c := exec.Command(other, "role", "receive")
	c.Stdout = os.Stdout
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "pair")}
	got, err := c.StdinPipe() // closed when we end
	if err != nil {
		return err
	}
	defer got.Close()
	if err := c.Start(); err != nil {
		return err
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	if _, err := unix.Read(pair[0], make([]byte, 1)); err != nil {
		return err
	}
	if err := report(fd, remote); err != nil {
		return err
	}
	if mode == "give" {
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	fmt.Println("shared")
	return stay(nil)
}

func receiveRole([]string) error {
	oob := make([]byte, 64)
	if _, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0); err != nil || n == 0 {
		return fmt.Errorf("receive: %d, %w", n, err)
	}
	_, err := unix.Write(3, []byte("y"))
	return stay(err)
}

// threadRole holds the socket only in the descriptor table of one thread.
func threadRole(args []string) error {
	done := make(chan error)
	r, w, err := os.Pipe() // opens Go's poller in the descriptor table that all threads share
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			done <- err
			return
		}
		_, err := dialAndReport(0, args[0], "")
		done <- stay(err)
	}()
	return <-done
}

// leaderlessRole holds the socket in a process whose first thread has ended.
func leaderlessRole(args []string) error {
	go func() {
		testenv.Eventually(time.Minute, func() bool {
			b, _ := os.ReadFile("/proc/self/stat")
			return ended(b)
		})
		_, err := dialAndReport(0, args[0], "")
		if err := stay(err); err != nil {
			fmt.Println("error", err)
		}
	}()
	_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

func ended(stat []byte) bool {
	for i := range stat {
		if stat[i] == ')' && i+2 < len(stat) && stat[i+2] == 'Z' {
			return true
		}
	}
	return false
}

func memfdRole(args []string) error {
	fd, err := unix.MemfdCreate("allowed", 0)
	if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	// Not the descriptor that was written to: that one is busy.
	ro, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", ro), []string{args[1], "role", "dial", args[0]}, nil)
}

// bindoverRole runs itself under the name of another program, in a mount namespace
// of its own.
func bindoverRole(args []string) error {
	addr, target := args[0], args[1]
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(self, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Exec(target, []string{target, "role", "dial", addr}, nil)
}

func chrootRole(args []string) error {
	addr, dir, program := args[0], args[1], args[2]
	if err := errors.Join(unix.Chroot(dir), unix.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec(program, []string{program, "role", "dial", addr}, nil)
}

// lateRole connects and, once a file appears, executes another program that keeps
// the socket.
func lateRole(args []string) error {
	addr, program, file := args[0], args[1], args[2]
	fd, err := dialAndReport(0, addr, "")
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return err
	}
	if !testenv.Eventually(time.Minute, func() bool {
		_, err := os.Stat(file)
		return err == nil
	}) {
		return fmt.Errorf("%s does not appear", file)
	}
	return unix.Exec(program, []string{program, "role", "idle", "0"}, nil)
}

func idleRole(args []string) error {
	n, err := strconv.Atoi(args[0])
	for range n {
		if _, err := os.Open("/dev/null"); err != nil {
			return err
		}
	}
	if n > 0 {
		fmt.Println("idle")
	}
	return stay(err)
}

// parentRole runs a chain of programs, each the parent of the next.
func parentRole(args []string) error {
	c := exec.Command(args[0], append([]string{"role"}, args[1:]...)...)
	c.Stdout = os.Stdout
	return c.Run()
}

// nestedRole runs a program in a PID namespace of its own.
func nestedRole(args []string) error {
	c := exec.Command(args[0], append([]string{"role"}, args[1:]...)...)
	c.Stdout = os.Stdout
	c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	return c.Run()
}
