// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// harden keeps what the process knows to itself and leaves it no right that it does
// not need: it reads and writes root's files as their owner, and speaks to the
// network.
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
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	have, keep := [2]unix.CapUserData{}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	// Credentials in files may be another user's.
	keep[0].Permitted = have[0].Permitted & (1 << unix.CAP_DAC_READ_SEARCH)
	keep[0].Effective = keep[0].Permitted
	if err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&keep)), 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// lockDown leaves the process the right to write in these folders, to read, and to
// run nothing: root's files elsewhere would be its own to change.
func lockDown(folders ...string) error {
	read := landlock.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSReadDir)
	// A kernel without Landlock runs it without; the network is what it is for.
	rules := landlock.V7
	rules.HandledAccessNet = 0
	if err := rules.BestEffort().Restrict(landlock.PathAccess(read, "/"), landlock.RWDirs(folders...)); err != nil {
		return fmt.Errorf("apply Landlock: %w", err)
	}
	return nil
}

func allThreads(trap, a, b, c uintptr) error {
	if _, _, errno := psx.Syscall6(trap, a, b, c, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
