// SPDX-License-Identifier: Apache-2.0

// Package harden removes rights from the calling process, on all of its threads and
// irrevocably. Programs that hold credentials use it, so that no other process can read
// them and the program keeps only the rights that it needs.
package harden

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Process prevents core dumps, tracing by other processes, and new privileges.
func Process() error {
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

// Capabilities drops all capabilities that are not in the bit mask keep, and returns those
// that the process still has.
func Capabilities(keep uint64) (has uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data {
		data[i].Permitted &= uint32(keep >> (32 * i))
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = 0
		has |= uint64(data[i].Permitted) << (32 * i)
	}
	err = allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if err != nil {
		return 0, fmt.Errorf("drop capabilities: %w", err)
	}
	return has, nil
}

// Files restricts the process to these files; open files stay open. Without Landlock in the
// kernel it does nothing: the operator's configuration decides whether a sandbox requires
// Landlock. Files does not restrict the network, which these programs need.
func Files(rules ...landlock.Rule) error {
	config := landlock.V7
	config.HandledAccessNet = 0
	if err := config.BestEffort().Restrict(rules...); err != nil {
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
