// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"openshell.dev/runtime/internal/flock"
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
	file, op := filepath.Join(dir, name), flock.Exclusive
	switch how {
	case Shared:
		op = flock.Shared
	case Refreshing:
		file += refreshSuffix
	case Exclusive:
	}
	f, err := lockFile(file, op)
	if err != nil {
		return nil, fmt.Errorf("lock provider %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

// ErrBusy is about a lock that somebody else holds.
var ErrBusy = errors.New("another one runs")

// LockRefresher makes the caller the store's one refresher, or fails with ErrBusy.
func LockRefresher(dir string) (release func(), err error) {
	f, err := os.OpenFile(RefresherLock(dir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store's refresher: %w", err)
	}
	if err := flock.Try(f, flock.Exclusive); err != nil {
		_ = f.Close()
		if errors.Is(err, flock.ErrHeld) {
			return nil, ErrBusy
		}
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

// lockFile opens file, which it creates, and locks it.
func lockFile(file string, how flock.Mode) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(f, how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
