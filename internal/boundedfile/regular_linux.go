// SPDX-License-Identifier: Apache-2.0

package boundedfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular means that the file is not a regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular opens the regular file name, relative to the folder dir, for reading. resolve
// are the RESOLVE_ flags of openat2(2). It never opens another kind of file: opening a
// device can have an effect, and opening a FIFO wakes its writers.
func OpenRegular(dir int, name string, resolve uint64) (*os.File, error) {
	at, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	// O_NONBLOCK: without it, a lease of another process (F_SETLEASE) would delay the open.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
