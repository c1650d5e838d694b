// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/flock"
)

const (
	// shareTimeout bounds the wait for a sandbox that ends and removes the folders that were
	// made for its mounts, which takes it some microseconds.
	shareTimeout = 500 * time.Millisecond
)

// Share marks a root filesystem as that of a running sandbox. Several sandboxes may have
// one root filesystem: none of them removes a folder that was made for a mount as long as
// another one uses it, because the kernel detaches what is mounted on a folder that is
// removed. The mark is a shared flock(2) of the root and ends when the file is closed.
func Share(root string) (*os.File, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root filesystem: %w", err)
	}
	f := os.NewFile(uintptr(fd), root)
	if err := flock.Within(f, flock.Shared, shareTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the root filesystem: %w", err), f.Close())
	}
	return f, nil
}

// alone reports whether no other sandbox has marked the root filesystem. Others that begin
// wait until the file is closed.
func alone(shared *os.File) bool {
	return flock.Try(shared, flock.Exclusive) == nil
}
