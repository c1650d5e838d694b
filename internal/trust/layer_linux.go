// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/proxyapi"
)

const (
	// syncTimeout bounds [Sync] and the write-back of [Keeper.Close]. It is below the 5 s
	// that the runtime waits for the proxy's end, so that the rest is reported and not lost
	// without a word.
	syncTimeout = 3 * time.Second
	// maxWritten bounds the bytes that one write-back writes, over all folders. It is the
	// size of the tmpfs that holds the changes: only sparse files and hard links add up to more.
	maxWritten = 64 << 20
)

// budget bounds one write-back into the container's layer.
type budget struct {
	left  int64 // bytes that may still be written
	until time.Time
}

func newBudget() *budget {
	return &budget{left: maxWritten, until: time.Now().Add(syncTimeout)}
}

// late returns an error if the time of the budget is over.
func (b *budget) late() error {
	if time.Now().After(b.until) {
		return errLate
	}
	return nil
}

// take reserves size bytes, or returns an error if that many are not left.
func (b *budget) take(size int64) error {
	if size > b.left {
		return fmt.Errorf("not written: the file has %d bytes and %d of %d are left", size, b.left, int64(maxWritten))
	}
	b.left -= size
	return b.late()
}

var errLate = fmt.Errorf("not finished after %v", syncTimeout)

// timedReader returns an error instead of more data once the budget's time is over.
type timedReader struct {
	io.Reader
	*budget
}

func (r timedReader) Read(p []byte) (int, error) {
	if err := r.late(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// lockLayer waits until no other process writes into a folder of a layer: the runtime at
// a pause and the guard at the container's end can do it at the same time. The lock is an
// exclusive flock(2) of the folder, which the container does not see, and ends when the
// file is closed.
func lockLayer(layer *os.File, b *budget) (*os.File, error) {
	f, err := inside(int(layer.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	err = flock.Within(f, flock.Exclusive, time.Until(b.until))
	if errors.Is(err, flock.ErrHeld) {
		err = errLate
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for another write-back: %w", err), f.Close())
	}
	return f, nil
}

// openLayer opens the folder of the layer, below its root. The workload can rename the
// folders above and make others of their names: another folder than the one that the
// overlay covers is an error.
func openLayer(f *proxyapi.TrustFolder, root int) (*os.File, error) {
	layer, err := inside(root, f.Path[1:], unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	found, err := inodeOf(layer)
	if err == nil && (f.Layer == proxyapi.Inode{} || found != f.Layer) {
		err = errors.New("not the folder that was there when the container was created")
	}
	if err != nil {
		return nil, errors.Join(err, layer.Close())
	}
	return layer, nil
}

func inodeOf(f *os.File) (proxyapi.Inode, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return proxyapi.Inode{Device: st.Dev, Number: st.Ino}, err
}

// FindLayers notes the folder of the layer for each folder. A folder that it does not find
// is not written.
//
// Preconditions: the container has its mounts, and none of its programs has run.
func FindLayers(s *proxyapi.TrustStores) error {
	if len(s.Folders) == 0 {
		return nil
	}
	top, err := openRoot(s.Root)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	for i := range s.Folders {
		f := &s.Folders[i]
		layer, err := inside(top, f.Path[1:], unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		f.Layer, err = inodeOf(layer)
		if err = errors.Join(err, layer.Close()); err != nil {
			return fmt.Errorf("look at %s in the layer: %w", f.Path, err)
		}
	}
	return nil
}
