// SPDX-License-Identifier: Apache-2.0

// Package state keeps what the runtime remembers of a sandbox between its commands: one
// folder for each sandbox below the runtime's root, and one versioned file in it, sandbox.json.
//
// [MakeDir] makes the folder, which also reserves the container's ID. [State.Save] writes
// the file when the sandbox runs, and [LoadState] reads it for every exec. The proxy keeps
// its own files in the same folder (package proxyapi has their names). Removing the folder
// is the caller's work.
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

// StateVersion is the version of State's format. LoadState returns an error for any other.
const StateVersion = 1

// stateFile is the name of State's file in a sandbox's folder.
const stateFile = "sandbox.json"

// State has the facts of a sandbox that later commands of the runtime need.
type State struct {
	// Version is StateVersion. Save sets it.
	Version int `json:"version"`
	// ID is the ID of the container.
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Policy is the name of the policy's source: a path, or "built-in default".
	Policy string `json:"policy"`
	// Plan was applied to the first process, and is applied to every exec.
	Plan *plan.Plan `json:"plan"`
	// Sockets are the live sockets of the host that were in mounted folders when the
	// sandbox was made, as mounts[N]: PATH. A socket of an engine or an agent is among them
	// only if the operator accepts it.
	Sockets []string `json:"sockets,omitempty"`
	// Trust are the container's certificate stores.
	Trust proxyapi.TrustStores `json:"trust,omitzero"`
}

// Dir returns the sandbox's folder, below the runtime's root. libcontainer keeps a folder for
// each container in the same root; none of them is named @sandbox, see [ValidID].
func Dir(root, id string) string { return filepath.Join(root, "@sandbox", id) }

// idCharacters are the characters of a container ID, as in runc.
const idCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."

// ValidID reports whether runc accepts id for a container. A valid ID is the name of a file
// in one folder. It has no at sign, with which names of the runtime's own begin in folders
// that have one entry for each container.
func ValidID(id string) bool {
	return strings.Trim(id, idCharacters) == "" && id != "" && id != "." && id != ".."
}

// MakeDir makes the sandbox's folder and returns its path. A folder that exists is an error:
// of two creates with the same ID at the same time, one fails.
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

// Save writes s into the sandbox's folder. A reader sees the old file or the new one, never
// a part.
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

// Edit changes the state of the sandbox of container id. It holds a lock, so concurrent
// edits are serialized.
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

// LoadState reads the state of the sandbox of container id. The error wraps fs.ErrNotExist
// if there is none: the container is plain runc's (`policy: none`).
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
