// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"openshell.dev/runtime/internal/atomicfile"
	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/policy"
)

const (
	indexFile    = "index.json"
	pendingFile  = "pending"
	indexVersion = 1
)

// kept is one revision in the index.
type kept struct {
	Revision int       `json:"revision"`
	LoadedAt time.Time `json:"loaded_at"`
	Name     string    `json:"name"`
	Size     int       `json:"size"`
}

// index is the file that says which revisions there are, oldest first. A text
// without an entry was never enforced, or is forgotten.
type index struct {
	Version   int    `json:"version"`
	Revisions []kept `json:"revisions"`
	// Refused is newer than all of them: an invalid policy, of which no text is kept
	// and since which everything is denied.
	Refused *kept `json:"refused,omitempty"`
}

// Latest is what a proxy that starts in dir enforces, unless Refused says otherwise:
// the newest revision that was loaded. n is 0 where none was. An index that cannot be read is an error: an
// older policy in its place might allow more.
func Latest(dir string) (n int, text []byte, name string, err error) {
	x, err := readIndex(dir)
	if err != nil || len(x.Revisions) == 0 {
		return 0, nil, "", err
	}
	last := x.Revisions[len(x.Revisions)-1]
	text, err = readRevision(dir, last)
	if err != nil {
		return 0, nil, "", err
	}
	return last.Revision, text, last.Name, nil
}

// Refused is the invalid policy since which everything is denied; n is 0 if the
// latest policy holds.
func Refused(dir string) (n int, name string, err error) {
	x, err := readIndex(dir)
	if err != nil || x.Refused == nil {
		return 0, "", err
	}
	return x.Refused.Revision, x.Refused.Name, nil
}

// First keeps the policy a sandbox was created with as revision 1 of an empty dir,
// which it makes.
func First(dir, name string, text []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create folder of revisions: %w", err)
	}
	x, err := readIndex(dir)
	if err != nil {
		return err
	}
	if len(x.Revisions) > 0 {
		return fmt.Errorf("keep first revision: %s has some already", dir)
	}
	if err := prepare(dir, text); err != nil {
		return err
	}
	return x.add(dir, kept{Revision: 1, LoadedAt: time.Now().UTC(), Name: name, Size: len(text)})
}

// prepare writes text down before it is loaded, so that a full disk refuses a
// policy and never forgets one that is enforced.
func prepare(dir string, text []byte) error {
	if err := atomicfile.Write(filepath.Join(dir, pendingFile), text, 0o600); err != nil {
		return fmt.Errorf("keep policy: %w", err)
	}
	return nil
}

// add makes what prepare wrote revision k and forgets what is too old.
func (x *index) add(dir string, k kept) error {
	if n := x.newest(); k.Revision <= n {
		return fmt.Errorf("keep revision %d: revision %d is newer", k.Revision, n)
	}
	if err := os.Rename(filepath.Join(dir, pendingFile), textFile(dir, k.Revision)); err != nil {
		return fmt.Errorf("keep revision %d: %w", k.Revision, err)
	}
	next := append(slices.Clone(x.Revisions), k)
	bytes := 0
	for _, r := range next {
		bytes += r.Size
	}
	drop := 0
	for len(next)-drop > 1 && (len(next)-drop > MaxRevisions || bytes > MaxKept) {
		bytes -= next[drop].Size
		drop++
	}
	forgotten := next[:drop]
	if err := x.become(dir, index{Version: indexVersion, Revisions: next[drop:]}); err != nil {
		return err
	}
	for _, r := range forgotten {
		// One that stays is found by the next tidy.
		_ = os.Remove(textFile(dir, r.Revision))
	}
	return nil
}

// refuse keeps that everything is denied, as revision k.
func (x *index) refuse(dir string, k kept) error {
	return x.become(dir, index{Version: indexVersion, Revisions: x.Revisions, Refused: &k})
}

// become writes the index that follows, and is it then.
func (x *index) become(dir string, next index) error {
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode index of revisions: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, indexFile), data, 0o600); err != nil {
		return fmt.Errorf("write index of revisions: %w", err)
	}
	*x = next
	return nil
}

// newest is the number of the last revision; 0 without any.
func (x *index) newest() int {
	if x.Refused != nil {
		return x.Refused.Revision
	}
	if last := len(x.Revisions) - 1; last >= 0 {
		return x.Revisions[last].Revision
	}
	return 0
}

// tidy removes texts that the index does not name: what a kill between two writes
// left.
func (x *index) tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read folder of revisions: %w", err)
	}
	for _, e := range entries {
		number, isText := strings.CutSuffix(e.Name(), ".yaml")
		n, err := strconv.Atoi(number)
		named := isText && err == nil && x.find(n) != nil
		if named || e.Name() == indexFile {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("tidy folder of revisions: %w", err)
		}
	}
	return nil
}

func (x *index) find(n int) *kept {
	i := slices.IndexFunc(x.Revisions, func(k kept) bool { return k.Revision == n })
	if i < 0 {
		return nil
	}
	return &x.Revisions[i]
}

func textFile(dir string, n int) string { return filepath.Join(dir, strconv.Itoa(n)+".yaml") }

func readIndex(dir string) (*index, error) {
	file := filepath.Join(dir, indexFile)
	data, err := boundedfile.Read(file, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return &index{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index of revisions: %w", err)
	}
	var x index
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("read index of revisions %s: %w", file, err)
	}
	if x.Version != indexVersion {
		return nil, fmt.Errorf("index of revisions %s has version %d, want %d", file, x.Version, indexVersion)
	}
	for i, k := range x.Revisions {
		if k.Revision < 1 || i > 0 && k.Revision <= x.Revisions[i-1].Revision {
			return nil, fmt.Errorf("index of revisions %s: revision %d is out of order", file, k.Revision)
		}
	}
	if r, last := x.Refused, len(x.Revisions)-1; r != nil && (last < 0 || r.Revision <= x.Revisions[last].Revision) {
		return nil, fmt.Errorf("index of revisions %s: revision %d is out of order", file, r.Revision)
	}
	return &x, nil
}

func readRevision(dir string, k kept) ([]byte, error) {
	text, err := boundedfile.Read(textFile(dir, k.Revision), policy.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", k.Revision, err)
	}
	if len(text) != k.Size {
		return nil, fmt.Errorf("revision %d has %d bytes, the index says %d", k.Revision, len(text), k.Size)
	}
	return text, nil
}
