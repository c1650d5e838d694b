// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"errors"
	"fmt"
	"os"
	"time"

	"openshell.dev/runtime/internal/flock"
)

// holdTries limits the attempts to lock a folder that a concurrent Prune removes.
const holdTries = 10

// Holder marks the log of one folder as that of a running sandbox.
type Holder struct{ dir *os.File }

// Hold marks the log in dir, which it creates, as the log of a running sandbox: Prune does
// not remove it, and a Tail waits for more records. Several processes may hold a log; the
// mark remains until the last one closes it. It is a shared flock(2) on the folder.
func Hold(dir string) (*Holder, error) {
	for range holdTries {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of decisions: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was removed before it was opened
		}
		if err != nil {
			return nil, fmt.Errorf("open the folder of decisions: %w", err)
		}
		if err := flock.Lock(f, flock.Shared); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock the folder of decisions %s: %w", dir, err)
		}
		ours, err := f.Stat()
		if now, at := os.Stat(dir); err == nil && at == nil && os.SameFile(ours, now) {
			return &Holder{f}, nil
		}
		_ = f.Close() // Prune removed it before it was locked
	}
	return nil, fmt.Errorf("lock the folder of decisions %s: it is repeatedly removed", dir)
}

// Close removes the mark and sets the folder's modification time to now.
func (h *Holder) Close() error {
	now := time.Now()
	_ = os.Chtimes(h.dir.Name(), now, now) // if this fails, the time of the last record counts
	return h.dir.Close()
}

// tryLock locks the folder f exclusively and reports whether nobody holds its log. The lock
// lasts until f is closed.
func tryLock(f *os.File) bool {
	return flock.Try(f, flock.Exclusive) == nil
}

// Held reports whether a running sandbox writes to the log in dir.
func Held(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return !tryLock(f)
}
