// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// keepRefresher has a refresher run for as long as something here expires. There is
// one for all sandboxes of a store: who finds its lock free starts it, so it comes
// back when it was killed.
func (g *Guard) keepRefresher() {
	for {
		if g.secrets.renewed() && free(g.Config.Refresher.Lock) {
			if err := startOutside(g.Config.Refresher.Argv); err != nil {
				fmt.Fprintf(os.Stderr, "%s start the refresher: %v\n", time.Now().UTC().Format(time.RFC3339), err)
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
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// startOutside starts a program that outlives the sandbox, in the mounts of the
// machine: `openshell run` has mounts of its own, which it would keep.
func startOutside(argv []string) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never given back: its mounts are others
		result <- func() error {
			first, err := os.Open("/proc/1/ns/mnt")
			if err != nil {
				return fmt.Errorf("open the machine's mounts: %w", err)
			}
			defer first.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("have a working folder of its own: %w", err)
			}
			if err := unix.Setns(int(first.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter the machine's mounts: %w", err)
			}
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer null.Close()
			p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
				Dir: "/", Env: []string{}, Files: []*os.File{null, null, null}, Sys: &unix.SysProcAttr{Setsid: true},
			})
			if err != nil {
				return err
			}
			go func() { _, _ = p.Wait() }()
			return nil
		}()
	}()
	return <-result
}
