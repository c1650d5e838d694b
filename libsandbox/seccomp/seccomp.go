// SPDX-License-Identifier: Apache-2.0

// Package seccomp is the sandbox's own system call filter: a second one, on top
// of the engine's (the kernel takes the most restrictive answer), so that an
// engine's `seccomp=unconfined` does not remove it. It allows by default and
// refuses what leads out of a sandbox.
//
// This file is the table and is pure; bpf.go compiles it with libseccomp.
package seccomp

import "golang.org/x/sys/unix"

// Denied fail with EPERM whatever their arguments. io_uring gets EPERM and is
// never killed: libuv probes for it.
var Denied = []string{
	"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise",
	"bpf", "perf_event_open", "userfaultfd",
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	"mount", "umount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr",
	"mount_setattr", "pivot_root", "setns",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
	"add_key", "request_key", "keyctl", "open_by_handle_at", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm",
	"socketcall",
}

// Missing fail with ENOSYS, so that a C library falls back to a call whose
// arguments a filter can read.
var Missing = []string{"clone3"}

// Match is one test of an argument: masked by Mask it equals Value, or, with a
// Mask of 0, it is Value or more.
type Match struct {
	Arg         uint
	Mask, Value uint64
}

// Condition refuses Call with EPERM when every match holds.
type Condition struct {
	Call    string
	Matches []Match
}

const (
	tiocLinux = 0x541C // x/sys lacks it
	whole     = 1<<32 - 1
	atLeast   = 0
	// socketType is the part of socket(2)'s type that is not a flag.
	socketType = 0xf
)

// Conditions are the calls of which only some uses are refused.
func Conditions() []Condition {
	var out []Condition
	refuse := func(call string, m ...Match) { out = append(out, Condition{call, m}) }
	// No new namespaces, whichever flag asks for them.
	for _, flag := range []uint64{
		unix.CLONE_NEWNS, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWCGROUP,
	} {
		refuse("clone", Match{0, flag, flag})
		refuse("unshare", Match{0, flag, flag})
	}
	refuse("unshare", Match{0, unix.CLONE_NEWTIME, unix.CLONE_NEWTIME})
	// Families: only unix, IPv4, IPv6 and route netlink, and no raw sockets.
	for family := uint64(0); family <= unix.AF_NETLINK; family++ {
		switch family {
		case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK:
		default:
			refuse("socket", Match{0, whole, family})
		}
	}
	refuse("socket", Match{0, atLeast, unix.AF_NETLINK + 1})
	refuse("socketpair", Match{0, atLeast, unix.AF_UNIX + 1})
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, kind := range []uint64{unix.SOCK_RAW, unix.SOCK_PACKET} {
			refuse("socket", Match{0, whole, family}, Match{1, socketType, kind})
		}
	}
	refuse("socket", Match{0, whole, unix.AF_NETLINK}, Match{2, atLeast, unix.NETLINK_ROUTE + 1})
	// Typing into the terminal and pasting from the console.
	refuse("ioctl", Match{1, whole, unix.TIOCSTI})
	refuse("ioctl", Match{1, whole, tiocLinux})
	return out
}
