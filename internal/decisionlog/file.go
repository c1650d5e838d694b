// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// FileName is the name of the current file. Older files have the same name with the suffix
// .1, .2 and so on.
const FileName = "decisions.jsonl"

// ProxyFileName is the name of a file in the same folder in which the proxy reports its own
// failures.
const ProxyFileName = "proxy.log"

// files are the files of one log. It opens them relative to the descriptor of their folder,
// because Landlock allows the proxy to write only there.
type files struct {
	root  *os.Root
	max   int64
	count int

	now  *os.File
	size int64
	// torn is true if the last line of the file has no line feed.
	torn bool
}

func openFiles(dir string, max int64, count int) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of decisions: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of decisions: %w", err)
	}
	f := &files{root: root, max: max, count: count}
	if err = f.private("."); err == nil {
		err = f.open()
	}
	if err != nil {
		_ = root.Close() // nothing was written
		return nil, fmt.Errorf("open the log of decisions in %s: %w", dir, err)
	}
	return f, nil
}

// private removes the permissions of all users but the owner.
func (f *files) private(name string) error {
	st, err := f.root.Stat(name)
	if err != nil {
		return err
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return f.root.Chmod(name, mode&^0o077)
	}
	return nil
}

func (f *files) open() error {
	now, err := f.root.OpenFile(FileName, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	st, err := now.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", FileName)
	}
	if err == nil {
		err = f.private(FileName)
	}
	last := []byte{'\n'}
	if err == nil && st.Size() > 0 {
		_, err = now.ReadAt(last, st.Size()-1)
	}
	if err != nil {
		_ = now.Close() // nothing was written
		return err
	}
	f.now, f.size, f.torn = now, st.Size(), last[0] != '\n'
	return nil
}

// write appends whole lines and returns the number of bytes that were written.
func (f *files) write(lines []byte) (int, error) {
	if f.now != nil && f.size > 0 && f.size+int64(len(lines)) > f.max {
		if err := f.rotate(); err != nil {
			return 0, fmt.Errorf("rotate the log of decisions: %w", err)
		}
	}
	if f.now == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.torn {
		if _, err := f.now.WriteString("\n"); err != nil {
			return 0, err
		}
		f.size, f.torn = f.size+1, false
	}
	n, err := f.now.Write(lines)
	f.size += int64(n)
	f.torn = n > 0 && lines[n-1] != '\n'
	return n, err
}

// rotate renames each file to the next number and closes the current one. When there are
// count files, it removes the second oldest instead of the oldest, so that a flood of
// records cannot remove the records of the sandbox's start. If rotate fails, the next call
// continues it; no line is written in between, so that the size stays bounded.
func (f *files) rotate() error {
	last := f.count - 1
	if _, err := f.root.Lstat(name(last)); err == nil && last > 1 {
		last--
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i := last; i > 0; i-- {
		if err := f.root.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := f.now.Close()
	f.now = nil
	return err
}

func (f *files) close() error {
	var err error
	if f.now != nil {
		err = f.now.Close()
	}
	return errors.Join(err, f.root.Close())
}

func name(i int) string {
	if i == 0 {
		return FileName
	}
	return fmt.Sprintf("%s.%d", FileName, i)
}
