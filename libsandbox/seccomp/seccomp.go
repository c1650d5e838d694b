// SPDX-License-Identifier: Apache-2.0

// Package seccomp is the sandbox's own system call filter: a second one, on top
// of the engine's (the kernel takes the most restrictive answer), so that an
// engine's `seccomp=unconfined` does not remove it. It allows by default and
// refuses what leads out of a sandbox.
//
// This file and numbers.go are the table and are pure; bpf.go compiles it with
// libseccomp.
package seccomp

import "slices"

// Denied fail with EPERM whatever their arguments. io_uring gets EPERM and is
// never killed: libuv probes for it.
var Denied = []string{
	"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise",
	"bpf", "perf_event_open", "userfaultfd",
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	"mount", "umount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree",
	"mount_setattr", "pivot_root", "setns",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
	"add_key", "request_key", "keyctl", "open_by_handle_at", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm",
	"socketcall",
	// What engines' own profiles refuse too, for sandboxes without an engine.
	"syslog", "fanotify_init", "lookup_dcookie", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old", "vhangup",
	"create_module", "get_kernel_syms", "query_module", "settimeofday", "stime", "clock_settime", "clock_settime64",
}

// Missing fail with ENOSYS: the program falls back to another call, as on a kernel
// that does not have this one. clone3's arguments cannot be read by a filter;
// open_tree_attr makes a mount, and Linux has it only since 6.15. Calls that are
// newer than [newest] fail in the same way.
var Missing = []string{"clone3", "open_tree_attr"}

// Compare is how a Match looks at an argument. The zero value is none: a match
// must say it.
type Compare int

const (
	_ Compare = iota
	// Equal holds where the argument, masked by Mask, is Value.
	Equal
	// AtLeast holds where the argument is Value or more.
	AtLeast
)

// Match is one test of an argument, counted from 0.
type Match struct {
	Arg     uint
	Compare Compare
	// Mask is for Equal alone.
	Mask, Value uint64
}

// Condition refuses Call with EPERM when every match holds.
type Condition struct {
	Call    string
	Matches []Match
}

// Linux's numbers, which a table that any machine can print spells out; a test
// compares them with x/sys/unix.
const (
	cloneNewTime   = 0x80
	cloneNewNS     = 0x20000
	cloneNewCgroup = 0x2000000
	cloneNewUTS    = 0x4000000
	cloneNewIPC    = 0x8000000
	cloneNewUser   = 0x10000000
	cloneNewPID    = 0x20000000
	cloneNewNet    = 0x40000000

	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	sockRaw       = 3
	sockRDM       = 4
	sockSeqpacket = 5
	sockDCCP      = 6
	sockPacket    = 10
	netlinkRoute  = 0

	protoIP     = 0
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41
	protoICMPv6 = 58
	// protoRest is the first of the protocols of which none is allowed.
	protoRest = 64

	prSetMM = 35

	tcpULP         = 31
	udpEncap       = 100
	ipXFRMPolicy   = 17
	ipv6XFRMPolicy = 35

	tiocSTI   = 0x5412
	tiocLinux = 0x541C

	// whole masks an int; the kernel does not look at the other half.
	whole = 1<<32 - 1
	// socketType is the part of socket(2)'s type that is not a flag.
	socketType = 0xf
)

// Conditions are the calls of which only some uses are refused.
func Conditions() []Condition {
	var out []Condition
	refuse := func(call string, m ...Match) { out = append(out, Condition{call, m}) }
	// No new namespaces, whichever flag asks for them.
	for _, flag := range []uint64{cloneNewNS, cloneNewUTS, cloneNewIPC, cloneNewUser, cloneNewPID, cloneNewNet, cloneNewCgroup} {
		refuse("clone", equal(0, flag, flag))
		refuse("unshare", equal(0, flag, flag))
	}
	refuse("unshare", equal(0, cloneNewTime, cloneNewTime))
	// Families: only unix, IPv4, IPv6 and route netlink, and no raw sockets. Of IP's
	// protocols only what has two locks (netns): others leave by no routing rule.
	for family := uint64(0); family <= afNetlink; family++ {
		switch family {
		case afUnix, afInet, afInet6, afNetlink:
		default:
			refuse("socket", equal(0, whole, family))
		}
	}
	refuse("socket", atLeast(0, afNetlink+1))
	refuse("socketpair", atLeast(0, afUnix+1))
	for _, family := range []uint64{afInet, afInet6} {
		for _, kind := range []uint64{sockRaw, sockRDM, sockSeqpacket, sockDCCP, sockPacket} {
			refuse("socket", equal(0, whole, family), equal(1, socketType, kind))
		}
	}
	// (The other families have no protocols but 0, and unix 1.)
	for _, m := range except(2, protoRest, 0, protoICMP, protoTCP, protoUDP, protoICMPv6) {
		refuse("socket", m)
	}
	refuse("socket", equal(0, whole, afNetlink), atLeast(2, netlinkRoute+1))
	// With CAP_SYS_RESOURCE a program could put another's name on itself
	// (PR_SET_MM_EXE_FILE), by which the proxy would take it for that one.
	refuse("prctl", equal(0, whole, prSetMM))
	// Typing into the terminal and pasting from the console.
	refuse("ioctl", equal(1, whole, tiocSTI))
	refuse("ioctl", equal(1, whole, tiocLinux))
	// Kernel code behind an ordinary socket: TLS and ESP in TCP (programs do TLS
	// themselves then), ESP and L2TP in UDP, and policies of IPsec.
	refuse("setsockopt", equal(1, whole, protoTCP), equal(2, whole, tcpULP))
	refuse("setsockopt", equal(1, whole, protoUDP), equal(2, whole, udpEncap))
	refuse("setsockopt", equal(1, whole, protoIP), equal(2, whole, ipXFRMPolicy))
	refuse("setsockopt", equal(1, whole, protoIPv6), equal(2, whole, ipv6XFRMPolicy))
	return out
}

// except matches, together, every value of an argument but those of keep, which are
// below end, a power of two.
func except(arg uint, end uint64, keep ...uint64) (out []Match) {
	var walk func(start, size uint64)
	walk = func(start, size uint64) {
		kept := slices.ContainsFunc(keep, func(k uint64) bool { return k >= start && k < start+size })
		switch {
		case !kept:
			out = append(out, equal(arg, whole&^(size-1), start))
		case size > 1:
			walk(start, size/2)
			walk(start+size/2, size/2)
		}
	}
	walk(0, end)
	return append(out, atLeast(arg, end))
}

func equal(arg uint, mask, value uint64) Match {
	return Match{Arg: arg, Compare: Equal, Mask: mask, Value: value}
}

func atLeast(arg uint, value uint64) Match {
	return Match{Arg: arg, Compare: AtLeast, Value: value}
}
