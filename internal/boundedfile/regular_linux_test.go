// SPDX-License-Identifier: Apache-2.0

package boundedfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenRegular checks with inotify that a regular file is opened and a file of another
// kind is not.
func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), unix.Mkfifo(fifo, 0o600),
		os.Symlink("/file", filepath.Join(dir, "link")), os.Symlink("/fifo", filepath.Join(dir, "to-fifo")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	for _, name := range []string{file, fifo} {
		if _, err := unix.InotifyAddWatch(events, name, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		resolve uint64
		want    error
		opened  bool
	}{
		{"file", unix.RESOLVE_IN_ROOT, nil, true},
		{"link", unix.RESOLVE_IN_ROOT, nil, true},
		{"link", unix.RESOLVE_NO_SYMLINKS, unix.ELOOP, false},
		{"missing", unix.RESOLVE_IN_ROOT, unix.ENOENT, false},
		{"fifo", unix.RESOLVE_IN_ROOT, ErrNotRegular, false},
		{"to-fifo", unix.RESOLVE_IN_ROOT, ErrNotRegular, false},
		{".", unix.RESOLVE_IN_ROOT, ErrNotRegular, false},
	} {
		f, err := OpenRegular(root, test.name, test.resolve)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, not %v", test.name, err, test.want)
		}
		if f != nil {
			if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
				t.Errorf("%s: %q, %v", test.name, text, err)
			}
			f.Close()
		}
		n, _ := unix.Read(events, make([]byte, 4096))
		if opened := n > 0; opened != test.opened {
			t.Errorf("%s: opened is %v, not %v", test.name, opened, test.opened)
		}
	}
}
