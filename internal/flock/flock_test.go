// SPDX-License-Identifier: Apache-2.0

package flock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	a, b, c := open(), open(), open()
	for _, f := range []*os.File{a, b} {
		if err := Try(f, Shared); err != nil {
			t.Fatal(err)
		}
	}
	if err := Try(c, Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("beside two shared locks: %v", err)
	}
	const wait = 20 * time.Millisecond
	began := time.Now()
	if err := Within(c, Exclusive, wait); !errors.Is(err, ErrHeld) || time.Since(began) < wait {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	_ = a.Close()
	go func() { _ = b.Close() }()
	if err := Within(c, Exclusive, time.Minute); err != nil {
		t.Error(err)
	}
	d := open()
	locked := make(chan error)
	go func() { locked <- Lock(d, Shared) }()
	_ = c.Close()
	if err := <-locked; err != nil {
		t.Error(err)
	}
	if err := Lock(a, Shared); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("a closed file: %v", err)
	}
}
