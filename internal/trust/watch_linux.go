// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// watch watches the folders of the stores, as far as they exist.
func (k *Keeper) watch() {
	for _, v := range k.views {
		for _, name := range append([]string{"."}, v.Stores...) {
			dir, err := inside(int(v.dir.Fd()), path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				continue // made later: then its parent has an event
			}
			_, err = unix.InotifyAddWatch(int(k.watches.Fd()), fmt.Sprintf("/proc/self/fd/%d", dir.Fd()),
				unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_ONLYDIR)
			if err = errors.Join(err, dir.Close()); err != nil {
				k.failed("watch %s: %v", path.Join(v.Path, path.Dir(name)), err)
			}
		}
	}
}

// notify asks the kernel for notifications. If Close has been called already, run returns
// before it waits for one.
func (k *Keeper) notify() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		k.failed("changes of CA stores are seen after %v: %v (fs.inotify.max_user_instances)", pollEvery, err)
		return
	}
	k.mu.Lock()
	k.watches = os.NewFile(uintptr(fd), "inotify")
	k.mu.Unlock()
	k.watch()
}

func (k *Keeper) run() {
	defer close(k.stopped)
	select {
	case <-k.stop:
		return
	case <-time.After(notifyAfter):
	}
	k.notify()
	events := make([]byte, 64<<10)
	for first := true; ; first = false {
		if k.watches != nil && !first { // the first look is at what has changed until now
			// The events do not matter: the keeper checks every file, which is cheap for an
			// unchanged one.
			if _, err := k.watches.Read(events); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					k.failed("wait for changes of CA stores: %v", err)
				}
				return
			}
			k.watch()
		}
		began := time.Now()
		for _, v := range k.views {
			k.look(v)
		}
		pause := max(rest, restFactor*time.Since(began))
		if k.watches == nil {
			pause = max(pause, pollEvery)
		}
		select {
		case <-k.stop:
			return
		case <-time.After(pause):
		}
	}
}

func (k *Keeper) look(v *view) {
	for _, name := range v.Stores {
		if err := v.add(name, k.own, false, nil); err != nil && !errors.Is(err, unix.EROFS) {
			k.failed("add the sandbox's CA to %s: %v", path.Join(v.Path, name), err)
		}
	}
}
