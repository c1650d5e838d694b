// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"openshell.dev/runtime/libsandbox/landlock"
)

// confined runs do on a new thread that is restricted by r. It returns the error of
// restrict; if there is one, do does not run.
func confined(r landlock.Ruleset, do func()) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		err := restrict(r)
		if err == nil {
			do()
		}
		result <- err
	}()
	return <-result
}

func needLandlock(t *testing.T) int {
	t.Helper()
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		t.Skipf("the kernel has no Landlock: %v", err)
	}
	return abi
}

// TestHardRequirement checks that a path that cannot be opened is skipped, and that
// hard_requirement fails if none of the policy's or the baseline's paths can be opened.
func TestHardRequirement(t *testing.T) {
	abi := needLandlock(t)
	dir, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	rule := func(path string, from landlock.Origin) landlock.Rule {
		return landlock.Rule{Path: path, Access: landlock.ReadOnly, Origin: from}
	}
	for _, tc := range []struct {
		name           string
		hard, complete bool
		rules          []landlock.Rule
		want           string
	}{
		{"all there", true, true, []landlock.Rule{rule(dir, landlock.OriginPolicy)}, ""},
		{"one missing", true, false, []landlock.Rule{rule(missing, landlock.OriginPolicy), rule(dir, landlock.OriginPolicy)}, ""},
		{"the baseline counts", true, false, []landlock.Rule{rule(missing, landlock.OriginPolicy), rule(dir, landlock.OriginBaseline)}, ""},
		{"devices do not count", true, false, []landlock.Rule{rule(missing, landlock.OriginPolicy), rule("/dev/null", landlock.OriginRuntime)}, "none of the policy's paths can be opened"},
		{"no rules", true, false, nil, "none of the policy's paths can be opened"},
		{"one missing, missing_paths: fail", true, true, []landlock.Rule{rule(missing, landlock.OriginPolicy), rule(dir, landlock.OriginPolicy)}, missing},
		{"the baseline may be missing", true, true, []landlock.Rule{rule(missing, landlock.OriginBaseline), rule(dir, landlock.OriginPolicy)}, ""},
		{"best_effort", false, false, []landlock.Rule{rule(missing, landlock.OriginPolicy)}, ""},
	} {
		r := landlock.New(abi, tc.rules, 0)
		r.Hard, r.Complete = tc.hard, tc.complete
		err := confined(r, func() {})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestBypass_B50_LinkedBaseline: an image that makes a path of the baseline a link gets no
// rights for the link's target. A link that the policy lists is followed, because its
// author asked for it.
func TestBypass_B50_LinkedBaseline(t *testing.T) {
	abi := needLandlock(t)
	dir := t.TempDir()
	secret, app, below := filepath.Join(dir, "mnt", "secret"), filepath.Join(dir, "app"), filepath.Join(dir, "var", "log")
	for _, err := range []error{
		os.Mkdir(filepath.Dir(secret), 0o700), os.WriteFile(secret, nil, 0o600), os.Symlink("mnt", app),
		os.Symlink(".", filepath.Join(dir, "var")), os.Symlink("mnt", filepath.Join(dir, "log")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		path string
		from landlock.Origin
		want bool
	}{
		{app, landlock.OriginBaseline, false},
		{below, landlock.OriginBaseline, false},
		{filepath.Dir(secret), landlock.OriginBaseline, true},
		{app, landlock.OriginPolicy, true},
	} {
		opened := false
		if err := confined(landlock.New(abi, []landlock.Rule{{Path: tc.path, Access: landlock.ReadOnly, Origin: tc.from}}, 0), func() {
			f, err := os.Open(secret)
			if opened = err == nil; opened {
				_ = f.Close()
			}
		}); err != nil {
			t.Fatal(err)
		}
		if opened != tc.want {
			t.Errorf("rule for %s from %q: opened %t, want %t", tc.path, tc.from, opened, tc.want)
		}
	}
}
