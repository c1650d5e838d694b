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

// pollEvery is the pause after which a waiting Tail looks for more records.
const pollEvery = 100 * time.Millisecond

// Tail is an io.Reader that reads the files of one log, oldest first, while they are being
// rotated. Pass it to [Read].
type Tail struct {
	ctx  context.Context //nolint:containedctx // an io.Reader has no other way to be told
	dir  string
	idle func() error

	now  *os.File
	last byte
}

// NewTail returns a Tail of the log in dir. If idle is nil, the Tail ends at the end of
// the log. Otherwise it calls idle there and waits for more, until the log's sandbox has
// ended or ctx is done.
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
	for told, ended := false, false; ; {
		n, err := t.some(p)
		if n > 0 || err != nil {
			return n, err
		}
		if t.idle == nil || ended {
			return 0, io.EOF
		}
		if !told {
			if err := t.idle(); err != nil {
				return 0, err
			}
			told = true
		}
		// The last records may have been written since the last read, so they are read
		// first.
		if ended = !Held(t.dir); ended {
			continue
		}
		select {
		case <-t.ctx.Done():
			return 0, io.EOF
		case <-time.After(pollEvery):
		}
	}
}

// some reads from the log. It returns 0 and no error at its end.
func (t *Tail) some(p []byte) (int, error) {
	for len(p) > 0 {
		if n, err := t.file(p); n > 0 || err != nil {
			return n, err
		}
		next, err := t.newer()
		if err != nil || next == nil {
			return 0, err
		}
		// Lines that were written between the end of the read and the rotation come first.
		// If a killed writer left an incomplete last line, a line feed ends it here.
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

// newer opens the next file after the open one, or returns nil if there is none. If no file
// is open, it opens the oldest. If rotations removed the open file, it opens the second
// oldest, because rotation keeps the oldest.
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
