// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// TestBypass_B51_SparseFile: a write-back writes no more than maxWritten bytes and takes no
// longer than syncTimeout, and the container's other files are in the layer.
func TestBypass_B51_SparseFile(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	put2(t, container, "control", "control")
	for name, size := range map[string]int64{"big.crt": 1 << 40, "one": maxWritten / 2, "two": maxWritten / 2, "three": maxWritten / 2} {
		put2(t, container, name, "")
		if err := os.Truncate(filepath.Join(container, name), size); err != nil {
			t.Fatal(err)
		}
	}
	put2(t, layer, "big.crt", "kept")
	err := v.sync(root, nil, newBudget())
	if err == nil || !strings.Contains(err.Error(), "big.crt: not written") {
		t.Errorf("sync returned %v, want a report of big.crt", err)
	}
	if text(t, layer, "big.crt") != "kept" {
		t.Error("a file that is too large replaced the layer's")
	}
	// Half of the budget goes to each of two files, less the control's bytes if it came first.
	var written int64
	entries, _ := os.ReadDir(layer)
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		written += st.Size()
	}
	if written < maxWritten/2 || written > maxWritten+int64(len("kept")) {
		t.Errorf("the layer has %d bytes, want at most %d", written, maxWritten)
	}
}

// TestTrustSyncDeadline: a write-back stops at its deadline, within a file and between two,
// and reports it. A stopped write-back removes nothing and leaves no temporary file.
func TestTrustSyncDeadline(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	put2(t, container, "new", "new")
	put2(t, layer, "kept", "kept")
	past := &budget{left: maxWritten, until: time.Now().Add(-time.Second)}
	if err := v.sync(root, nil, past); !errors.Is(err, errLate) {
		t.Errorf("sync returned %v, want %v", err, errLate)
	}
	if err := put(int(v.dir.Fd()), "x", timedReader{bytes.NewReader([]byte("x")), past}, &unix.Stat_t{}); !errors.Is(err, errLate) {
		t.Errorf("put returned %v, want %v", err, errLate)
	}
	if names, _ := os.ReadDir(layer); len(names) != 1 || text(t, layer, "kept") != "kept" {
		t.Errorf("the layer has %v", names)
	}
	if names, _ := os.ReadDir(container); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if err := v.sync(root, nil, newBudget()); err != nil || text(t, layer, "new") != "new" {
		t.Errorf("control: %v", err)
	}
}

// TestTrustSyncReports: the failures of a write-back are bounded.
func TestTrustSyncReports(t *testing.T) {
	m := &mirror{}
	for range 10 * maxReports {
		m.failed("x", io.EOF)
	}
	if len(m.errs) != maxReports || m.more != 9*maxReports {
		t.Errorf("%d failures are kept and %d counted", len(m.errs), m.more)
	}
}

// TestBypass_B51_SetuidFile: the layer gets no setuid or setgid file from the workload, and
// a file that the image has with these bits stays as it is.
func TestBypass_B51_SetuidFile(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	at := time.Unix(1, 0)
	for _, d := range []string{container, layer} {
		put2(t, d, "image", "image")
		if err := errors.Join(os.Chtimes(filepath.Join(d, "image"), at, at), os.Chmod(filepath.Join(d, "image"), 0o755|os.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
	}
	put2(t, container, "new", "new")
	if err := os.Chmod(filepath.Join(container, "new"), 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	var inode uint64
	for range 2 {
		if err := v.sync(root, nil, newBudget()); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{"new": 0o755, "image": 0o755 | os.ModeSetuid} {
			if st, err := os.Stat(filepath.Join(layer, name)); err != nil || st.Mode() != want {
				t.Errorf("%s has the mode %v, want %v (%v)", name, st.Mode(), want, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(layer, "new"), &st); err != nil || inode != 0 && inode != st.Ino {
			t.Errorf("an unchanged file was written again: %v", err)
		}
		inode = st.Ino
	}
}

// TestBypass_B51_SwappedFile: a file that takes the place of another one during a
// write-back brings its own owner and mode, and a pipe that does holds nothing up.
func TestBypass_B51_SwappedFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
	v, _, container, layer := twoFolders(t)
	to, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	m := &mirror{budget: newBudget()}
	// The name is what the workload has put there after the look at it.
	put2(t, container, "x", "theirs")
	if err := errors.Join(os.Chown(filepath.Join(container, "x"), 1000, 1001), os.Chmod(filepath.Join(container, "x"), 0o640)); err != nil {
		t.Fatal(err)
	}
	if err := m.file(int(v.dir.Fd()), int(to.Fd()), "x"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(layer, "x"), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 || st.Mode&0o7777 != 0o640 {
		t.Errorf("owner %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(container, "x")), unix.Mkfifo(filepath.Join(container, "x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	// With a writer, a read of the pipe would wait.
	w, err := os.OpenFile(filepath.Join(container, "x"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	done := make(chan error, 1)
	go func() { done <- m.file(int(v.dir.Fd()), int(to.Fd()), "x") }()
	select {
	case err := <-done:
		if err != nil || text(t, layer, "x") != "theirs" {
			t.Errorf("the layer has %q, %v", text(t, layer, "x"), err)
		}
	case <-time.After(2 * time.Second):
		t.Error("a pipe holds the write-back up")
	}
}

// TestBypass_B51_TwoWriteBacks: a pause and the container's end that write at the same time
// both leave the container's content in the layer, and what a killed one has left is removed.
func TestBypass_B51_TwoWriteBacks(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	const files = 100
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("%04d", i), 5000) }
	for i := range files {
		put2(t, container, fmt.Sprint(i), content(i))
	}
	put2(t, layer, temporary, "of a process that was killed")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := v.sync(root, nil, newBudget()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range files {
		if got := text(t, layer, fmt.Sprint(i)); got != content(i) {
			t.Errorf("file %d has %d bytes: %.40q", i, len(got), got)
		}
	}
	if names, _ := os.ReadDir(layer); len(names) != files {
		t.Errorf("the layer has %d files, want %d", len(names), files)
	}
}

// TestTrustSyncLocked: a write-back waits for another one no longer than its time, and
// writes nothing meanwhile.
func TestTrustSyncLocked(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	put2(t, container, "new", "new")
	dir, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := v.sync(root, nil, &budget{left: maxWritten, until: time.Now().Add(20 * time.Millisecond)}); !errors.Is(err, errLate) {
		t.Errorf("sync returned %v, want %v", err, errLate)
	}
	if names, _ := os.ReadDir(layer); len(names) > 0 {
		t.Errorf("the layer has %v", names)
	}
	if err := errors.Join(dir.Close(), v.sync(root, nil, newBudget())); err != nil || text(t, layer, "new") != "new" {
		t.Errorf("control: %v", err)
	}
}

// TestBypass_B51_MovedFolder: a folder that has taken the name of the one that the overlay
// covers is not written into, emptied or removed, and neither is one that was never found.
func TestBypass_B51_MovedFolder(t *testing.T) {
	v, root, container, layer := twoFolders(t)
	put2(t, container, "new", "new")
	if err := v.sync(root, nil, newBudget()); err != nil || text(t, layer, "new") != "new" {
		t.Fatalf("control: %v", err)
	}
	if err := os.Rename(filepath.Join(root, "etc"), filepath.Join(root, "etc.old")); err != nil {
		t.Fatal(err)
	}
	put2(t, layer, "precious", "precious")
	put2(t, container, "more", "more")
	if err := v.sync(root, nil, newBudget()); err == nil || !strings.Contains(err.Error(), "not the folder") {
		t.Errorf("sync returned %v, want a report", err)
	}
	if names, _ := os.ReadDir(layer); len(names) != 1 || text(t, layer, "precious") != "precious" {
		t.Errorf("the other folder has %v", names)
	}
	if err := os.Remove(filepath.Join(layer, "precious")); err != nil {
		t.Fatal(err)
	}
	v.Made = "/etc"
	if err := v.unmake(root); err == nil {
		t.Error("unmake reports nothing")
	}
	if _, err := os.Stat(layer); err != nil {
		t.Errorf("the other folder was removed: %v", err)
	}
	v.Layer = proxyapi.Inode{}
	if err := v.sync(root, nil, newBudget()); err == nil {
		t.Error("a folder without Layer was written")
	}
}
