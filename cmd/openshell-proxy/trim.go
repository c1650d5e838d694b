// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is how long after its start a process gives back what only the start
// needed; a short-lived container never pays for it.
const trimAfter = 2 * time.Second

// trimLater has the process give back its garbage and the pages of its program
// that starting has touched: a sandbox idles for most of its life. What is used
// again comes back from the page cache. From then on garbage (in percent of what
// lives) is how much may gather; a start is not held up by collecting any.
//
// Preconditions: /proc can be read; it may not be any more afterwards.
func trimLater(garbage int) {
	own := program()
	time.AfterFunc(trimAfter, func() {
		debug.SetGCPercent(garbage)
		debug.FreeOSMemory()
		for _, m := range own {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		}
	})
}

// mapping is a part of the address space.
type mapping struct{ start, end uintptr }

// program are the mappings of the executable that are never written to: dropping
// their pages loses nothing.
func program() (found []mapping) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(text) {
		var m mapping
		var perms, offset, device, inode, file string
		n, _ := fmt.Sscanf(string(line), "%x-%x %s %s %s %s %s", &m.start, &m.end, &perms, &offset, &device, &inode, &file)
		if n == 7 && file == exe && (perms == "r-xp" || perms == "r--p") {
			found = append(found, m)
		}
	}
	return found
}
