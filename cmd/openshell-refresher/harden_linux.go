// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/harden"
)

// keepToItself leaves the process no right that it does not need: it reads and writes
// root's files as their owner, and speaks to the network.
func keepToItself() error {
	if err := harden.Process(); err != nil {
		return err
	}
	// Credentials in files may be another user's.
	_, err := harden.Capabilities(1 << unix.CAP_DAC_READ_SEARCH) // the owner of the store needs none
	return err
}

// lockDown leaves the process the right to write in these folders, to read, and to
// run nothing: root's files elsewhere would be its own to change.
func lockDown(folders ...string) error {
	read := landlock.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSReadDir)
	return harden.Files(landlock.PathAccess(read, "/"), landlock.RWDirs(folders...))
}
