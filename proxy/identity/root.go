// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// root is the root of the mount namespace that the container was made with.
//
// Paths are walked from there and not from the root of the process in question:
// in a mount namespace of its own a process could bind a program of its making
// over a permitted path, and after chroot it is free to name files, too.
type root struct {
	first *process
	mnt   int // the mount namespace, kept open so that its number stays its own
	id    fileKey
	host  fileKey // the proxy's root

	mu sync.Mutex
	fd int // -1 before the first use: the container gets its root after it is made
}

func openRoot(first *process) (*root, error) {
	mnt, err := openLink(first.dir, "ns/mnt", unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", first.path("ns/mnt"), err)
	}
	var ns, host unix.Stat_t
	if err := errors.Join(unix.Fstat(mnt, &ns), unix.Stat("/", &host)); err != nil {
		_ = unix.Close(mnt)
		return nil, fmt.Errorf("look at %s and at the host's root: %w", first.path("ns/mnt"), err)
	}
	return &root{first: first, mnt: mnt, id: fileKey{ns.Dev, ns.Ino}, host: fileKey{host.Dev, host.Ino}, fd: -1}, nil
}

func (r *root) close() {
	_ = unix.Close(r.mnt)
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

// reaches checks that path leads to the file want. The path has no links in it: it
// comes from the kernel.
func (r *root) reaches(path string, want fileKey) error {
	got, fd, err := r.stat(path, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fmt.Errorf("%w: look for %s in the container: %w", ErrIntegrity, path, err)
	}
	defer unix.Close(fd)
	if (fileKey{got.Dev, got.Ino}) != want {
		return fmt.Errorf("%w: %s in the container is another file than the one that runs under this path", ErrIntegrity, path)
	}
	return nil
}

// canonical resolves all links in path and returns the path of the file it ends at.
func (r *root) canonical(path string) (string, error) {
	st, fd, err := r.stat(path, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	own, err := readLink(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	return own, r.reaches(own, fileKey{st.Dev, st.Ino})
}

// stat opens path, without access to its contents, and looks at it.
func (r *root) stat(path string, resolve uint64) (st unix.Stat_t, fd int, err error) {
	root, err := r.open()
	if err != nil {
		return st, -1, err
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | resolve}
	if fd, err = unix.Openat2(root, path, &how); err != nil {
		return st, -1, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
	}
	return st, fd, err
}

// open returns the root. It is opened at the first use and then kept, whatever the
// first process does later.
func (r *root) open() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		return r.fd, nil
	}
	fd, err := openLink(r.first.dir, "root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, gone(fmt.Errorf("open the container's root: %w", err))
	}
	if err := r.proper(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	r.fd = fd
	return fd, nil
}

// proper checks that fd is the root of the mount namespace the container was made
// with, and no longer the host's. The workload may be the first process, and have
// moved; what it leaves without privileges it cannot come back to.
func (r *root) proper(fd int) error {
	var ns, own unix.Stat_t
	if err := statLink(r.first.dir, "ns/mnt", &ns); err != nil {
		return gone(fmt.Errorf("look at %s: %w", r.first.path("ns/mnt"), err))
	}
	if (fileKey{ns.Dev, ns.Ino}) != r.id {
		return fmt.Errorf("%w: the container's first process has left its mount namespace", ErrIntegrity)
	}
	// Seen from outside the path of the namespace's root is "/"; that of another
	// directory, after chroot(2), is not.
	link, err := readLink(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fmt.Errorf("look at the container's root: %w", err)
	}
	if link != "/" {
		return fmt.Errorf("%w: the container's first process has changed its root to %s", ErrIntegrity, link)
	}
	if err := unix.Fstat(fd, &own); err != nil {
		return fmt.Errorf("look at the container's root: %w", err)
	}
	if (fileKey{own.Dev, own.Ino}) == r.host {
		return errors.New("the container has not got its root yet, or has the host's")
	}
	return nil
}
