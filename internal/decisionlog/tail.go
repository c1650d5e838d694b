// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// pollEvery is how often a Tail that waits looks for more.
const pollEvery = 100 * time.Millisecond

// Tail is an io.Reader, for Read, over all the files of one folder, oldest first,
// across rotations.
type Tail struct {
	ctx  context.Context //nolint:containedctx // an io.Reader has no other way to be told
	dir  string
	idle func() error

	now  *os.File
	last byte
}

// NewTail reads what is in dir. Without idle it then ends; with it, idle is called
// at the end of what there is and the Tail waits for more, until ctx is done.
func NewTail(ctx context.Context, dir string, idle func() error) *Tail {
	return &Tail{ctx: ctx, dir: dir, idle: idle, last: '\n'}
}

// Close closes the file that is open.
func (t *Tail) Close() error {
	if t.now == nil {
		return nil
	}
	return t.now.Close()
}

func (t *Tail) Read(p []byte) (int, error) {
	for told := false; ; {
		n, err := t.some(p)
		if n > 0 || err != nil {
			return n, err
		}
		if t.idle == nil {
			return 0, io.EOF
		}
		if !told {
			if err := t.idle(); err != nil {
				return 0, err
			}
			told = true
		}
		select {
		case <-t.ctx.Done():
			return 0, io.EOF
		case <-time.After(pollEvery):
		}
	}
}

// some reads what there is; nothing and no error where that is nothing.
func (t *Tail) some(p []byte) (int, error) {
	for len(p) > 0 {
		if n, err := t.file(p); n > 0 || err != nil {
			return n, err
		}
		next, err := t.newer()
		if err != nil || next == nil {
			return 0, err
		}
		// What came between the end and the rotation is read first, and a file that
		// a kill left without its last line's end gets one.
		if n, err := t.file(p); n > 0 || err != nil {
			return n, errors.Join(err, next.Close())
		}
		if t.now != nil {
			if err := t.now.Close(); err != nil {
				return 0, errors.Join(err, next.Close())
			}
		}
		t.now = next
		if t.last != '\n' {
			t.last, p[0] = '\n', '\n'
			return 1, nil
		}
	}
	return 0, nil
}

func (t *Tail) file(p []byte) (int, error) {
	if t.now == nil {
		return 0, nil
	}
	n, err := t.now.Read(p)
	if n > 0 {
		t.last = p[n-1]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// newer is the file after the one that is open, the oldest if none is, and the oldest
// but the one that is kept if the open one is rotated away; nil if there is none.
func (t *Tail) newer() (*os.File, error) {
	from := MaxFiles - 1
	if t.now != nil {
		from--
		own, err := t.now.Stat()
		if err != nil {
			return nil, err
		}
		for i := range MaxFiles {
			if st, err := os.Stat(filepath.Join(t.dir, name(i))); err == nil && os.SameFile(st, own) {
				from = i - 1
				break
			}
		}
	}
	for i := from; i >= 0; i-- {
		f, err := os.Open(filepath.Join(t.dir, name(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the log of decisions: %w", err)
		}
		return f, nil
	}
	return nil, nil
}
