// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/internal/proxyapi"
)

// temporary is the name of a file or link that is about to replace another one. It is
// never a store's, and is not written into the layer.
const temporary = ".openshell-trust"

// view is an open folder with stores. The workload can write in it: no path is followed
// through a link or out of the folder.
type view struct {
	proxyapi.TrustFolder
	dir *os.File
	// seen tells whether a store has changed since the CA was added.
	seen map[string]version
}

// version identifies one content of a store.
type version struct {
	dev, ino        uint64
	size            int64
	modified, since unix.Timespec
}

// openView opens f before there is a container.
func openView(f proxyapi.TrustFolder) (*view, error) {
	fd, err := unix.Open(f.View, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.View, err)
	}
	return &view{TrustFolder: f, dir: os.NewFile(uintptr(fd), f.View), seen: map[string]version{}}, nil
}

// openContained opens f in the container whose first process is pid.
func openContained(f proxyapi.TrustFolder, pid int) (*view, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, f.Path[1:], &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, fmt.Errorf("open %s in the container: %w", f.Path, err)
	}
	dir := os.NewFile(uintptr(fd), f.Path)
	// The workload can rename the folders above and make others of their names.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != f.Device {
		return nil, errors.Join(fmt.Errorf("%s in the container is not the sandbox's overlay", f.Path), err, dir.Close())
	}
	return &view{TrustFolder: f, dir: dir, seen: map[string]version{}}, nil
}

// inside opens a path below dir.
func inside(dir int, name string, flags uint64) (*os.File, error) {
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK // a pipe does not hold the proxy up
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openRegular opens a regular file below dir for reading; ok is false if there is no
// regular file of that name. Nothing else is opened, not even for a moment: a pipe's
// writer does not notice. st is the open file's.
func openRegular(dir int, name string) (f *os.File, st unix.Stat_t, ok bool, err error) {
	found, err := inside(dir, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, st, false, nil
	}
	if err != nil {
		return nil, st, false, err
	}
	defer found.Close()
	if err := unix.Fstat(int(found.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, false, err
	}
	f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
	return f, st, err == nil, err
}

// readStore reads a store below dir; ok is false if there is no file of that name.
func readStore(dir int, name string) (data []byte, st unix.Stat_t, ok bool, err error) {
	f, st, ok, err := openRegular(dir, name)
	if err != nil || !ok {
		return nil, st, false, err
	}
	defer f.Close()
	if st.Size > MaxStore {
		return nil, st, false, fmt.Errorf("%s is larger than %d bytes", name, MaxStore)
	}
	data, err = io.ReadAll(io.LimitReader(f, MaxStore+1))
	if err == nil && len(data) > MaxStore {
		err = fmt.Errorf("%s is larger than %d bytes", name, MaxStore)
	}
	return data, st, err == nil, err
}

func versionOf(st *unix.Stat_t) version {
	return version{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// add adds the CA to a store that has changed. With make it also makes a bundle that is
// not there, in place of a link that leads nowhere or out of the folder; content is what
// stood behind the link.
func (v *view) add(name string, own []byte, make bool, content []byte) error {
	dir := int(v.dir.Fd())
	if f, err := inside(dir, name, unix.O_PATH); err == nil {
		var st unix.Stat_t
		err = errors.Join(unix.Fstat(int(f.Fd()), &st), f.Close())
		if err == nil && v.seen[name] == versionOf(&st) {
			return nil
		}
	}
	data, st, ok, err := readStore(dir, name)
	switch {
	case err != nil:
		return err
	case !ok && !make:
		return nil
	case !ok:
		data = content
	}
	with, err := addTo(name, data, own)
	switch {
	case err != nil:
	case ok && bytes.Equal(with, data):
	case ok && bytes.HasPrefix(with, data):
		// In place, so that a program that has the file open for appending goes on writing
		// to the same file.
		err = appendTo(dir, name, with[len(data):])
	default:
		err = replace(dir, name, with, ok, &st)
	}
	if err == nil {
		if _, st, ok, err = readStore(dir, name); !ok || err != nil {
			return err
		}
	}
	// A store that cannot be changed is not looked at again before it changes.
	v.seen[name] = versionOf(&st)
	return err
}

func appendTo(dir int, name string, data []byte) error {
	f, err := inside(dir, name, unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// replace writes a store with the owner and mode of st. A store that does not exist gets
// the owner of its folder and the mode 0644.
func replace(dir int, name string, data []byte, exists bool, st *unix.Stat_t) error {
	folder, err := inside(dir, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer folder.Close()
	if !exists {
		if err := unix.Fstat(int(folder.Fd()), st); err != nil {
			return err
		}
		st.Mode = 0o644
	}
	if err := write(int(folder.Fd()), bytes.NewReader(data), st); err != nil {
		return err
	}
	if exists {
		// If a program has replaced the store in the meantime, the program's file stays.
		var now unix.Stat_t
		err := unix.Fstatat(int(folder.Fd()), path.Base(name), &now, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || versionOf(&now) != versionOf(st) {
			return errors.Join(err, unix.Unlinkat(int(folder.Fd()), temporary, 0))
		}
	}
	return unix.Renameat(int(folder.Fd()), temporary, int(folder.Fd()), path.Base(name))
}

// write writes the file temporary in the folder dir with st's owner and its mode without setuid and setgid.
func write(dir int, from io.Reader, st *unix.Stat_t) error {
	_ = unix.Unlinkat(dir, temporary, 0) // of a guard that was killed
	fd, err := unix.Openat(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create a file in a folder of CAs: %w", err)
	}
	f := os.NewFile(uintptr(fd), temporary)
	_, err = io.Copy(f, from)
	// The mode last: a change of owner clears bits of it. No store needs the bits setuid and
	// setgid, with which a file of the workload would get rights outside the sandbox.
	err = errors.Join(err, unix.Fchown(fd, int(st.Uid), int(st.Gid)), unix.Fchmod(fd, st.Mode&0o1777), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write a file in a folder of CAs: %w", err), unix.Unlinkat(dir, temporary, 0))
	}
	return nil
}

// Snapshot is the state of the stores after Begin. A Keeper compares them with it at the
// end.
type Snapshot struct {
	upper []*os.File
	seen  []map[string]version
}

// Begin adds the CA of own (PEM) to the stores before the container starts. It returns
// the keystores that it cannot be added to as text for people; a bundle that it cannot
// be added to is an error.
func Begin(s *proxyapi.TrustStores, own []byte) (b *Snapshot, left []string, err error) {
	b = &Snapshot{}
	for _, f := range s.Folders {
		v, err := openView(f)
		if err != nil {
			return nil, nil, err
		}
		err = v.begin(own, s.Root, &left)
		if err = errors.Join(err, v.dir.Close()); err != nil {
			return nil, nil, err
		}
		upper, err := os.Open(f.Upper)
		if err != nil {
			return nil, nil, fmt.Errorf("open the overlay's layer: %w", err)
		}
		b.upper, b.seen = append(b.upper, upper), append(b.seen, v.seen)
	}
	for _, name := range s.Files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read the container's CA store: %w", err)
		}
		with, err := Add(data, own)
		if errors.Is(err, ErrNoStore) {
			left = append(left, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if err == nil && !bytes.Equal(with, data) {
			// In place: the container has the file itself mounted.
			err = os.WriteFile(name, with, 0o644)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("write the container's CA store: %w", err)
		}
	}
	return b, left, nil
}

func (v *view) begin(own []byte, root string, left *[]string) error {
	for _, name := range v.Stores {
		content, err := v.behind(root, name)
		if err == nil && path.Base(name) == BrowserPolicy {
			err = v.makeParents(name)
		}
		if err == nil {
			err = v.add(name, own, content != nil || !isKeystore(name), content)
		}
		switch {
		case errors.Is(err, ErrNoStore):
			*left = append(*left, fmt.Sprintf("%s: %v", path.Join(v.Path, name), err))
		case err != nil:
			return fmt.Errorf("add the sandbox's CA to %s: %w", path.Join(v.Path, name), err)
		}
	}
	return nil
}

// behind reads the file that a store of the image leads to, if it is a link: it is
// followed in the image, not in the overlay.
func (v *view) behind(root, name string) ([]byte, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(v.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return throughLink(root, path.Join(v.Path, name))
	}
	return nil, nil
}

// makeParents makes the folders above a store.
func (v *view) makeParents(name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(v.dir.Fd()), &st); err != nil {
		return err
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		above, err := inside(int(v.dir.Fd()), path.Dir(name[:i]), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(int(above.Fd()), path.Base(name[:i]), 0o755)
		if err == nil {
			err = unix.Fchownat(int(above.Fd()), path.Base(name[:i]), int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		if err = errors.Join(err, above.Close()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make a folder in a folder of CAs: %w", err)
		}
	}
	return nil
}

// untouched reports whether the overlay's upper layer has nothing but the stores, in the
// versions of seen.
func (v *view) untouched(upper *os.File, seen map[string]version) bool {
	for name, want := range seen {
		var st unix.Stat_t
		if err := unix.Fstatat(int(v.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || versionOf(&st) != want {
			return false
		}
	}
	return v.onlyStores(upper, ".")
}

func (v *view) onlyStores(folder *os.File, at string) bool {
	list, err := folder.ReadDir(-1)
	if err != nil {
		return false
	}
	for _, e := range list {
		name := path.Join(at, e.Name())
		switch {
		case slices.Contains(v.Stores, name) && e.Type().IsRegular():
			if _, ok := v.seen[name]; !ok {
				return false
			}
		case e.IsDir() && slices.ContainsFunc(v.Stores, func(s string) bool { return pathname.Below(s, name) }):
			sub, err := inside(int(folder.Fd()), e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
			if err != nil {
				return false
			}
			ok := v.onlyStores(sub, name)
			_ = sub.Close()
			if !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func openRoot(root string) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the root filesystem: %w", err)
	}
	return fd, nil
}

// throughLink reads the file that a path of the image leads to; nothing if there is none.
func throughLink(root, name string) ([]byte, error) {
	top, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer unix.Close(top)
	f, err := boundedfile.OpenRegular(top, name, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return nil, nil // it leads nowhere
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxStore+1))
	if err == nil && len(data) > MaxStore {
		err = fmt.Errorf("%s is larger than %d bytes", name, MaxStore)
	}
	return data, err
}
