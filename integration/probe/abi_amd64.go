// SPDX-License-Identifier: Apache-2.0

package main

import "golang.org/x/sys/unix"

// int80 makes a system call as a 32-bit program does.
func int80(trap, a, b, c uintptr) int32

// x32Bit selects the x32 table.
const x32Bit = 0x40000000

func x32(trap, a, b, c uintptr) int32 {
	_, _, errno := unix.RawSyscall(trap|x32Bit, a, b, c)
	return -int32(errno)
}

// foreign are calls with the numbers of i386 and x32.
var foreign = []foreignCall{
	{"i386:getpid", int80, 20, [3]uintptr{}}, // the control: i386 calls are possible
	{"i386:unshare", int80, 310, [3]uintptr{unix.CLONE_NEWUSER}},
	{"i386:clone", int80, 120, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_SIGHAND}},
	{"i386:clone3", int80, 435, [3]uintptr{0, 64}},
	{"i386:mount", int80, 21, [3]uintptr{1, 1, 1}},
	{"i386:umount", int80, 22, [3]uintptr{1}},
	{"i386:setns", int80, 346, [3]uintptr{1 << 30}},
	{"i386:ptrace", int80, 26, [3]uintptr{unix.PTRACE_TRACEME}},
	{"i386:process_vm_writev", int80, 348, [3]uintptr{1}},
	{"i386:io_uring_setup", int80, 425, [3]uintptr{1}},
	{"i386:socket(AF_PACKET)", int80, 359, [3]uintptr{unix.AF_PACKET, unix.SOCK_RAW}},
	{"i386:socket(AF_VSOCK)", int80, 359, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}},
	{"i386:socketcall", int80, 102, [3]uintptr{1, 1}},
	{"i386:open_tree", int80, 428, [3]uintptr{1 << 30, 1}},
	{"i386:open_tree_attr", int80, 467, [3]uintptr{1 << 30, 1}},
	{"x32:unshare", x32, 272, [3]uintptr{unix.CLONE_NEWUSER}},
	{"x32:ptrace", x32, 521, [3]uintptr{unix.PTRACE_TRACEME}},
	{"x32:process_vm_writev", x32, 540, [3]uintptr{1}},
	{"x32:socket(AF_PACKET)", x32, 41, [3]uintptr{unix.AF_PACKET, unix.SOCK_RAW}},
	{"x32:io_uring_setup", x32, 425, [3]uintptr{1}},
	{"x32:mount", x32, 165, [3]uintptr{}},
	{"x32:open_tree_attr", x32, 467, [3]uintptr{bad, bad}},
}
