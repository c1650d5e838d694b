// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is a file that counts how often it is opened.
type program struct {
	path  string
	opens atomic.Int32
}

func newProgram(t *testing.T, contents string) *program {
	t.Helper()
	p := &program{path: t.TempDir() + "/p"}
	must(t, os.WriteFile(p.path, []byte(contents), 0o600))
	return p
}

func (p *program) id(t *testing.T) fileID {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(p.path, &st))
	return idOf(&st)
}

func (p *program) open() (int, error) {
	p.opens.Add(1)
	return unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func TestDigestIsCachedOnceSettled(t *testing.T) {
	p := newProgram(t, "one")
	d := newDigests()
	id := p.id(t)
	for range 3 {
		_, err := d.of("/p", id, p.open)
		must(t, err)
	}
	if n := p.opens.Load(); n != 3 {
		t.Errorf("read %d times while it may change unseen, want 3", n)
	}
	time.Sleep(settled + 10*time.Millisecond) //nolint:forbidigo // the file counts as settled after this time
	p.opens.Store(0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := d.of("/p", id, p.open); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := p.opens.Load(); n > 3 {
		t.Errorf("read %d times", n)
	}
}

func TestDigestErrors(t *testing.T) {
	p := newProgram(t, "one")
	id := p.id(t)
	huge, longer := id, id
	huge.size = maxExecutable + 1
	longer.size++
	for _, tc := range []struct {
		name string
		id   fileID
		open func() (int, error)
		want error
	}{
		{"too large", huge, p.open, ErrIntegrity},
		{"not what was looked at", longer, p.open, errChanged},
		{"process has ended", id, func() (int, error) { return -1, unix.ESRCH }, errChanged},
		{"unreadable", id, func() (int, error) { return -1, unix.EACCES }, unix.EACCES},
	} {
		if sum, err := newDigests().of("/p", tc.id, tc.open); !errors.Is(err, tc.want) || sum != "" {
			t.Errorf("%s: %q, %v; want %v", tc.name, sum, err, tc.want)
		}
	}
}

func TestPins(t *testing.T) {
	d := newDigests()
	must(t, d.pin("/p", "sha256:1"))
	must(t, d.pin("/p", "sha256:1"))
	want := "binary integrity check failed: Binary integrity violation: /p hash changed (cached: sha256:1, current: sha256:2)"
	if err := d.pin("/p", "sha256:2"); !errors.Is(err, ErrIntegrity) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	must(t, d.pin("/p", "sha256:1")) // the first one stays
	for i := range maxPins - 1 {
		must(t, d.pin(fmt.Sprint(i), "sha256:1"))
	}
	if err := d.pin("/another", "sha256:1"); !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v", err)
	}
	must(t, d.pin("/p", "sha256:1"))
}
