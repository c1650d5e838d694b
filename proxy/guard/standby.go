// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// keepStandby has another process ready to be the guard, for as long as the
// container lives, once there is to be one: whichever of guard, worker and standby is
// killed, one of the others starts it anew.
func (g *Guard) keepStandby(made <-chan struct{}) {
	select {
	case <-g.ended:
		return
	case <-made:
	}
	select {
	case <-g.ended:
		return
	case <-time.After(standbyAfter):
	}
	for {
		began := time.Now()
		if err := g.standby(); err != nil {
			fmt.Fprintf(os.Stderr, "%s standby ended (%v), starting another\n", time.Now().UTC().Format(time.RFC3339), err)
		}
		select {
		case <-g.ended:
			return
		case <-time.After(max(0, restartMost-time.Since(began))):
		}
	}
}

// standby runs one to its end.
func (g *Guard) standby() error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("open own pidfd: %w", err)
	}
	pidfd := os.NewFile(uintptr(self), "guard")
	defer pidfd.Close()
	documents, pipe, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, documents.Close(), pipe.Close())
	}
	defer null.Close()
	files := []*os.File{null, os.Stderr, os.Stderr, documents, null, g.Netns}
	for _, l := range g.Listeners {
		if l == nil {
			l = null
		}
		files = append(files, l)
	}
	files = append(files, g.Init, pidfd)
	p, err := os.StartProcess("/proc/self/exe", []string{proxyapi.StandbyArgument, proxyapi.RoleStandby, g.Config.ID}, &os.ProcAttr{Files: files, Env: []string{}})
	_ = documents.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start standby: %w", err), pipe.Close())
	}
	g.secrets.tellAlways(g, pipe, p)
	st, err := p.Wait()
	g.secrets.tellNoMore()
	if err == nil {
		err = errors.New(st.String())
	}
	return err
}

// Follow reads what the guard tells its standby until the guard ends: the
// container, and what the secrets have become. Run is called after it.
func (g *Guard) Follow() error {
	if err := g.Documents.Decode(&g.container); err != nil {
		return fmt.Errorf("read the guard's second document: %w", err)
	}
	for {
		var s proxyapi.Secrets
		if err := g.Documents.Decode(&s); err != nil {
			return nil //nolint:nilerr // the guard has ended, perhaps in the middle of a word
		}
		g.Config.Providers, g.Config.Inference = s.Providers, s.Inference
	}
}

// AwaitGuard returns once the guard has ended, and whether the container lives on
// without it.
func AwaitGuard(init, guard *os.File) (alone bool, err error) {
	p := []unix.PollFd{{Fd: int32(init.Fd()), Events: unix.POLLIN}, {Fd: int32(guard.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for the guard: %w", err)
		}
		if p[0].Revents != 0 {
			return false, nil
		}
		if p[1].Revents != 0 {
			return true, nil
		}
	}
}
