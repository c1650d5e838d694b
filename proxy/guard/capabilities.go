// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Capabilities is how many a kernel can have: the sets are of 64 bits.
const Capabilities uintptr = 64

// dropCapabilities takes from the calling thread's bounding set what no worker may
// have, so that the workers forked from it never do, on any of their threads.
// marks leaves the right to mark connections.
//
// Preconditions: the goroutine is locked to its thread.
func dropCapabilities(marks bool) error {
	for c := range Capabilities {
		if marks && c == unix.CAP_NET_ADMIN {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel has no more
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}
