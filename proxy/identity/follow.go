// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Links of a process in /proc (exe, root, fd/N, ns/NAME) are followed with the
// functions of this file. If the process ends while the kernel follows such a link,
// the kernel answers EACCES, as if the caller had no right to look at the process. A
// second look tells the two apart: a process that has ended then gives ENOENT or
// ESRCH, and one that must not be looked at gives EACCES again.

// maxLooks is how often a link is followed at most. A third look is needed only if the
// path names the process by its id and the id has passed to another process that has
// ended as well.
const maxLooks = 3

// follow calls once up to maxLooks times, until the error is not EACCES.
func follow(once func() error) (err error) {
	for range maxLooks {
		if err = once(); !errors.Is(err, unix.EACCES) {
			return err
		}
	}
	return err
}

// statLink looks at the file behind a link.
func statLink(dir int, link string, st *unix.Stat_t) error {
	return follow(func() error { return unix.Fstatat(dir, link, st, 0) })
}

// openLink opens the file behind a link.
func openLink(dir int, link string, flags int) (fd int, err error) {
	err = follow(func() error {
		fd, err = unix.Openat(dir, link, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// readLinkInto reads where a link leads into b.
func readLinkInto(dir int, link string, b []byte) (n int, err error) {
	if n, err = unix.Readlinkat(dir, link, b); !errors.Is(err, unix.EACCES) {
		return n, err // nearly always; this path allocates no closure
	}
	err = follow(func() error {
		n, err = unix.Readlinkat(dir, link, b)
		return err
	})
	return n, err
}
