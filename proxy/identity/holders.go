// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// holder is a process with a descriptor of the socket.
type holder struct {
	*process
	fd  string // the descriptor's number, by which it was found
	exe executable
}

// socketName returns the target of the link /proc/PID/fd/N of a socket.
func socketName(inode uint32) string { return fmt.Sprintf("socket:[%d]", inode) }

// search looks for the holders of sockets, one process after the other.
type search struct {
	// want has the lookups of each socket, by its [socketName].
	want map[string][]*wanted
	seen int
	// left is how many of the sockets have not been found in the current process.
	left int
	buf  [64]byte
}

// process searches the descriptor tables of a process. A thread can have its own table
// (unshare(CLONE_FILES)), and the table of a first thread that has ended is empty while
// other threads run. process skips tables that, by kcmp(2), are the first thread's.
func (s *search) process(pid int) error {
	base := "/proc/" + strconv.Itoa(pid)
	s.left = len(s.want)
	if all, err := s.table(pid, pid, base+"/fd"); all || err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(base+"/task", &st); err != nil {
		return ignoreEnded(fmt.Errorf("look at %s/task: %w", base, err))
	}
	const one = 3 // number of links of a directory that holds one thread's directory
	if st.Nlink == one {
		return nil
	}
	tids, err := list(unix.AT_FDCWD, base+"/task")
	if err != nil {
		return ignoreEnded(fmt.Errorf("list %s/task: %w", base, err))
	}
	for _, name := range tids {
		tid, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("list %s/task: %q is no thread", base, name)
		}
		if tid == pid || sameTable(pid, tid) {
			continue
		}
		if all, err := s.table(pid, tid, base+"/task/"+name+"/fd"); all || err != nil {
			return err
		}
	}
	return nil
}

// sameTable reports whether two threads share their descriptors, by kcmp(2). It returns
// false if kcmp fails.
func sameTable(pid, tid int) bool {
	const kcmpFiles = 2 // KCMP_FILES of linux/kcmp.h
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), kcmpFiles, 0, 0, 0)
	return errno == 0 && r == 0
}

// table searches one descriptor table. It returns true when all sockets have been found
// in the process.
func (s *search) table(pid, tid int, path string) (bool, error) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, ignoreEnded(fmt.Errorf("open %s: %w", path, err))
	}
	defer unix.Close(dir)
	names, err := readNames(dir)
	if err != nil {
		return false, ignoreEnded(fmt.Errorf("list %s: %w", path, err))
	}
	if s.seen += len(names); s.seen > maxDescriptors {
		return false, fmt.Errorf("more than %d open files in the container", maxDescriptors)
	}
	for _, fd := range names {
		n, err := readLinkInto(dir, fd, s.buf[:])
		if err != nil {
			if err := ignoreEnded(err); err != nil {
				return false, fmt.Errorf("read %s/%s: %w", path, fd, err)
			}
			continue
		}
		of := s.want[string(s.buf[:n])]
		if len(of) == 0 || of[0].last == pid {
			continue
		}
		for _, w := range of {
			w.hold(pid, tid, fd)
		}
		if s.left--; s.left == 0 {
			return true, nil
		}
	}
	return false, nil
}

// ignoreEnded returns nil for the error of a process or thread that has ended, or of a
// closed descriptor: they hold no socket. It returns other errors, so that a process that
// cannot be read is not taken for one without the socket.
func ignoreEnded(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// unchanged returns an error unless the holder is alive, still holds the socket and still
// runs the same executable.
func (h *holder) unchanged(inode uint32) error {
	if alive, err := h.alive(); err != nil || !alive {
		return errors.Join(errChanged, err)
	}
	var buf [64]byte
	n, err := readLinkInto(h.dir, "fd/"+h.fd, buf[:])
	if err != nil {
		return gone(fmt.Errorf("read %s: %w", h.path("fd/"+h.fd), err))
	}
	path, id, err := h.look()
	if err != nil {
		return err
	}
	if string(buf[:n]) != socketName(inode) || path != h.exe.path || id != h.exe.id {
		return errChanged
	}
	return nil
}
