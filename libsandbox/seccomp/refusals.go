// SPDX-License-Identifier: Apache-2.0

package seccomp

import "slices"

// wholeCalls returns the refusals of calls with any arguments.
//
// A call fails with EPERM if the kernel itself returns EPERM to a process without the
// capability, or while a sysctl forbids the call. From ENOSYS, programs would conclude that
// the kernel is old, and report a wrong cause. All other calls fail with ENOSYS.
func wholeCalls() []Refusal {
	return []Refusal{
		{
			Calls:   []string{"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise"},
			Errno:   EPERM,
			Reason:  "as where Yama forbids to trace. Only where programs may not trace each other (`tracing` in the operator's configuration)",
			Tracing: true,
		},
		{
			Calls: []string{
				"mount", "umount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr", "pivot_root", "setns",
			},
			Errno:  EPERM,
			Reason: "as without CAP_SYS_ADMIN",
		},
		{
			Calls: []string{
				"acct", "delete_module", "fanotify_init", "finit_module", "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load",
				"open_by_handle_at", "quotactl", "quotactl_fd", "reboot", "swapoff", "swapon", "syslog", "vhangup",
				"clock_settime", "clock_settime64", "settimeofday", "stime",
			},
			Errno:  EPERM,
			Reason: "as without the capability that each needs",
		},
		{
			Calls:  []string{"bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "perf_event_open", "userfaultfd"},
			Errno:  EPERM,
			Reason: "as in Docker, and where a sysctl keeps them from users (`kernel.io_uring_disabled`, `kernel.unprivileged_bpf_disabled`)",
		},
		{
			Calls:  []string{"add_key", "keyctl", "request_key"},
			Errno:  ENOSYS,
			Reason: "as a kernel without keyrings: pam_keyinit opens the session only after this error",
		},
		{
			// The flags of clone3 are in memory, where no filter can read them.
			Calls:  []string{"clone3"},
			Errno:  ENOSYS,
			Reason: "a filter cannot read its flags; the C library calls clone instead",
		},
		{
			// open_tree_attr creates a mount. It is the newest reviewed call; newer calls
			// fail in the same way, see newest.
			Calls:  []string{"open_tree_attr"},
			Errno:  ENOSYS,
			Reason: "as before Linux 6.15; so do all newer calls",
		},
		{
			// The arguments of socketcall are in memory.
			Calls:  []string{"socketcall"},
			Errno:  ENOSYS,
			Reason: "a filter cannot read its arguments; 32-bit programs call socket, connect and the others directly",
		},
		{
			Calls: []string{
				"_sysctl", "create_module", "get_kernel_syms", "lookup_dcookie", "nfsservctl", "query_module", "sysfs", "uselib", "ustat", "vm86", "vm86old",
			},
			Errno:  ENOSYS,
			Reason: "as a kernel that has removed them, or is built without them",
		},
	}
}

// uses returns the refusals of calls of which only some uses are refused. No two uses with
// different errors may match the same arguments: libseccomp does not define which error
// applies.
func uses() []Refusal {
	return []Refusal{
		{
			// Any flag that asks for a new namespace.
			Uses:   namespaceUses(),
			Text:   "`clone`, `unshare` with a new namespace",
			Errno:  EPERM,
			Reason: "as without CAP_SYS_ADMIN, and where users get no user namespaces",
		},
		{
			// With CAP_SYS_RESOURCE, a program could take the name of another
			// (PR_SET_MM_EXE_FILE), and the proxy would mistake it for that program.
			Uses:   []Use{{"prctl", []Match{equal(0, whole, prSetMM)}}},
			Text:   "`prctl` PR_SET_MM",
			Errno:  EPERM,
			Reason: "as without CAP_SYS_RESOURCE",
		},
		{
			// Injecting input into the terminal.
			Uses:   []Use{{"ioctl", []Match{equal(1, whole, tiocSTI)}}},
			Text:   "`ioctl` TIOCSTI",
			Errno:  EIO,
			Reason: "as with the sysctl `dev.tty.legacy_tiocsti=0`",
		},
		{
			// Pasting from the console.
			Uses:   []Use{{"ioctl", []Match{equal(1, whole, tiocLinux)}}},
			Text:   "`ioctl` TIOCLINUX",
			Errno:  ENOTTY,
			Reason: "as at a terminal that is not the machine's console",
		},
		{
			// Kernel code that an ordinary socket can load: TLS and ESP in TCP.
			Uses:   []Use{{"setsockopt", []Match{equal(1, whole, protoTCP), equal(2, whole, tcpULP)}}},
			Text:   "`setsockopt` TCP_ULP (the kernel's TLS)",
			Errno:  ENOENT,
			Reason: "as a kernel without the protocol above TCP; programs do TLS themselves",
		},
		{
			// ESP and L2TP in UDP, and IPsec policies.
			Uses: []Use{
				{"setsockopt", []Match{equal(1, whole, protoUDP), equal(2, whole, udpEncap)}},
				{"setsockopt", []Match{equal(1, whole, protoIP), equal(2, whole, ipXFRMPolicy)}},
				{"setsockopt", []Match{equal(1, whole, protoIPv6), equal(2, whole, ipv6XFRMPolicy)}},
			},
			Text:   "`setsockopt` UDP_ENCAP, IP_XFRM_POLICY, IPV6_XFRM_POLICY",
			Errno:  ENOPROTOOPT,
			Reason: "as a kernel without IPsec",
		},
	}
}

func namespaceUses() (out []Use) {
	for _, flag := range []uint64{cloneNewNS, cloneNewUTS, cloneNewIPC, cloneNewUser, cloneNewPID, cloneNewNet, cloneNewCgroup} {
		out = append(out, Use{"clone", []Match{equal(0, flag, flag)}}, Use{"unshare", []Match{equal(0, flag, flag)}})
	}
	return append(out, Use{"unshare", []Match{equal(0, cloneNewTime, cloneNewTime)}})
}

// socketRule answers a call of socket(2) or socketpair(2) whose family, type and protocol
// are among those that it names. It names any of what is nil. The rule without an Errno
// allows the call; Text may be empty, where another rule has the text.
type socketRule struct {
	families, types, protocols []uint32
	Refusal
}

var (
	ip = []uint32{afInet, afInet6}
	// openProtocols are the IP protocols that sockets may use: those for which netns has both
	// its mechanisms. No routing rule applies to packets of other protocols.
	openProtocols = []uint32{protoIP, protoICMP, protoTCP, protoUDP, protoICMPv6}
)

// socketRules returns the rules for socket(2). The first one that applies answers. Unix,
// IPv4, IPv6 and route netlink sockets are allowed, raw sockets are not.
func socketRules() []socketRule {
	return []socketRule{
		{families: []uint32{afUnix}},
		{families: []uint32{afNetlink}, protocols: []uint32{netlinkRoute}},
		{families: []uint32{afNetlink}, Refusal: Refusal{
			Text:  "`socket` of netlink for other protocols than NETLINK_ROUTE",
			Errno: EPROTONOSUPPORT, Reason: "as a kernel without the protocol: PAM, useradd and sshd go on without NETLINK_AUDIT only after this error",
		}},
		{families: ip, types: []uint32{sockRaw}, Refusal: Refusal{
			Text:  "`socket` of IPv4 and IPv6, SOCK_RAW",
			Errno: EPERM, Reason: "as without CAP_NET_RAW",
		}},
		{families: ip, types: []uint32{sockStream, sockDgram}, protocols: openProtocols},
		{families: ip, types: []uint32{sockStream, sockDgram}, Refusal: Refusal{
			Text:  "`socket` of IPv4 and IPv6, other protocols than TCP, UDP and ICMP",
			Errno: EPROTONOSUPPORT, Reason: "as a kernel without the protocol: clients of multipath TCP fall back to TCP",
		}},
		{families: ip, Refusal: Refusal{
			Text:  "`socket` of IPv4 and IPv6, other types than stream and datagram (SOCK_SEQPACKET, SOCK_DCCP)",
			Errno: ESOCKTNOSUPPORT, Reason: "as a kernel without the type",
		}},
		{Refusal: Refusal{
			Text:  "`socket`, `socketpair` of other families than unix, IPv4, IPv6 and netlink",
			Errno: EAFNOSUPPORT, Reason: "as a kernel without the family",
		}},
	}
}

// socketpairRules returns the rules for socketpair(2).
func socketpairRules() []socketRule {
	return []socketRule{
		{families: []uint32{afUnix}},
		{families: append([]uint32{afNetlink}, ip...), Refusal: Refusal{
			Text:  "`socketpair` of IPv4, IPv6 and netlink",
			Errno: EOPNOTSUPP, Reason: "as every kernel",
		}},
		{Refusal: Refusal{Errno: EAFNOSUPPORT}},
	}
}

// socketRows returns the rules that refuse, with their texts.
func socketRows() (rows []Refusal) {
	for _, r := range slices.Concat(socketRules(), socketpairRules()) {
		if r.Text != "" {
			rows = append(rows, r.Refusal)
		}
	}
	return rows
}
