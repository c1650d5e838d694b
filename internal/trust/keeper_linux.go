// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/internal/proxyapi"
)

const (
	// rest is the least pause between two looks at the stores, and restFactor the pause
	// as a multiple of the time that the last look took: a workload that writes its stores
	// without end gets a twentieth of a processor.
	rest       = 20 * time.Millisecond
	restFactor = 20
	// pollEvery is the pause between two looks where the kernel gives no notification:
	// fs.inotify.max_user_instances is 128 by default, for all sandboxes of a user.
	pollEvery = time.Second
	// notifyAfter is how long after its start a container gets no notifications: one that ends
	// sooner does not pay for them. What it has changed is seen then.
	notifyAfter = 50 * time.Millisecond
	// maxReports bounds the failures that are reported: the workload can cause more.
	maxReports = 16
)

// Keeper adds the CA to stores that the container's programs have changed, as long as
// the container runs.
type Keeper struct {
	stores  *proxyapi.TrustStores
	own     []byte
	report  func(string)
	reports int
	views   []*view
	first   *Snapshot
	// watches is nil where the kernel gives no notification, and during notifyAfter. mu
	// protects it.
	mu      sync.Mutex
	watches *os.File
	shared  *os.File // see Share
	stop    chan struct{}
	stopped chan struct{}
}

// Keep starts a Keeper for the container whose first process is pid. first is the result of
// Begin, or nil if another process has called Begin. report is called with each of the
// first failures, from a goroutine of the Keeper. The caller calls Close once the container
// has ended.
func Keep(s *proxyapi.TrustStores, own []byte, pid int, first *Snapshot, report func(string)) (*Keeper, error) {
	k := &Keeper{stores: s, first: first, own: own, report: report, stop: make(chan struct{}), stopped: make(chan struct{})}
	if len(s.Folders) == 0 {
		close(k.stopped)
		return k, nil
	}
	var err error
	if k.shared, err = Share(s.Root); err != nil {
		return nil, err
	}
	for i, f := range s.Folders {
		v, err := openContained(f, pid)
		if err != nil {
			_ = k.shared.Close()
			for _, v := range k.views {
				_ = v.dir.Close()
			}
			return nil, err
		}
		if first != nil {
			v.seen = maps.Clone(first.seen[i])
		}
		k.views = append(k.views, v)
	}
	go k.run()
	return k, nil
}

// failed reports a failure, but not more than maxReports of them.
func (k *Keeper) failed(format string, args ...any) {
	if k.reports++; k.reports <= maxReports {
		k.report(fmt.Sprintf(format, args...))
	}
}

// Close stops the Keeper and writes the changes of the folders into the container's layer.
//
// Preconditions: the container has ended.
func (k *Keeper) Close() error {
	b := newBudget()
	close(k.stop)
	k.mu.Lock()
	// Closing what was opened takes the kernel up to tens of milliseconds (grace periods of
	// fsnotify and of mounts), for which the container's end would wait. The process's end
	// closes the files.
	if k.watches != nil {
		_ = k.watches.SetReadDeadline(time.Now())
	}
	k.mu.Unlock()
	select {
	case <-k.stopped:
	case <-time.After(syncTimeout):
		return fmt.Errorf("changes of CA stores are not in the layer: the last look at them is %w", errLate)
	}
	defer k.shared.Close()
	var errs []error
	for i, v := range k.views {
		// Most containers change none.
		if k.first == nil || !v.untouched(k.first.upper[i], k.first.seen[i]) {
			errs = append(errs, v.sync(k.stores.Root, k.own, b))
		}
	}
	if len(k.views) > 0 && alone(k.shared) {
		for _, v := range k.views {
			errs = append(errs, v.unmake(k.stores.Root))
		}
	}
	return errors.Join(errs...)
}

// Sync writes the changes of the folders into the layer of the container whose first
// process is pid.
//
// Preconditions: the container is paused.
func Sync(s *proxyapi.TrustStores, own []byte, pid int) error {
	var errs []error
	b := newBudget()
	for _, f := range s.Folders {
		v, err := openContained(f, pid)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, v.sync(s.Root, own, b), v.dir.Close())
	}
	return errors.Join(errs...)
}

// maxDepth bounds the folders within a folder of stores that are written into the layer.
const maxDepth = 16

// sync writes what differs from the layer into it. A store is written without the CA.
func (v *view) sync(root string, own []byte, b *budget) error {
	top, err := openRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	layer, err := openLayer(&v.TrustFolder, top)
	if err != nil {
		return fmt.Errorf("write %s into the layer: %w", v.Path, err)
	}
	defer layer.Close()
	locked, err := lockLayer(layer, b)
	if err != nil {
		return fmt.Errorf("write %s into the layer: %w", v.Path, err)
	}
	defer locked.Close()
	m := &mirror{root: root, folderPath: v.Path, stores: v.Stores, own: own, budget: b}
	m.folder(v.dir, layer, ".", 0)
	if m.more > 0 {
		m.errs = append(m.errs, fmt.Errorf("%d more failures", m.more))
	}
	if err := errors.Join(m.errs...); err != nil {
		return fmt.Errorf("write %s into the layer: %w", v.Path, err)
	}
	return nil
}

// unmake removes the folders that were made for the mount, if they are empty.
func (v *view) unmake(root string) error {
	if v.Made == "" {
		return nil
	}
	top, err := openRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	layer, err := openLayer(&v.TrustFolder, top)
	if errors.Is(err, unix.ENOENT) {
		return nil // another sandbox of this root filesystem has removed it
	}
	if err != nil {
		return fmt.Errorf("remove %s, which was made for a mount: %w", v.Path, err)
	}
	if err := layer.Close(); err != nil {
		return err
	}
	for name := v.Path; pathname.Below(name, v.Made); name = path.Dir(name) {
		above, err := inside(top, "."+path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(int(above.Fd()), path.Base(name), unix.AT_REMOVEDIR)
		if err == nil && name == v.Made {
			at := unix.NsecToTimespec(v.MadeIn.UnixNano())
			err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", above.Fd()), []unix.Timespec{at, at}, 0)
		}
		err = errors.Join(err, above.Close())
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOENT) {
			return nil // the container's now
		}
		if err != nil {
			return fmt.Errorf("remove %s, which was made for a mount: %w", name, err)
		}
	}
	return nil
}

// mirror makes the content of a folder of the layer equal to that of the container's. It
// continues after an error.
type mirror struct {
	root, folderPath string
	stores           []string
	own              []byte
	budget           *budget
	errs             []error // the first maxReports
	more             int     // failures after them
}

func (m *mirror) failed(name string, err error) bool {
	switch {
	case err == nil:
	case len(m.errs) < maxReports:
		m.errs = append(m.errs, fmt.Errorf("%s: %w", name, err))
	default:
		m.more++
	}
	return err != nil
}

// names lists a folder that was opened with O_PATH.
func names(dir *os.File) ([]string, error) {
	f, err := inside(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	list, err := f.Readdirnames(-1)
	return list, errors.Join(err, f.Close())
}

func (m *mirror) folder(from, to *os.File, at string, depth int) {
	if depth > maxDepth {
		m.failed(at, fmt.Errorf("more than %d folders deep", maxDepth))
		return
	}
	theirs, err := names(from)
	if m.failed(at, err) {
		return
	}
	there := make(map[string]bool, len(theirs))
	for _, name := range theirs {
		if m.failed(at, m.budget.late()) {
			return
		}
		if name != temporary {
			there[name] = true
			m.entry(from, to, path.Join(at, name), depth)
		}
	}
	ours, err := names(to)
	if m.failed(at, err) {
		return
	}
	for _, name := range ours {
		if m.failed(at, m.budget.late()) {
			return
		}
		if !there[name] {
			m.failed(path.Join(at, name), remove(int(to.Fd()), name, depth))
		}
	}
}

func (m *mirror) entry(from, to *os.File, at string, depth int) {
	name := path.Base(at)
	var a, b unix.Stat_t
	if m.failed(at, unix.Fstatat(int(from.Fd()), name, &a, unix.AT_SYMLINK_NOFOLLOW)) {
		return
	}
	err := unix.Fstatat(int(to.Fd()), name, &b, unix.AT_SYMLINK_NOFOLLOW)
	if !errors.Is(err, unix.ENOENT) && m.failed(at, err) {
		return
	}
	if a.Mode&unix.S_IFMT == unix.S_IFREG && slices.Contains(m.stores, at) {
		m.failed(at, m.store(from, to, at))
		return
	}
	if err == nil && a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT {
		if m.failed(at, remove(int(to.Fd()), name, depth)) {
			return
		}
		b = unix.Stat_t{}
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m.subfolder(from, to, at, &a, &b, depth)
	case unix.S_IFLNK:
		m.failed(at, link(int(from.Fd()), int(to.Fd()), name, &a, &b))
	case unix.S_IFREG:
		if a.Size != b.Size || a.Mtim != b.Mtim || !sameOwner(&a, &b) {
			m.failed(at, m.file(int(from.Fd()), int(to.Fd()), name))
		}
	default:
		// Devices, pipes and sockets stay where they are: no package has one here.
	}
}

func (m *mirror) subfolder(from, to *os.File, at string, a, b *unix.Stat_t, depth int) {
	name := path.Base(at)
	if b.Mode == 0 {
		if m.made(from, at) {
			return
		}
		if m.failed(at, unix.Mkdirat(int(to.Fd()), name, 0o700)) {
			return
		}
	}
	x, err := inside(int(from.Fd()), name, unix.O_PATH|unix.O_DIRECTORY)
	if m.failed(at, err) {
		return
	}
	defer x.Close()
	// The name may be another folder's by now.
	if m.failed(at, unix.Fstat(int(x.Fd()), a)) {
		return
	}
	y, err := inside(int(to.Fd()), name, unix.O_PATH|unix.O_DIRECTORY)
	if m.failed(at, err) {
		return
	}
	defer y.Close()
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid {
		self := fmt.Sprintf("/proc/self/fd/%d", y.Fd())
		if m.failed(at, errors.Join(unix.Chown(self, int(a.Uid), int(a.Gid)), unix.Chmod(self, a.Mode&0o7777))) {
			return
		}
	}
	m.folder(x, y, at, depth+1)
}

// made reports whether a folder that the layer does not have holds nothing but stores of
// the sandbox's own.
func (m *mirror) made(from *os.File, at string) bool {
	if !slices.ContainsFunc(m.stores, func(s string) bool { return pathname.Below(s, at) }) {
		return false
	}
	dir, err := inside(int(from.Fd()), path.Base(at), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer dir.Close()
	list, err := names(dir)
	return err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(name string) bool {
		if name := path.Join(at, name); slices.Contains(m.stores, name) {
			data, _, ok, err := readStore(int(dir.Fd()), path.Base(name))
			if err != nil || !ok {
				return true
			}
			without, err := removeFrom(name, data, m.own)
			return err != nil || len(without) > 0
		}
		return !m.made(dir, path.Join(at, name))
	})
}

// store writes a store without the CA, if it then differs from the layer's.
func (m *mirror) store(from, to *os.File, at string) error {
	name := path.Base(at)
	data, a, ok, err := readStore(int(from.Fd()), name)
	if err != nil || !ok {
		return err
	}
	without, err := removeFrom(name, data, m.own)
	if err != nil {
		// Its password or its format has changed: it is the workload's own.
		without = data
	}
	held, b, ok, err := readStore(int(to.Fd()), name)
	if err != nil || (!ok && len(without) == 0) {
		return err
	}
	if !ok {
		// The container's store has replaced a link.
		behind, err := throughLink(m.root, path.Join(m.folderPath, at))
		if err != nil || sameStore(behind, without) {
			return err
		}
	}
	if ok && sameStore(held, without) && sameOwner(&a, &b) {
		return nil
	}
	if err := m.budget.take(int64(len(without))); err != nil {
		return err
	}
	return put(int(to.Fd()), name, bytes.NewReader(without), &a)
}

// sameStore reports whether the layer's store is what the container's is without the CA.
func sameStore(held, without []byte) bool {
	return bytes.Equal(bytes.TrimRight(held, "\n"), bytes.TrimRight(without, "\n")) || (!isJKS(held) && !isDER(held) && bytes.Equal(bundle(held, nil), without))
}

// link copies a symbolic link.
func link(from, to int, name string, a, b *unix.Stat_t) error {
	target, err := readlink(from, name)
	if err != nil {
		return err
	}
	if held, err := readlink(to, name); err == nil && held == target && a.Mtim == b.Mtim {
		return nil
	}
	_ = unix.Unlinkat(to, temporary, 0)
	if err := unix.Symlinkat(target, to, temporary); err != nil {
		return err
	}
	return settle(to, name, a, unix.Fchownat(to, temporary, int(a.Uid), int(a.Gid), unix.AT_SYMLINK_NOFOLLOW))
}

// settle gives the file temporary the times of st and renames it to name. If that fails or
// err is not nil, it removes the file.
func settle(dir int, name string, st *unix.Stat_t, err error) error {
	at := []unix.Timespec{st.Atim, st.Mtim}
	if err == nil {
		err = unix.UtimesNanoAt(dir, temporary, at, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Renameat(dir, temporary, dir, name)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, temporary, 0))
	}
	return nil
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	return string(b[:max(n, 0)]), err
}

// file copies a regular file. Size, owner and mode are those of the open file: the
// workload may run and rename another file to the name at any time.
func (m *mirror) file(from, to int, name string) error {
	f, st, ok, err := openRegular(from, name)
	if err != nil || !ok {
		return err
	}
	defer f.Close()
	if err := m.budget.take(st.Size); err != nil {
		return err
	}
	return put(to, name, timedReader{io.LimitReader(f, st.Size), m.budget}, &st)
}

// sameOwner reports whether b, the layer's, has the owner and the mode that a gets there.
func sameOwner(a, b *unix.Stat_t) bool {
	return a.Uid == b.Uid && a.Gid == b.Gid && (a.Mode == b.Mode || a.Mode&^(unix.S_ISUID|unix.S_ISGID) == b.Mode)
}

// put writes a file in the folder dir with st's owner, mode and times.
func put(dir int, name string, data io.Reader, st *unix.Stat_t) error {
	if err := write(dir, data, st); err != nil {
		return err
	}
	return settle(dir, name, st, nil)
}

// remove removes a name and what is below it.
func remove(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	f, err := inside(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	list, err := names(f)
	for _, n := range list {
		if err == nil && depth < maxDepth {
			err = remove(int(f.Fd()), n, depth+1)
		}
	}
	return errors.Join(err, f.Close(), unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}
