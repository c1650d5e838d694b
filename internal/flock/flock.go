// SPDX-License-Identifier: Apache-2.0

// Package flock locks open files with flock(2). A lock belongs to the open file
// description and lasts until its last descriptor is closed, also those of child
// processes, so the end of a process ends its locks. Two opens of one file exclude each
// other even in one process.
package flock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is a kind of lock.
type Mode int

// The modes. Any number of shared locks may be held at a time, or one exclusive lock.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// ErrHeld says that a lock of somebody else excludes this one.
var ErrHeld error = unix.EWOULDBLOCK

// The pause between two attempts of [Within] doubles from firstPause to lastPause: most
// holders are about to end, and an attempt takes a microsecond.
const (
	firstPause = 100 * time.Microsecond
	lastPause  = time.Millisecond
)

// Lock locks f and waits for as long as that takes.
func Lock(f *os.File, m Mode) error { return lock(f, int(m)) }

// Try locks f, or returns an error that wraps [ErrHeld].
func Try(f *os.File, m Mode) error { return lock(f, int(m)|unix.LOCK_NB) }

// Within locks f as [Try] does, and tries again for some time. It tries at least once.
func Within(f *os.File, m Mode, wait time.Duration) error {
	end := time.Now().Add(wait)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := Try(f, m); !errors.Is(err, ErrHeld) || !time.Now().Before(end) {
			return err
		}
		time.Sleep(pause)
	}
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
