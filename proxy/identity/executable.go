// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// fileID names a state of a file: the file, and when it last changed. The change
// time cannot be set.
type fileID struct {
	fileKey
	size         int64
	mtime, ctime unix.Timespec
}

func idOf(st *unix.Stat_t) fileID {
	return fileID{fileKey{st.Dev, st.Ino}, st.Size, st.Mtim, st.Ctim}
}

// executable is the program that a process runs.
type executable struct {
	path   string
	id     fileID
	digest string
}

// executable tells what p runs, if it is what its path says.
func (r *Resolver) executable(p *process) (executable, error) {
	path, id, err := p.look()
	if err != nil {
		return executable{}, err
	}
	if err := r.root.reaches(path, id.fileKey); err != nil {
		return executable{}, err
	}
	e := executable{path: path, id: id}
	e.digest, err = r.digests.of(path, id, func() (int, error) {
		return openLink(p.dir, "exe", unix.O_RDONLY|unix.O_NONBLOCK)
	})
	return e, err
}

// look returns the path of the executable as the kernel tells it, and the file
// behind it, which need not be what is found at that path.
func (p *process) look() (string, fileID, error) {
	path, err := p.exe()
	if err != nil {
		return "", fileID{}, err
	}
	var st unix.Stat_t
	if err := statLink(p.dir, "exe", &st); err != nil {
		return "", fileID{}, gone(fmt.Errorf("look at %s: %w", p.path("exe"), err))
	}
	again, err := p.exe()
	switch {
	case err != nil:
		return "", fileID{}, err
	case again != path:
		return "", fileID{}, errChanged
	case !strings.HasPrefix(path, "/"):
		return "", fileID{}, fmt.Errorf("%w: executable %q of process %d has no path", ErrIntegrity, path, p.pid)
	case st.Nlink == 0:
		// A memfd, too, has no name and shows as deleted.
		return "", fileID{}, fmt.Errorf("%w: executable %q of process %d is in memory only or was removed", ErrIntegrity, path, p.pid)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", fileID{}, fmt.Errorf("%w: executable %q of process %d is no regular file", ErrIntegrity, path, p.pid)
	}
	return path, idOf(&st), nil
}

func (p *process) exe() (string, error) {
	s, err := readLink(p.dir, "exe")
	if err != nil {
		// ENOENT: it has ended, or is a kernel thread, which holds no sockets.
		return "", gone(fmt.Errorf("read %s: %w", p.path("exe"), err))
	}
	return s, nil
}

func readLink(dir int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := readLinkInto(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", errors.New("path too long")
	}
	return string(buf[:n]), nil
}
