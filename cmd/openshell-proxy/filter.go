// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// calls are what the worker still may ask the kernel for: Go's runtime, its open
// descriptors, files in its folders, connections. There is no way to another
// program among them, nor to another process.
var calls = []uint32{
	// Memory, threads and signals of its own.
	unix.SYS_BRK, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_FUTEX, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_RSEQ, unix.SYS_SET_ROBUST_LIST, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID,
	unix.SYS_GETEGID, unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// Descriptors.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_CLOSE,
	unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_PIPE2, unix.SYS_SPLICE, unix.SYS_SENDFILE, unix.SYS_EPOLL_CREATE1,
	unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
	// Files: Landlock says which.
	unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_MKDIRAT,
	unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
	unix.SYS_FTRUNCATE, unix.SYS_FLOCK,
	// Connections.
	unix.SYS_CONNECT, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT,
	unix.SYS_GETSOCKOPT, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
}

// Where struct seccomp_data has its parts; arguments are of 8 bytes, the lower half
// first on the machines that are served.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArgs = 16
)

// sockType is the part of socket(2)'s type that is not a flag.
const sockType = 0xf

// filter leaves every thread of the process the system calls above and, of some
// others, harmless uses. Anything else fails with EPERM.
//
// Preconditions: no_new_privs is set.
func filter() error {
	program, err := bpf.Assemble(instructions())
	if err != nil {
		return fmt.Errorf("assemble the worker's system call filter: %w", err)
	}
	insns := make([]unix.SockFilter, len(program))
	for i, r := range program {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	// Without speculation's mitigation, which no untrusted code here needs.
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("apply the worker's system call filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("apply the worker's system call filter: thread %d has another", thread)
	}
	return nil
}

func instructions() []bpf.Instruction {
	const allow, refuse = uint32(unix.SECCOMP_RET_ALLOW), uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
	}
	for _, call := range calls {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, bpf.RetConstant{Val: allow})
	}
	// when allows a call if, for each argument, its masked lower half is one of some
	// values.
	type test struct {
		arg, mask uint32
		values    []uint32
	}
	when := func(call uint32, tests ...test) {
		var body []bpf.Instruction
		for _, t := range tests {
			body = append(body, bpf.LoadAbsolute{Off: offsetArgs + 8*t.arg, Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: t.mask})
			for i, v := range t.values {
				body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(t.values) - i)})
			}
			body = append(body, bpf.RetConstant{Val: refuse})
		}
		body = append(body, bpf.RetConstant{Val: allow})
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: uint8(len(body))})
		out = append(out, body...)
	}
	none := func(arg, mask uint32) test { return test{arg, mask, []uint32{0}} }
	// No socket of another machine-local service (engines', systemd's): root's user
	// alone would open them.
	when(
		unix.SYS_SOCKET, test{0, ^uint32(0), []uint32{unix.AF_INET, unix.AF_INET6}},
		test{1, sockType, []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM}},
	)
	// To an address of IPv4, from which Docker's resolver is asked; nobody listens.
	when(unix.SYS_BIND, test{2, ^uint32(0), []uint32{unix.SizeofSockaddrInet4}})
	// Nobody reads clone3's flags; who gets ENOSYS takes clone.
	out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE3, SkipTrue: 1}, bpf.RetConstant{Val: uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)})
	when(unix.SYS_CLONE, test{0, unix.CLONE_THREAD, []uint32{unix.CLONE_THREAD}})
	when(unix.SYS_TGKILL, test{0, ^uint32(0), []uint32{uint32(os.Getpid())}})
	when(unix.SYS_MMAP, none(2, unix.PROT_EXEC))
	when(unix.SYS_MPROTECT, none(2, unix.PROT_EXEC))
	return append(out, bpf.RetConstant{Val: refuse})
}
