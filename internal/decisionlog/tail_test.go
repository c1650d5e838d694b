// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTailReadsOldestFirst(t *testing.T) {
	dir := t.TempDir()
	// A kill cut off the oldest file.
	for name, text := range map[string]string{FileName: "e\n", FileName + ".1": "c\nd\n", FileName + ".3": "a\nb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tail := NewTail(t.Context(), dir, nil)
	b, err := io.ReadAll(tail)
	if err != nil || string(b) != "a\nb\nc\nd\ne\n" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := tail.Close(); err != nil {
		t.Error(err)
	}
}

func TestTailOfAnEmptyFolder(t *testing.T) {
	if b, err := io.ReadAll(NewTail(t.Context(), t.TempDir(), nil)); err != nil || len(b) > 0 {
		t.Errorf("read %q, %v", b, err)
	}
}

// A Tail that waits reads every record across rotations, in order, and ends when ctx is
// done.
func TestTailFollowsRotations(t *testing.T) {
	dir := t.TempDir()
	hold(t, dir)
	f, err := openFiles(dir, 200, MaxFiles)
	if err != nil {
		t.Fatal(err)
	}
	line := func(seq uint64) []byte {
		b, err := AppendLine(nil, &Record{Seq: seq})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const last = 12
	next := uint64(1)
	// Whenever everything is read, two more records are written, which causes at most one
	// rotation.
	tail := NewTail(ctx, dir, func() error {
		for range 2 {
			if next > last {
				cancel()
				return nil
			}
			if _, err := f.write(line(next)); err != nil {
				return err
			}
			next++
		}
		return nil
	})
	var got []uint64
	for r, err := range Read(tail) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Seq)
	}
	want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, FileName+".2")); err != nil {
		t.Errorf("nothing was rotated twice: %v", err)
	}
	if err := errors.Join(tail.Close(), f.close()); err != nil {
		t.Error(err)
	}
}

// hold marks a log as that of a running sandbox until the test ends.
func hold(t *testing.T, dir string) *Holder {
	t.Helper()
	h, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// TestTailEndsWithTheSandbox checks that a Tail that follows a log reads the last records
// and ends when the sandbox does, and that it ends at once if the sandbox has already
// ended.
func TestTailEndsWithTheSandbox(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, FileName)
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := hold(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	idles := 0
	tail := NewTail(ctx, dir, func() error {
		if idles++; idles > 1 {
			return nil
		}
		// The sandbox writes its last record and ends.
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("last\n")
		return errors.Join(err, f.Close(), h.Close())
	})
	for _, want := range []string{"first\nlast\n", ""} {
		b, err := io.ReadAll(tail)
		if err != nil || string(b) != want || ctx.Err() != nil {
			t.Errorf("read %q, %v, %v", b, err, ctx.Err())
		}
	}
	if err := tail.Close(); err != nil {
		t.Error(err)
	}
	again := NewTail(ctx, dir, func() error { return nil })
	if b, err := io.ReadAll(again); err != nil || string(b) != "first\nlast\n" {
		t.Errorf("of an ended sandbox: read %q, %v", b, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// The two halves of a line that is being written are read as one.
func TestTailWaitsForTheLinesEnd(t *testing.T) {
	dir := t.TempDir()
	hold(t, dir)
	file := filepath.Join(dir, FileName)
	if err := os.WriteFile(file, []byte("one\ntw"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idles := 0
	tail := NewTail(ctx, dir, func() error {
		if idles++; idles == 2 {
			cancel()
			return nil
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, strings.NewReader("o\n"))
		return errors.Join(err, f.Close())
	})
	var b bytes.Buffer
	if _, err := io.Copy(&b, tail); err != nil || b.String() != "one\ntwo\n" {
		t.Errorf("read %q, %v", b.String(), err)
	}
	if err := tail.Close(); err != nil {
		t.Error(err)
	}
}
