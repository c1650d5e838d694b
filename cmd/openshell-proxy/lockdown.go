// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/guard"
)

// harden keeps what the process knows to itself: no core, no tracing, no new
// rights.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become non-dumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// lockDown leaves the worker what judging needs and no more: its open
// descriptors, its two folders, the right to mark its own connections, and the
// system calls for that.
//
// Preconditions: everything that is read from files has been read.
func lockDown(folders []string, marks bool) error {
	// A kernel without Landlock runs the worker without it: what the sandbox
	// itself needs of Landlock is the operator's floor, not this. The network is
	// what the worker is for.
	rules := landlock.V7
	rules.HandledAccessNet = 0
	if err := rules.BestEffort().Restrict(landlock.RWDirs(folders...)); err != nil {
		return fmt.Errorf("apply Landlock to the worker: %w", err)
	}
	var keep uint64
	if marks {
		keep = 1 << unix.CAP_NET_ADMIN
	}
	for c := range guard.Capabilities {
		// The guard's thread has dropped it before the worker was.
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == nil && has != 0 && keep&(1<<c) == 0 {
			return fmt.Errorf("the guard left capability %d in the bounding set", c)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	for i := range data {
		data[i].Effective = uint32(keep >> (32 * i))
		data[i].Permitted = data[i].Effective
	}
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return filter()
}

func allThreads(trap, a, b, c uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a, b, c); errno != 0 {
		return errno
	}
	return nil
}
