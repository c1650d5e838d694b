// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// digests hashes programs, once for each state of a file, and keeps the first
// digest of each path.
type digests struct {
	flight singleflight.Group

	mu    sync.Mutex
	cache map[fileID]string
	pins  map[string]string
}

func newDigests() *digests {
	return &digests{cache: map[fileID]string{}, pins: map[string]string{}}
}

// of returns the digest of the file id at path, that open opens.
func (d *digests) of(path string, id fileID, open func() (int, error)) (string, error) {
	d.mu.Lock()
	sum, ok := d.cache[id]
	d.mu.Unlock()
	if !ok {
		v, err, _ := d.flight.Do(fmt.Sprint(id), func() (any, error) { return d.hash(path, id, open) })
		if err != nil {
			return "", err
		}
		sum, _ = v.(string)
	}
	return sum, d.pin(path, sum)
}

func (d *digests) pin(path, sum string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, ok := d.pins[path]
	switch {
	case !ok && len(d.pins) >= maxPins:
		return fmt.Errorf("%w: more than %d programs have made connections", ErrIntegrity, maxPins)
	case !ok:
		d.pins[path] = sum
	case first != sum:
		return fmt.Errorf("%w: Binary integrity violation: %s hash changed (cached: %s, current: %s)", ErrIntegrity, path, first, sum)
	}
	return nil
}

func (d *digests) hash(path string, id fileID, open func() (int, error)) (string, error) {
	if id.size > maxExecutable {
		return "", fmt.Errorf("%w: %s has %d bytes, more than %d", ErrIntegrity, path, id.size, maxExecutable)
	}
	fd, err := open()
	if err != nil {
		return "", gone(fmt.Errorf("open the executable %s: %w", path, err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	same := func() error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("look at the executable %s: %w", path, err)
		}
		if idOf(&st) != id {
			return errChanged
		}
		return nil
	}
	if err := same(); err != nil {
		return "", err
	}
	began := time.Now()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, id.size+1))
	if err != nil {
		return "", fmt.Errorf("read the executable %s: %w", path, err)
	}
	if err := same(); err != nil {
		return "", err
	}
	if n != id.size {
		return "", errors.Join(errChanged, fmt.Errorf("executable %s: %d bytes read of %d", path, n, id.size))
	}
	sum := "sha256:" + hex.EncodeToString(h.Sum(nil))
	if began.Sub(time.Unix(id.ctime.Unix())) < settled {
		return sum, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cache) >= maxDigests {
		for old := range d.cache { // any: it is hashed again when needed
			delete(d.cache, old)
			break
		}
	}
	d.cache[id] = sum
	return sum, nil
}
