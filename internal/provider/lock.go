// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	lockDir       = ".locks"
	refreshSuffix = ".refresh"
	refresherLock = ".refresher"
)

// Hold is how a provider is locked.
type Hold int

const (
	// Shared is for who reads a provider and hands it on: it does not change
	// meanwhile.
	Shared Hold = iota
	// Exclusive is for who changes it.
	Exclusive
	// Refreshing is for who makes its values anew, which takes long: it keeps out
	// others who do, and nobody else. A refresh token is good for one of them.
	Refreshing
)

// Lock holds a provider, which need not exist, until release.
func (s *Store) Lock(name string, how Hold) (release func(), err error) {
	if _, err := s.file(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, lockDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of locks: %w", err)
	}
	file, op := filepath.Join(dir, name), unix.LOCK_EX
	switch how {
	case Shared:
		op = unix.LOCK_SH
	case Refreshing:
		file += refreshSuffix
	case Exclusive:
	}
	f, err := flock(file, op)
	if err != nil {
		return nil, fmt.Errorf("lock provider %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

// ErrBusy is about a lock that somebody else holds.
var ErrBusy = errors.New("another one runs")

// LockRefresher makes the caller the store's one refresher, or fails with ErrBusy.
func LockRefresher(dir string) (release func(), err error) {
	f, err := flock(RefresherLock(dir), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("lock the store's refresher: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// RefresherLock is the file that the store's refresher holds.
func RefresherLock(dir string) string { return filepath.Join(dir, refresherLock) }

// AttachedDir is where sandboxes show that they have credentials of the store in dir.
func AttachedDir(dir string) string { return filepath.Join(dir, "attached") }

// Attached is AttachedDir of this store.
func (s *Store) Attached() string { return AttachedDir(s.dir) }

func flock(file string, op int) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), op)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
	}
}
