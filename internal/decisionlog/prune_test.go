// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// endedLog writes a log of the given size, whose sandbox ended the given time ago.
func endedLog(t *testing.T, top, id string, size int, ago time.Duration) {
	t.Helper()
	dir := filepath.Join(top, id)
	file := filepath.Join(dir, FileName)
	at := time.Now().Add(-ago)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, make([]byte, size), 0o600), os.Chtimes(file, at, at), os.Chtimes(dir, at, at)); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, top string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		limits Limits
		want   string // is left
	}{
		"no bound":          {Limits{}, "hour month running week"},
		"by age":            {Limits{MaxAge: 10 * day}, "hour running week"},
		"by size":           {Limits{MaxBytes: 350}, "hour running week"},
		"by size, exactly":  {Limits{MaxBytes: 400}, "hour month running week"},
		"by size, to one":   {Limits{MaxBytes: 200}, "hour running"},
		"all that can be":   {Limits{MaxBytes: 1}, "running"},
		"by age, all":       {Limits{MaxAge: 1}, "running"},
		"by both":           {Limits{MaxAge: 10 * day, MaxBytes: 250}, "hour running"},
		"age is never late": {Limits{MaxAge: 1000 * day}, "hour month running week"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			endedLog(t, top, "month", 100, 30*day)
			endedLog(t, top, "week", 100, 7*day)
			endedLog(t, top, "hour", 100, time.Hour)
			at := time.Now().Add(-7 * day)
			for _, name := range []string{FileName + ".1", ProxyFileName} {
				file := filepath.Join(top, "week", name)
				if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, at, at), os.Chtimes(filepath.Dir(file), at, at)); err != nil {
					t.Fatal(err)
				}
			}
			// The oldest log belongs to a running sandbox.
			h, err := Hold(filepath.Join(top, "running"))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			endedLog(t, top, "running", 100, 90*day)
			removed, err := Prune(top, tc.limits)
			if err != nil {
				t.Fatal(err)
			}
			if left := names(t, top); strings.Join(left, " ") != tc.want || len(removed)+len(left) != 4 {
				t.Errorf("left %q, removed %+v; want %s", left, removed, tc.want)
			}
		})
	}
}

// TestPruneLeavesTheRest checks that Prune keeps folders and files that are not logs, of
// any age, and a log folder that contains another file.
func TestPruneLeavesTheRest(t *testing.T) {
	top := t.TempDir()
	outside := t.TempDir()
	endedLog(t, outside, "log", 10, time.Hour)
	for _, id := range []string{"mixed", "@box", "folder", "link"} {
		endedLog(t, top, id, 10, time.Hour)
	}
	err := errors.Join(
		os.WriteFile(filepath.Join(top, "mixed/journal"), nil, 0o600),
		os.WriteFile(filepath.Join(top, FileName), nil, 0o600),
		os.WriteFile(filepath.Join(top, "@refresher.log"), nil, 0o600),
		os.Mkdir(filepath.Join(top, "empty"), 0o700),
		os.Mkdir(filepath.Join(top, "squid"), 0o700),
		os.WriteFile(filepath.Join(top, "squid", ProxyFileName), nil, 0o600),
		os.Mkdir(filepath.Join(top, "folder", FileName+".1"), 0o700),
		os.Remove(filepath.Join(top, "link", FileName)),
		os.Symlink(filepath.Join(outside, "log", FileName), filepath.Join(top, "link", FileName)),
		os.Symlink(filepath.Join(outside, "log"), filepath.Join(top, "outside")),
	)
	if err != nil {
		t.Fatal(err)
	}
	before := names(t, top)
	removed, err := Prune(top, Limits{MaxAge: 1, MaxBytes: 1})
	if after := names(t, top); err != nil || len(removed) > 0 || !slices.Equal(before, after) {
		t.Errorf("removed %+v, %v: left %q of %q", removed, err, after, before)
	}
	if _, err := os.Stat(filepath.Join(outside, "log", FileName)); err != nil {
		t.Error(err)
	}
	// The control: in a folder of its own, a log is removed.
	endedLog(t, top, "control", 10, time.Hour)
	if removed, err := Prune(top, Limits{MaxAge: 1}); err != nil || len(removed) != 1 || removed[0].ID != "control" {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if removed, err := Prune(filepath.Join(top, "missing"), Limits{MaxAge: 1}); err != nil || removed != nil {
		t.Errorf("of a missing folder: %+v, %v", removed, err)
	}
}

// TestHoldMarksTheEnd checks that a log's age counts from the end of its sandbox, not from
// its last record, and that it is not removed while one of two holders is left.
func TestHoldMarksTheEnd(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "box")
	guard, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	standby, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	endedLog(t, top, "box", 10, 100*time.Hour)
	for _, h := range []*Holder{guard, standby} {
		if removed, err := Prune(top, Limits{MaxAge: time.Hour}); err != nil || len(removed) > 0 || !Held(dir) {
			t.Errorf("removed %+v, %v", removed, err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := Prune(top, Limits{MaxAge: time.Hour}); err != nil || len(removed) > 0 || Held(dir) {
		t.Errorf("removed %+v, %v: the sandbox has only just ended", removed, err)
	}
	endedLog(t, top, "box", 10, 100*time.Hour)
	if removed, err := Prune(top, Limits{MaxAge: time.Hour}); err != nil || len(removed) != 1 {
		t.Errorf("removed %+v, %v", removed, err)
	}
}

// TestHoldWhilePruned checks that a sandbox which starts while its old log is removed holds
// the folder that contains its records.
func TestHoldWhilePruned(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "box")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := Prune(top, Limits{MaxAge: 1}); err != nil {
				t.Error(err)
			}
		}
	})
	file := filepath.Join(dir, FileName)
	for range 100 {
		// The old log of this ID. The other goroutine may remove any part of it.
		_ = os.Mkdir(dir, 0o700)
		_ = os.WriteFile(file, nil, 0o600)
		h, err := Hold(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
		if _, err := Prune(top, Limits{MaxAge: 1}); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("a held log was removed: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
}

// TestPruneDue checks that it prunes once per interval.
func TestPruneDue(t *testing.T) {
	top := t.TempDir()
	due := func(want string) {
		t.Helper()
		endedLog(t, top, "box", 10, time.Hour)
		if err := PruneDue(top, Limits{MaxAge: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(t, top), " "); got != want {
			t.Errorf("left %q, want %q", got, want)
		}
	}
	due("@pruned")
	due("@pruned box")
	before := time.Now().Add(-pruneInterval)
	if err := os.Chtimes(filepath.Join(top, pruneStamp), before, before); err != nil {
		t.Fatal(err)
	}
	due("@pruned")
	if err := PruneDue(filepath.Join(top, "missing"), Limits{MaxAge: 1}); err != nil {
		t.Error(err)
	}
}
