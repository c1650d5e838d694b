// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takenOver has this program act as a worker that somebody else has the say in:
// takenOver=UNIX-SOCKET TCP-ADDRESS FILE [filter].
const takenOver = "OPENSHELL_TEST_TAKEN_OVER"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(takenOver)); len(args) > 0 {
		attack(args)
		return
	}
	os.Exit(m.Run())
}

// attack prints NAME=ERRNO of what it tried.
func attack(args []string) {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if len(args) == 4 && err == nil {
		err = filter()
	}
	if err != nil {
		fmt.Println("error", err)
		return
	}
	say := func(what string, errno unix.Errno) {
		name := "0"
		if errno != 0 {
			name = unix.ErrnoName(errno)
		}
		fmt.Printf("%s=%s ", what, name)
	}
	try := func(what string, trap uintptr, a ...uintptr) {
		a = append(a, 0, 0, 0, 0, 0, 0)
		_, _, errno := unix.RawSyscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
		say(what, errno)
	}
	// For each, a kernel without the filter has another answer than EPERM.
	const bad = ^uintptr(0) - 4095
	try("unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM)
	try("unixgram", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM)
	try("unix, high half", unix.SYS_SOCKET, 1<<32|unix.AF_UNIX, unix.SOCK_STREAM)
	try("netlink", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW)
	try("socketpair", unix.SYS_SOCKETPAIR, bad)
	try("execve", unix.SYS_EXECVE, bad)
	try("execveat", unix.SYS_EXECVEAT, bad, bad)
	try("fork", unix.SYS_CLONE, unix.CLONE_SIGHAND)
	try("clone3", unix.SYS_CLONE3, bad, 64)
	try("kill", unix.SYS_KILL, uintptr(os.Getppid()))
	try("tgkill", unix.SYS_TGKILL, uintptr(os.Getppid()), uintptr(os.Getppid()))
	try("ptrace", unix.SYS_PTRACE, unix.PTRACE_SEIZE, bad)
	try("process_vm_readv", unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()))
	try("pidfd_open", unix.SYS_PIDFD_OPEN, uintptr(os.Getppid()))
	try("setns", unix.SYS_SETNS, bad)
	try("unshare", unix.SYS_UNSHARE, 1)
	try("mount", unix.SYS_MOUNT, bad, bad, bad)
	try("open_tree", unix.SYS_OPEN_TREE, bad, bad)
	try("bpf", unix.SYS_BPF, bad, bad, 1)
	try("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, bad)
	try("userfaultfd", unix.SYS_USERFAULTFD, 1)
	try("keyctl", unix.SYS_KEYCTL, bad)
	try("memfd_create", unix.SYS_MEMFD_CREATE, bad)
	try("dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	try("seccomp", unix.SYS_SECCOMP, bad)
	try("setuid", unix.SYS_SETUID, 0)
	try("fchownat", unix.SYS_FCHOWNAT, bad, bad)
	try("linkat", unix.SYS_LINKAT, bad, bad, bad, bad)
	try("bind", unix.SYS_BIND, bad)
	try("listen", unix.SYS_LISTEN, bad)
	try("ioctl", unix.SYS_IOCTL, bad)
	try("mmap to execute", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, bad)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		try("mprotect to execute", unix.SYS_MPROTECT, uintptr(unsafe.Pointer(&page[0])), 4096, unix.PROT_READ|unix.PROT_EXEC)
	}
	fmt.Println()
	// Threads, files and connections are what is left.
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			c, err := net.DialTimeout("tcp", args[1], time.Second)
			if err == nil {
				err = c.Close()
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			fmt.Println("error", err)
		}
	}
	if err := os.WriteFile(args[2], []byte("x"), 0o600); err != nil {
		fmt.Println("error", err)
	}
	if c, err := net.Dial("unix", args[0]); err == nil {
		_, _ = c.Write([]byte("x"))
		fmt.Println("connected")
	}
	if exec.Command("/bin/true").Run() == nil {
		fmt.Println("executed")
	}
}

// TestWorkerThatIsTakenOver: whoever has the worker has the network and its two
// folders: no other program, no other process, no socket of the machine's services.
func TestWorkerThatIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	service, err := net.Listen("unix", filepath.Join(dir, "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	arrived := make(chan struct{}, 4)
	go func() {
		for {
			c, err := service.Accept()
			if err != nil {
				return
			}
			arrived <- struct{}{}
			_ = c.Close()
		}
	}()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	run := func(more string) string {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{takenOver + "=" + strings.Join([]string{service.Addr().String(), server.Addr().String(), filepath.Join(dir, "record")}, " ") + more}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	attempts, rest, _ := strings.Cut(run(" filter"), "\n")
	if rest != "" {
		t.Errorf("with the filter: %s", rest)
	}
	if n := strings.Count(attempts, "="); n != 33 || strings.Count(attempts, "=EPERM ") != n-1 || !strings.Contains(attempts, "clone3=ENOSYS ") {
		t.Errorf("%d attempts: %s", n, attempts)
	}
	if len(arrived) != 0 {
		t.Error("a service of the machine was reached")
	}
	// The control.
	attempts, rest, _ = strings.Cut(run(""), "\n")
	if rest != "connected\nexecuted\n" || strings.Contains(attempts, "=EPERM ") {
		t.Fatalf("without the filter: %s\n%s", attempts, rest)
	}
	<-arrived
}
