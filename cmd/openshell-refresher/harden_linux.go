// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/harden"
)

// keepToItself removes every right that the process does not need: it reads and writes
// root's files as their owner and uses the network.
func keepToItself() error {
	if err := harden.Process(); err != nil {
		return err
	}
	// Another user may own the files that contain credentials.
	_, err := harden.Capabilities(1 << unix.CAP_DAC_READ_SEARCH) // the owner of the store needs none
	return err
}

// lockDown allows the process to write in these folders, to read everywhere and to execute
// nothing. Without it, the process could change root's other files as their owner.
func lockDown(folders ...string) error {
	read := landlock.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSReadDir)
	return harden.Files(landlock.PathAccess(read, "/"), landlock.RWDirs(folders...))
}
