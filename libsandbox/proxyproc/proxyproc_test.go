// SPDX-License-Identifier: Apache-2.0

package proxyproc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// TestStopKills: a guard and a standby that do not end, because they are stopped by a signal,
// are killed.
func TestStopKills(t *testing.T) {
	for _, name := range []string{proxyapi.LockFile, proxyapi.StandbyLockFile} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sleep", "60")
			cmd.ExtraFiles = []*os.File{f} // keeps the lock
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(f, cmd.Process.Pid)
			f.Close()
			if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			if err := Stop(dir); err != nil {
				t.Error(err)
			}
			select {
			case <-ended:
			case <-time.After(stopTimeout):
				t.Error("it still runs")
				_ = cmd.Process.Kill()
			}
		})
	}
}
