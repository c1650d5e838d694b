// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// churnTime is how long processes start and end while the code under test looks at
// them. Without a second look the test of PID namespaces fails some ten times in it.
const churnTime = 1500 * time.Millisecond

// eachShortLived starts short-lived processes and calls look for each again and again,
// until look returns that the process has ended.
func eachShortLived(t *testing.T, look func(pid int) (ended bool)) {
	t.Helper()
	end := time.Now().Add(churnTime)
	var loops sync.WaitGroup
	for range 2 {
		loops.Go(func() {
			for time.Now().Before(end) {
				p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Env: []string{}})
				if err != nil {
					t.Error(err)
					return
				}
				reaped := make(chan struct{})
				go func() {
					_, _ = p.Wait()
					close(reaped)
				}()
				for !look(p.Pid) && time.Now().Before(end.Add(churnTime)) {
				}
				<-reaped
			}
		})
	}
	loops.Wait()
}

// holdersIn searches one process for the holders of a socket that does not exist.
func holdersIn(pid int) ([]*holder, error) {
	found, _, err := (&sweeps{}).find(1, func() (map[int]bool, error) { return map[int]bool{pid: true}, nil })
	return found, err
}

// TestBypass_B93_PIDNamespacesWhileProcessesEnd: a process that ends while its PID
// namespace is looked at is gone; it is no error, which would fail a create or refuse
// a connection.
func TestBypass_B93_PIDNamespacesWhileProcessesEnd(t *testing.T) {
	var st unix.Stat_t
	must(t, unix.Stat("/proc/self/ns/pid", &st))
	ns := &pidns{host: fileKey{st.Dev, st.Ino}}
	eachShortLived(t, func(pid int) bool {
		_, err := ns.contains(pid)
		if err != nil && ignoreEnded(err) != nil {
			t.Errorf("process that ends: %v", err)
		}
		return err != nil
	})
}

// TestBypass_B93_HoldersWhileProcessesEnd: the same for descriptors and executables.
func TestBypass_B93_HoldersWhileProcessesEnd(t *testing.T) {
	eachShortLived(t, func(pid int) bool {
		if _, err := holdersIn(pid); err != nil {
			t.Errorf("descriptors of a process that ends: %v", err)
		}
		p, err := openProcess(pid, pid)
		if err == nil {
			defer p.close()
			_, _, err = p.look()
		}
		if err != nil && !errors.Is(err, errChanged) {
			t.Errorf("executable of a process that ends: %v", err)
		}
		return err != nil
	})
}

// TestBypass_B93_EndedProcesses: a process that has ended, reaped or not, holds
// no socket, is not in the container's PID namespace, and counts as changed.
func TestBypass_B93_EndedProcesses(t *testing.T) {
	var st unix.Stat_t
	must(t, unix.Stat("/proc/self/ns/pid", &st))
	ns := &pidns{host: fileKey{st.Dev, st.Ino}}
	cmd := exec.Command("/bin/sleep", "1000")
	must(t, cmd.Start())
	pid := cmd.Process.Pid
	p, err := openProcess(pid, pid)
	must(t, err)
	defer p.close()
	if _, _, err := p.look(); err != nil {
		t.Fatalf("control: %v", err)
	}
	check := func(state string) {
		t.Helper()
		if in, err := ns.contains(pid); in || ignoreEnded(err) != nil {
			t.Errorf("%s: in the namespace %t, %v", state, in, err)
		}
		if found, err := holdersIn(pid); len(found) > 0 || err != nil {
			t.Errorf("%s: holders %v, %v", state, found, err)
		}
		if _, _, err := p.look(); !errors.Is(err, errChanged) {
			t.Errorf("%s: look: %v", state, err)
		}
		if q, err := openProcess(pid, pid); !errors.Is(err, errChanged) {
			t.Errorf("%s: opened %v, %v", state, q, err)
		}
	}
	must(t, cmd.Process.Kill())
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for n := 0; n == 0; { // until it is a zombie
		if n, err = unix.Poll(fds, 10_000); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	check("not reaped")
	_ = cmd.Wait()
	check("reaped")
}

// TestFollow: EACCES is an error only if it comes each time.
func TestFollow(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []error
		want    error
	}{
		"allowed":            {[]error{nil}, nil},
		"ended meanwhile":    {[]error{unix.EACCES, unix.ENOENT}, unix.ENOENT},
		"id given again":     {[]error{unix.EACCES, nil}, nil},
		"may not be read":    {[]error{unix.EACCES, unix.EACCES, unix.EACCES}, unix.EACCES},
		"another error":      {[]error{unix.ESRCH}, unix.ESRCH},
		"above the PID tree": {[]error{unix.EPERM}, unix.EPERM},
	} {
		n := 0
		err := follow(func() error {
			n++
			return tc.answers[n-1]
		})
		if !errors.Is(err, tc.want) || n != len(tc.answers) {
			t.Errorf("%s: %v after %d looks", name, err, n)
		}
	}
}

// TestBypass_B93_ListWhileProcessesEnd: a process that ends while the kernel lists the
// cgroup has the id 0 in it; the list is read again.
func TestBypass_B93_ListWhileProcessesEnd(t *testing.T) {
	if err := parsePids([]byte("12\n0\n14\n"), map[int]bool{}); !errors.Is(err, errChanged) {
		t.Errorf("%v, want errChanged", err)
	}
	pids := map[int]bool{}
	if err := parsePids([]byte("12\n14\n"), pids); err != nil || len(pids) != 2 {
		t.Errorf("%v, %v", pids, err)
	}
}
