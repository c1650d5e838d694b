// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call. Without the sandbox's filter, its arguments make the kernel
// return another error than EPERM where that is possible: the kernel detects a bad pointer
// or an unknown flag before it checks capabilities.
type call struct {
	name string
	trap uintptr
	args [6]uintptr
}

// bad is neither a valid address nor a valid descriptor.
const bad = ^uintptr(0) - 4095

// Memory that the kernel would read or write. Its addresses do not change.
var (
	params [120]byte
	iov    unix.Iovec
)

// calls makes each system call that leads out of a sandbox and prints NAME=ERRNO.
func calls() {
	list := []call{
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, uintptr(unsafe.Pointer(&params[0]))}},
		{"io_uring_enter", unix.SYS_IO_URING_ENTER, [6]uintptr{bad}},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER, [6]uintptr{bad}},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_TRACEME}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{uintptr(os.Getpid()), uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1}},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{uintptr(os.Getpid()), uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1}},
		{"process_madvise", unix.SYS_PROCESS_MADVISE, [6]uintptr{bad}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{bad}},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{uintptr(os.Getpid()), uintptr(os.Getpid()), 2}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{1}},
		{"bpf", unix.SYS_BPF, [6]uintptr{bad, bad, 1}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{bad}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{bad}},
		{"setns", unix.SYS_SETNS, [6]uintptr{bad}},
		{"mount", unix.SYS_MOUNT, [6]uintptr{bad, bad, bad}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{bad, bad}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{bad, bad}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{bad, bad}},
		{"fsconfig", unix.SYS_FSCONFIG, [6]uintptr{bad, bad}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{bad, bad}},
		{"fspick", unix.SYS_FSPICK, [6]uintptr{bad, bad}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad, bad, bad, bad}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad, bad}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{bad, bad, bad}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad, bad, bad}},
		{"syslog", unix.SYS_SYSLOG, [6]uintptr{bad}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{bad}},
		{"prctl:SET_MM", unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, bad}},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{bad, 64}},
		{"open_tree_attr", unix.SYS_OPEN_TREE_ATTR, [6]uintptr{bad, bad}},
		{"file_getattr", unix.SYS_FILE_GETATTR, [6]uintptr{bad, bad}},
		{"file_setattr", unix.SYS_FILE_SETATTR, [6]uintptr{bad, bad}},
	}
	for name, flag := range map[string]uintptr{
		"NEWNS": unix.CLONE_NEWNS, "NEWUTS": unix.CLONE_NEWUTS, "NEWIPC": unix.CLONE_NEWIPC, "NEWUSER": unix.CLONE_NEWUSER,
		"NEWPID": unix.CLONE_NEWPID, "NEWNET": unix.CLONE_NEWNET, "NEWCGROUP": unix.CLONE_NEWCGROUP,
	} {
		list = append(
			list,
			call{"unshare:" + name, unix.SYS_UNSHARE, [6]uintptr{flag | 1}},
			// CLONE_SIGHAND without CLONE_VM fails, so no child is created even without the
			// filter.
			call{"clone:" + name, unix.SYS_CLONE, [6]uintptr{flag | unix.CLONE_SIGHAND | uintptr(unix.SIGCHLD)}},
		)
	}
	list = append(list, call{"unshare:NEWTIME", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWTIME | 1}})
	var out []string
	for _, c := range list {
		_, _, errno := unix.RawSyscall6(c.trap, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		out = append(out, c.name+"="+name(errno))
	}
	report(strings.Join(out, " "), nil)
}

// name returns the name of errno, "0" for none.
func name(errno unix.Errno) string {
	if errno == 0 {
		return "0"
	}
	return unix.ErrnoName(errno)
}

// abi makes calls through the machine's other system call tables.
func abi() {
	var out []string
	for _, c := range foreign {
		result := c.enter(c.trap, c.args[0], c.args[1], c.args[2])
		if c.name == "i386:getpid" {
			out = append(out, fmt.Sprintf("%s=%t", c.name, int(result) == os.Getpid()))
			continue
		}
		out = append(out, c.name+"="+name(unix.Errno(-result)))
	}
	report(strings.Join(out, " "), nil)
}

// foreignCall is a call through another table.
type foreignCall struct {
	name  string
	enter func(trap, a, b, c uintptr) int32
	trap  uintptr
	args  [3]uintptr
}

// memoryOf tries every way of reaching into another process: mem PID. PID "child" is a
// program that it starts.
func memoryOf(pid string) {
	if pid == "child" {
		cmd := exec.Command("/bin/probe", "sleep", "5s")
		if err := cmd.Start(); err != nil {
			report("", err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		pid = fmt.Sprint(cmd.Process.Pid)
		time.Sleep(100 * time.Millisecond) // until the child has executed its program
	}
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		report("", err)
	}
	var out []string
	add := func(what string, err error) {
		out = append(out, what+"="+name(errnoOf(err)))
	}
	add("write", writeMemory(pid))
	add("attach", unix.PtraceAttach(n))
	add("seize", unix.PtraceSeize(n))
	b := byte(0)
	iov := []unix.Iovec{{Base: &b, Len: 1}}
	_, err := unix.ProcessVMWritev(n, iov, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
	add("writev", err)
	fd, err := unix.PidfdOpen(n, 0)
	if err == nil {
		_, err = unix.PidfdGetfd(fd, 0, 0)
		_ = unix.Close(fd)
	}
	add("getfd", err)
	report(strings.Join(out, " "), nil)
}

// writeMemory writes a byte to the first writable mapping of a process. It fails unless it
// can read the byte back.
func writeMemory(pid string) error {
	mem, err := unix.Open("/proc/"+pid+"/mem", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mem)
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var start, end int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		written, found := []byte{0x5a}, make([]byte, 1)
		if _, err := unix.Pwrite(mem, written, start); err != nil {
			return err
		}
		if _, err := unix.Pread(mem, found, start); err != nil {
			return err
		}
		if found[0] != written[0] {
			return unix.EIO
		}
		return nil
	}
	return unix.ENOENT
}

// unixDial connects to a unix socket with both socket types. A name that begins with @ is
// abstract.
func unixDial(address string) {
	var out []string
	for _, network := range []string{"unix", "unixgram"} {
		c, err := net.Dial(network, address)
		if err == nil {
			_, err = io.WriteString(c, "c2VjcmV0")
			_ = c.Close()
		}
		out = append(out, network+"="+name(errnoOf(err)))
	}
	report(strings.Join(out, " "), nil)
}

// peek opens each file for reading and for writing. It reads a few bytes and writes
// nothing.
func peek(files []string) {
	var out []string
	for _, file := range files {
		try := func(flags int, use func(fd int) string) string {
			fd, err := unix.Open(file, flags|unix.O_NONBLOCK, 0)
			if err != nil {
				return unix.ErrnoName(errnoOf(err))
			}
			defer unix.Close(fd)
			return use(fd)
		}
		read := try(unix.O_RDONLY, func(fd int) string {
			n, err := unix.Read(fd, make([]byte, 16))
			if err != nil {
				return unix.ErrnoName(errnoOf(err))
			}
			return fmt.Sprintf("%dB", n)
		})
		write := try(unix.O_WRONLY, func(int) string { return "0" })
		out = append(out, file+":"+read+","+write)
	}
	report(strings.Join(out, " "), nil)
}

// errnoOf returns the number of err. An error without one ends the probe.
func errnoOf(err error) (errno unix.Errno) {
	if err != nil && !errors.As(err, &errno) {
		report("", err)
	}
	return errno
}

// maxSearched is how many bytes of one file are read.
const maxSearched = 64 << 20

// search prints the files in the container that contain one of the needles, which are in
// hexadecimal, and the sockets.
func search(needles []string) {
	var want [][]byte
	for _, n := range needles {
		b, err := hex.DecodeString(n)
		if err != nil || len(b) < 8 {
			report("", fmt.Errorf("needle %q: %w", n, err))
		}
		want = append(want, b)
	}
	files, found := 0, []string{}
	look := func(path string) {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return
		}
		defer f.Close()
		b, _ := io.ReadAll(io.LimitReader(f, maxSearched))
		files++
		for _, w := range want {
			if bytes.Contains(b, w) {
				found = append(found, path)
			}
		}
	}
	_ = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read gives nothing away
		case d.IsDir() && (path == "/proc" || path == "/sys"):
			return fs.SkipDir
		case d.Type()&fs.ModeSocket != 0:
			found = append(found, path)
		case d.Type().IsRegular():
			look(path)
		}
		return nil
	})
	for _, pattern := range []string{"/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline", "/proc/[0-9]*/fd/*", "/proc/[0-9]*/mountinfo", "/proc/net/unix"} {
		matches, _ := filepath.Glob(pattern)
		for _, m := range matches {
			// Reading a pipe or a terminal would block.
			if st, err := os.Stat(m); err == nil && st.Mode().IsRegular() {
				look(m)
			}
		}
	}
	if files < 3 {
		report("", fmt.Errorf("only %d files could be read", files))
	}
	report("found "+strings.Join(found, " "), nil)
}

// traps are names of programs that privileged programs might execute in a hostile image.
var traps = []string{"ip", "nft", "nsenter", "mount", "umount", "iptables", "ip6tables", "ldconfig", "sh", "systemctl", "newuidmap", "newgidmap", "criu", "modprobe", "runc"}

// trapMark is the prefix of the file that a trap creates, in /tmp of the place where it is
// executed.
const trapMark = "/tmp/openshell-trap-"

// spring creates the file that shows that this program was executed under the name.
func spring(name string) {
	report("sprung", os.WriteFile(trapMark+name, []byte(strings.Join(os.Args, " ")), 0o644))
}
