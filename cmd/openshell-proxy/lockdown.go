// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/harden"
	"openshell.dev/runtime/proxy/guard"
)

// lockDown leaves the worker what judging needs and no more: its open
// descriptors, its two folders, the right to mark its own connections, and the
// system calls for that.
//
// Preconditions: everything that is read from files has been read.
func lockDown(folders []string, marks bool) error {
	if err := harden.Files(landlock.RWDirs(folders...)); err != nil {
		return err
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
	has, err := harden.Capabilities(keep)
	if err != nil {
		return err
	}
	if has != keep {
		return fmt.Errorf("the worker lacks a right that it needs: capabilities are %#x, want %#x", has, keep)
	}
	return filter()
}
