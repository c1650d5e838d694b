// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/zalando/go-keyring"

	"openshell.dev/runtime/internal/atomicfile"
	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/secret"
)

const (
	keyFile = ".key"
	// keyringFile says that the key is in the keyring of the session instead.
	keyringFile = ".keyring"
	// keyringService is the key's name there; the store's folder is the user.
	keyringService = "openshell"
	// maxKey bounds the key's file, in bytes.
	maxKey = 1 << 10
)

// openKey reads the key of the store in dir, or makes one in a file.
func openKey(dir string) (*age.X25519Identity, error) {
	file := filepath.Join(dir, keyFile)
	text, err := boundedfile.Read(file, maxKey)
	if err == nil {
		return parseKey(text, file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the store's key: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, keyringFile)); err == nil {
		text, err := keyring.Get(keyringService, dir)
		if err != nil {
			return nil, fmt.Errorf("read the store's key: it is in the keyring of this session's owner, which gives none: %w; openshell provider key file, in that session, moves it into a file", err)
		}
		return parseKey([]byte(text), "in the keyring")
	}
	// Two that open a new store at once make one key.
	lock, err := lockFile(filepath.Join(dir, ".key.lock"), flock.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("lock the store's key: %w", err)
	}
	defer lock.Close()
	if text, err := boundedfile.Read(file, maxKey); err == nil {
		return parseKey(text, file)
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make the store's key: %w", err)
	}
	return key, writeKey(file, secret.New(key.String()))
}

func parseKey(text []byte, where string) (*age.X25519Identity, error) {
	key, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read the store's key %s: it is not one", where) // nothing of it is shown
	}
	return key, nil
}

// identity returns the store's key. The store keeps its text, because the fields of an
// identity would be printed with the store's.
func (s *Store) identity() (*age.X25519Identity, error) {
	return parseKey([]byte(s.key.Reveal()), "of "+s.dir)
}

func writeKey(file string, key secret.Secret) error {
	if err := atomicfile.Write(file, []byte(key.Reveal()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the store's key: %w", err)
	}
	return nil
}

// KeyPlace says where the store's key is: in a file or in a keyring.
func (s *Store) KeyPlace() string {
	if _, err := os.Lstat(filepath.Join(s.dir, keyFile)); err == nil {
		return filepath.Join(s.dir, keyFile)
	}
	return "the session's keyring"
}

// KeyToKeyring moves the key into the keyring of this session. Who has no such
// session, as Docker has none, can then not create sandboxes with the providers.
func (s *Store) KeyToKeyring() error {
	if err := keyring.Set(keyringService, s.dir, s.key.Reveal()); err != nil {
		return fmt.Errorf("move the store's key: this session's keyring does not take it: %w", err)
	}
	// Not forgotten before it was seen there.
	if text, err := keyring.Get(keyringService, s.dir); err != nil || text != s.key.Reveal() {
		return errors.New("move the store's key: the keyring does not give it back; it stays in its file")
	}
	if err := atomicfile.Write(filepath.Join(s.dir, keyringFile), nil, 0o600); err != nil {
		return fmt.Errorf("move the store's key: %w", err)
	}
	if err := os.Remove(filepath.Join(s.dir, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move the store's key: %w", err)
	}
	return nil
}

// KeyToFile moves the key back into a file.
func (s *Store) KeyToFile() error {
	if err := writeKey(filepath.Join(s.dir, keyFile), s.key); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.dir, keyringFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move the store's key: %w", err)
	}
	if err := keyring.Delete(keyringService, s.dir); err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return fmt.Errorf("the store's key is in a file again, but the keyring keeps it, too: %w", err)
	}
	return nil
}
