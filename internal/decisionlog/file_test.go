// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	f, err := openFiles(dir, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, s := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		if n, err := f.write([]byte(strings.Repeat(s, 49) + "\n")); n != 50 || err != nil {
			t.Fatal(n, err)
		}
	}
	for name, want := range map[string]string{FileName: "78", FileName + ".1": "56", FileName + ".2": "12", FileName + ".3": ""} {
		got := read(t, dir, name)
		if len(want) > 0 && (len(got) != 100 || got[0] != want[0] || got[50] != want[1]) || want == "" && got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	// A single write may be longer than a file; it is not cut.
	if _, err := f.write([]byte(strings.Repeat("9", 299) + "\n")); err != nil || len(read(t, dir, FileName)) != 300 {
		t.Error("a long write", err)
	}
}

func TestRotationLosesNothing(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, "box", Options{MaxBytes: 200_000, MaxFiles: 4})
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	for range n {
		l.Record(Record{Verdict: "allow", Path: "/" + strings.Repeat("a", 100)})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var text string
	for i := 3; i >= 0; i-- {
		text += read(t, dir, name(i))
	}
	all := logged(t, []byte(text))
	if dropped := complete(t, all); len(all)+int(dropped) < n || read(t, dir, name(1)) == "" {
		t.Errorf("%d records, %d dropped of %d", len(all), dropped, n)
	}
}

func TestRotationThatFails(t *testing.T) {
	dir := t.TempDir()
	f, err := openFiles(dir, 100, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	full := []byte(strings.Repeat("1", 99) + "\n")
	if _, err := f.write(full); err != nil {
		t.Fatal(err)
	}
	// The rename fails because its target is a folder that is not empty.
	way := filepath.Join(dir, FileName+".1")
	if err := os.MkdirAll(filepath.Join(way, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if n, err := f.write(full); n != 0 || err == nil {
			t.Fatalf("%d bytes written over the limit, %v", n, err)
		}
	}
	if err := os.RemoveAll(way); err != nil {
		t.Fatal(err)
	}
	if _, err := f.write(full); err != nil || read(t, dir, FileName) != string(full) || read(t, dir, FileName+".1") != string(full) {
		t.Errorf("does not go on: %v", err)
	}
}

func TestTornLineIsEnded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(`{"seq":1}`+"\n"+`{"se`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(Record{Verdict: "deny"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(read(t, dir, FileName), "\n"); len(lines) != 4 || lines[1] != `{"se` || !strings.Contains(lines[2], "deny") {
		t.Errorf("%q", lines)
	}
}

func TestTornWriteIsEnded(t *testing.T) {
	f, err := openFiles(t.TempDir(), 1<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	whole := f.now
	if f.now, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Skip("no /dev/full:", err)
	}
	if n, err := f.write([]byte("a\n")); n != 0 || err == nil || f.torn {
		t.Errorf("%d, %v", n, err)
	}
	_ = f.now.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	f.now, f.size = w, 0
	if n, err := f.write(bytes.Repeat([]byte("a"), 1<<20)); n == 0 || err == nil || !f.torn || f.size != int64(n) {
		t.Errorf("%d, %v, size %d", n, err, f.size)
	}
	f.now, f.size = whole, 0
	if n, err := f.write([]byte("a\n")); n != 2 || err != nil || f.size != 3 || f.torn {
		t.Errorf("%d, %v, size %d", n, err, f.size)
	}
}

func TestOnlyTheOwnerReads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, FileName): 0o600} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder, outside := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	fifo := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(fifo, FileName), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(outside, FileName)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir string
		o   Options
	}{
		"a file": {file, Options{}}, "a folder as the file": {folder, Options{}}, "a FIFO": {fifo, Options{}}, "a link out of the folder": {outside, Options{}}, "one file": {t.TempDir(), Options{MaxFiles: 1}}, "negative": {t.TempDir(), Options{MaxBytes: -1}},
	} {
		if l, err := Open(c.dir, "box", c.o); err == nil {
			l.Close()
			t.Errorf("%s is taken", name)
		}
	}
	if b, _ := os.ReadFile(file); !bytes.Equal(b, nil) {
		t.Error("written through a link")
	}
}
