// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory that the kernel reads in the calls of privileged.
var (
	root, tmpfs, tmp, empty = [2]byte{'/'}, [6]byte{'t', 'm', 'p', 'f', 's'}, [5]byte{'/', 't', 'm', 'p'}, [1]byte{}
	attributes              = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	// handle is a file handle of 8 bytes.
	handle = [4]uint32{8, 1}
)

// privileged makes system calls that need a capability and prints NAME=ERRNO. The arguments
// are valid, so that the kernel checks the capability, and harmless if it has it. With the
// argument nobody, it first drops all capabilities.
func privileged(args []string) {
	if len(args) > 0 {
		if err := syscall.Setresgid(65534, 65534, 65534); err != nil {
			report("", err)
		}
		if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
			report("", err)
		}
	}
	p := func(b *byte) uintptr { return uintptr(unsafe.Pointer(b)) }
	here, self, first := bad, uintptr(os.Getpid()), uintptr(1)
	at := unix.AT_FDCWD
	cwd := uintptr(at)
	uts, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		report("", err)
	}
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		report("", err)
	}
	iov.Base = &empty[0]
	iov.SetLen(len(empty))
	var out []string
	for _, c := range []call{
		{"mount", unix.SYS_MOUNT, [6]uintptr{p(&tmpfs[0]), p(&tmp[0]), p(&tmpfs[0])}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{p(&tmp[0])}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{p(&tmpfs[0])}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{here}},
		{"fspick", unix.SYS_FSPICK, [6]uintptr{cwd, p(&root[0])}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{cwd, p(&root[0]), cwd, p(&tmp[0])}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{cwd, p(&root[0]), unix.OPEN_TREE_CLONE}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{here, p(&empty[0]), unix.AT_EMPTY_PATH, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes)}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{p(&root[0]), p(&root[0])}},
		{"setns", unix.SYS_SETNS, [6]uintptr{uintptr(uts)}},
		{"unshare", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUTS}},
		{"acct", unix.SYS_ACCT, [6]uintptr{}},
		{"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{p(&empty[0])}},
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{p(&empty[0]), 0, p(&empty[0])}},
		{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{here, p(&empty[0])}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{unix.FAN_CLASS_CONTENT}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{cwd, uintptr(unsafe.Pointer(&handle[0]))}},
		{"swapon", unix.SYS_SWAPON, [6]uintptr{p(&empty[0])}},
		{"swapoff", unix.SYS_SWAPOFF, [6]uintptr{p(&empty[0])}},
		{"syslog", unix.SYS_SYSLOG, [6]uintptr{unix.SYSLOG_ACTION_READ, p(&empty[0]), 1}},
		{"prctl:SET_MM", unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_MM, unix.PR_SET_MM_ARG_START}},
		{"socket:SOCK_RAW", unix.SYS_SOCKET, [6]uintptr{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_SEIZE, first}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{first, uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1}},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{first, uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{uintptr(pidfd)}},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{self, first, 2}},
	} {
		_, _, errno := unix.RawSyscall6(c.trap, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		out = append(out, fmt.Sprintf("%s=%s", c.name, name(errno)))
	}
	report(strings.Join(out, " "), nil)
}
