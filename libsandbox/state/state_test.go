// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/plan"
)

// full returns a state with a value in every field.
func full() *State {
	user := uint32(1000)
	return &State{
		ID: "box", Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Policy: "/etc/openshell/policies/strict.yaml",
		Plan: &plan.Plan{
			Ruleset: landlock.New(7, []landlock.Rule{{Path: "/usr", Access: landlock.ReadOnly, Dev: 1, Ino: 2}}, 0),
			User:    &user, Placeholders: []string{"KEY=placeholder"}, Env: []string{"A=b"},
			Mounts: []specs.Mount{{Destination: "/etc/ssl", Type: "bind", Source: "/x", Options: []string{"bind"}}},
		},
		Sockets: []string{"mounts[1]: /srv/sock"}, Trust: proxyapi.TrustStores{Root: "/rootfs"},
	}
}

func TestSaveAndLoad(t *testing.T) {
	root := t.TempDir()
	dir, err := MakeDir(root, "box")
	if err != nil {
		t.Fatal(err)
	}
	if dir != Dir(root, "box") || dir != filepath.Join(root, "@sandbox/box") {
		t.Errorf("folder %s", dir)
	}
	s := full()
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(root, "box")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, got); d != "" || got.Version != StateVersion {
		t.Errorf("version %d; %s", got.Version, d)
	}
	for path, want := range map[string]fs.FileMode{filepath.Dir(dir): 0o700, dir: 0o700, filepath.Join(dir, stateFile): 0o600} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has the mode %s, want %s", path, st.Mode().Perm(), want)
		}
	}
}

// TestFormat: a runtime of the same StateVersion reads the file, so its keys stay.
func TestFormat(t *testing.T) {
	dir, err := MakeDir(t.TempDir(), "box")
	if err != nil {
		t.Fatal(err)
	}
	if err := full().Save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"version": "1", "id": `"box"`, "created": `"2026-01-02T03:04:05.000000006Z"`, "policy": `"/etc/openshell/policies/strict.yaml"`,
		"sockets": `["mounts[1]: /srv/sock"]`,
	} {
		if string(got[key]) != want {
			t.Errorf("%s is %s, want %s", key, got[key], want)
		}
	}
	for _, key := range []string{"plan", "trust"} {
		if got[key] == nil {
			t.Errorf("no %s in %s", key, text)
		}
	}
}

// TestMakeDirOnce: of several creates with one ID, one gets the folder.
func TestMakeDirOnce(t *testing.T) {
	root := t.TempDir()
	const creates = 8
	results := make([]error, creates)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { _, results[i] = MakeDir(root, "box") })
	}
	wg.Wait()
	made := 0
	for _, err := range results {
		switch {
		case err == nil:
			made++
		case !strings.HasPrefix(err.Error(), "container with given ID already exists: its sandbox state is "+Dir(root, "box")):
			t.Error(err) // engines match the beginning
		}
	}
	if made != 1 {
		t.Errorf("%d creates made the folder", made)
	}
}

// TestBypass_B94_InvalidID: an ID cannot name a folder outside of the state's, or a folder of
// the runtime.
func TestBypass_B94_InvalidID(t *testing.T) {
	for id, want := range map[string]bool{
		"box": true, "a.b_c+d-E9": true, "...": true,
		"": false, ".": false, "..": false, "a/b": false, "../a": false, "@sandbox": false, "a\x00": false, "ä": false, "a b": false,
	} {
		if got := ValidID(id); got != want {
			t.Errorf("%q: %t", id, got)
		}
		if want {
			continue
		}
		root := t.TempDir()
		if _, err := MakeDir(root, id); err == nil || err.Error() != fmt.Sprintf("invalid container ID format: %q", id) {
			t.Errorf("%q: %v", id, err)
		}
		if made, err := os.ReadDir(root); err != nil || len(made) > 0 {
			t.Errorf("%q made %v, %v", id, made, err)
		}
	}
}

func TestLoadStateErrors(t *testing.T) {
	root := t.TempDir()
	if _, err := LoadState(root, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"other version": {`{"version":2,"id":"box"}`, "sandbox state of box has version 2, this runtime reads 1"},
		"no version":    {`{"id":"box"}`, "sandbox state of box has version 0, this runtime reads 1"},
		"cut off":       {`{"version":1,`, "read sandbox state of box: "},
		"empty":         {"", "read sandbox state of box: "},
	} {
		root := t.TempDir()
		dir, err := MakeDir(root, "box")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadState(root, "box"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: before Save: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadState(root, "box"); err == nil || !strings.HasPrefix(err.Error(), tc.want) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// TestEditAtOnce: concurrent edits are serialized, so none of them is lost.
func TestEditAtOnce(t *testing.T) {
	root := t.TempDir()
	dir, err := MakeDir(root, "box")
	if err != nil {
		t.Fatal(err)
	}
	if err := full().Save(dir); err != nil {
		t.Fatal(err)
	}
	const edits = 20
	errs := make([]error, edits)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = Edit(root, "box", func(s *State) { s.Sockets = append(s.Sockets, fmt.Sprint(i)) })
		})
	}
	wg.Wait()
	s, err := LoadState(root, "box")
	if err = errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	if len(s.Sockets) != 1+edits {
		t.Errorf("%d sockets after %d edits of one: %q", len(s.Sockets), edits, s.Sockets)
	}
	if err := Edit(root, "none", func(*State) { t.Error("edited") }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no sandbox: %v", err)
	}
}
