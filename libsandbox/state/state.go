// SPDX-License-Identifier: Apache-2.0

// Package state is what the runtime keeps of a sandbox under its root between
// its commands: one folder per sandbox, one versioned file in it.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openshell.dev/runtime/internal/atomicfile"
	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/plan"
)

// StateVersion is the format of State. A reader refuses any other.
const StateVersion = 1

// stateFile is State's name inside a sandbox's directory.
const stateFile = "sandbox.json"

// State is what the runtime remembers of a sandbox between its commands. It is
// a struct of its own, so that no change inside it changes the file by accident.
type State struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Policy is where the policy came from.
	Policy string `json:"policy"`
	// Plan is what was applied, and what every exec gets again.
	Plan *plan.Plan `json:"plan"`
	// Sockets are live sockets of the host that lay in mounted folders when the sandbox
	// was made: mounts[N]: PATH. An engine's or an agent's is among them only if the
	// operator accepts it.
	Sockets []string `json:"sockets,omitempty"`
	// Trust are the container's certificate stores.
	Trust proxyapi.TrustStores `json:"trust,omitzero"`
}

// Dir is the sandbox's own directory under the runtime's root. No container has
// the name of a folder with an at sign: see [ValidID].
func Dir(root, id string) string { return filepath.Join(root, "@sandbox", id) }

// idCharacters are what a container ID is made of, as in runc.
const idCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."

// ValidID reports whether runc takes id for a container. A valid ID is the name of a file
// in one folder, and no name of the runtime's own: in folders that containers share those
// begin with an at sign.
func ValidID(id string) bool {
	return strings.Trim(id, idCharacters) == "" && id != "" && id != "." && id != ".."
}

// MakeDir creates the sandbox's directory, which must not exist.
func MakeDir(root, id string) (string, error) {
	if !ValidID(id) {
		return "", fmt.Errorf("invalid container ID format: %q", id)
	}
	dir := Dir(root, id)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("create sandbox state: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("container with given ID already exists: its sandbox state is %s; if nothing runs in it, delete it with: openshell-runtime delete --force %s", dir, id)
		}
		return "", fmt.Errorf("create sandbox state: %w", err)
	}
	return dir, nil
}

// Save writes s into the sandbox's directory.
func (s *State) Save(dir string) error {
	s.Version = StateVersion
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode sandbox state: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, stateFile), data, 0o600); err != nil {
		return fmt.Errorf("write sandbox state: %w", err)
	}
	return nil
}

// Edit changes the state of the sandbox of container id; of two who do at once, the
// second sees what the first has written.
func Edit(root, id string, edit func(*State)) error {
	dir, err := os.Open(Dir(root, id))
	if err != nil {
		return fmt.Errorf("open sandbox state of %s: %w", id, err)
	}
	defer dir.Close()
	if err := flock.Lock(dir, flock.Exclusive); err != nil {
		return fmt.Errorf("lock sandbox state of %s: %w", id, err)
	}
	s, err := LoadState(root, id)
	if err != nil {
		return err
	}
	edit(s)
	return s.Save(dir.Name())
}

// LoadState reads the state of the sandbox of container id. The error wraps
// fs.ErrNotExist when the container has none: the operator asked for plain runc.
func LoadState(root, id string) (*State, error) {
	data, err := os.ReadFile(filepath.Join(Dir(root, id), stateFile))
	if err != nil {
		return nil, fmt.Errorf("read sandbox state of %s: %w", id, err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read sandbox state of %s: %w", id, err)
	}
	if s.Version != StateVersion {
		return nil, fmt.Errorf("sandbox state of %s has version %d, this runtime reads %d", id, s.Version, StateVersion)
	}
	return &s, nil
}
