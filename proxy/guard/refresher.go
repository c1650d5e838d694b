// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/flock"
)

// keepRefresher has a refresher run for as long as something here expires. There is
// one for all sandboxes of a store: who finds its lock free starts it, so it comes
// back when it was killed.
func (g *Guard) keepRefresher() {
	for {
		if g.secrets.renewed() && free(g.Config.Refresher.Lock) {
			if err := runRefresher(g.Config.Refresher.Argv); err != nil {
				fmt.Fprintf(os.Stderr, "%s run the refresher: %v\n", time.Now().UTC().Format(time.RFC3339), err)
			}
		}
		select {
		case <-g.ended:
			return
		case <-time.After(refresherPoll):
		}
	}
}

// free says whether nobody holds a lock. Two that find it free both start one, of
// which the second ends at once.
func free(lock string) bool {
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	return flock.Try(f, flock.Exclusive) == nil
}

// runRefresher runs one to its end, which comes with the guard's: `openshell run` has
// mounts of its own, which a process that outlived it would keep. Another guard then
// starts another.
func runRefresher(argv []string) error {
	runtime.LockOSThread() // the death signal is tied to the thread
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, os.Stderr}, Sys: &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGTERM},
	})
	if err != nil {
		return err
	}
	st, err := p.Wait()
	if err == nil && !st.Success() {
		err = errors.New(st.String())
	}
	return err
}
