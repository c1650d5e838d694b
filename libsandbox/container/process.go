// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/system"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Action is what Run does with a process.
type Action uint8

// The actions: the zero value is none of them.
const (
	// CreateInit leaves the container's first process waiting for Start.
	CreateInit Action = iota + 1
	// RunInit starts the container's first process.
	RunInit
	// RunExec starts a further process.
	RunExec
	// RestoreInit brings the container's processes back from a checkpoint.
	RestoreInit
)

// ProcessConfig says how to run one process of a container.
type ProcessConfig struct {
	Action Action
	Spec   *specs.Process
	Detach bool
	// PreserveFDs is how many descriptors from 3 on the caller passes through.
	PreserveFDs int
	// Files are passed in after the preserved ones: Files[i] is descriptor
	// FirstFile(PreserveFDs)+i of the process.
	Files []*os.File

	// Lifeline, if not nil, is read until its end, which says that who wanted the
	// process is gone: it is killed. Only for a process that is waited for.
	Lifeline *os.File

	ConsoleSocket, PidfdSocket, PidFile string
	NoSubreaper                         bool
	// SubCgroups puts an exec into cgroups below the container's, by controller
	// ("" on cgroup v2).
	SubCgroups map[string]string
	// NotifySocket is who RunInit tells that the container is ready.
	NotifySocket string
	// IgnorePaused allows an exec that will wait for the container's resume.
	IgnorePaused bool
	// Criu is what RestoreInit restores.
	Criu *CriuOptions
	// Started is called when the process exists: for CreateInit and RunInit the
	// container's root is set up and, for CreateInit, nothing of the image runs.
	// An error kills the process.
	Started func(pid int) error
}

// signalBuffer is how many signals may wait: one lost SIGCHLD is a process
// waited for forever.
const signalBuffer = 2048

// FirstFile is the number that ProcessConfig.Files[0] has in the process.
func FirstFile(preserved int) int { return 3 + preserved }

// Run starts a process; unless detached or created it stays until the process
// ends, forwarding signals, and returns its exit status.
func (c *Container) Run(o ProcessConfig) (int, error) {
	detach := o.Detach || o.Action == CreateInit
	if detach && o.Spec.Terminal && o.ConsoleSocket == "" {
		return -1, errors.New("cannot allocate tty if runc will detach without setting console socket")
	}
	if (!detach || !o.Spec.Terminal) && o.ConsoleSocket != "" {
		return -1, errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	p, err := newProcess(&o)
	if err != nil {
		return -1, err
	}
	if !o.NoSubreaper && o.Action != RunExec && !detach {
		if err := system.SetSubreaper(1); err != nil {
			return -1, fmt.Errorf("become subreaper: %w", err)
		}
	}
	signals := make(chan os.Signal, signalBuffer)
	signal.Notify(signals)
	defer signal.Stop(signals)

	t, err := c.attach(p, &o, detach)
	if err != nil {
		return -1, err
	}
	defer t.close()
	if o.PidfdSocket != "" {
		sock, err := dial(o.PidfdSocket)
		if err != nil {
			return -1, err
		}
		defer sock.Close()
		p.PidfdSocket = sock
	}
	var n *notify
	if o.Action == RunInit {
		if n, err = c.listen(o.NotifySocket); err != nil {
			return -1, err
		}
	}
	switch o.Action {
	case CreateInit:
		err = c.c.Start(p)
	case RestoreInit:
		err = c.c.Restore(p, o.Criu)
	default:
		err = c.start(p, &o)
	}
	if err != nil {
		return -1, err
	}
	pid, err := p.Pid()
	if err == nil {
		err = t.started()
	}
	if err == nil && o.Started != nil && o.Action == CreateInit {
		err = o.Started(pid)
	}
	if err == nil && o.PidFile != "" {
		err = writePidFile(o.PidFile, pid)
	}
	if err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
		return -1, err
	}
	switch {
	case n != nil && detach:
		return 0, n.pass(pid, pid)
	case detach:
		return 0, nil
	case n != nil:
		go func() {
			if err := n.pass(pid, os.Getpid()); err != nil {
				logrus.WithError(err).Warn("the manager was not told that the container is ready")
			}
		}()
	}
	return forward(p, pid, t, signals, ended(o.Lifeline)), nil
}

// ended is closed when f comes to its end; nil, which never is, without f.
func ended(f *os.File) <-chan struct{} {
	if f == nil {
		return nil
	}
	c := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, f)
		close(c)
	}()
	return c
}

// start starts p at once. An init is first made to wait, so that Started sees
// the container's root before anything of the image runs.
func (c *Container) start(p *libcontainer.Process, o *ProcessConfig) error {
	if o.Action == RunExec {
		return c.c.Run(p)
	}
	if err := c.c.Start(p); err != nil {
		return err
	}
	pid, err := p.Pid()
	if err == nil && o.Started != nil {
		err = o.Started(pid)
	}
	if err == nil {
		err = c.c.Exec()
	}
	if err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
	}
	return err
}

func newProcess(o *ProcessConfig) (*libcontainer.Process, error) {
	s := o.Spec
	nnp := s.NoNewPrivileges
	p := &libcontainer.Process{
		Args: s.Args, Env: s.Env, Cwd: s.Cwd, UID: int(s.User.UID), GID: int(s.User.GID),
		Label: s.SelinuxLabel, AppArmorProfile: s.ApparmorProfile, NoNewPrivileges: &nnp,
		Scheduler: s.Scheduler, IOPriority: s.IOPriority,
		Init: o.Action != RunExec, SubCgroupPaths: o.SubCgroups, LogLevel: strconv.Itoa(int(logrus.GetLevel())),
	}
	for _, g := range s.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, int(g))
	}
	if s.ConsoleSize != nil {
		p.ConsoleWidth, p.ConsoleHeight = uint16(s.ConsoleSize.Width), uint16(s.ConsoleSize.Height)
	}
	if k := s.Capabilities; k != nil {
		p.Capabilities = &configs.Capabilities{
			Bounding: k.Bounding, Effective: k.Effective, Inheritable: k.Inheritable, Permitted: k.Permitted, Ambient: k.Ambient,
		}
	}
	for _, r := range s.Rlimits {
		n, ok := rlimits[r.Type]
		if !ok {
			return nil, fmt.Errorf("invalid rlimit type %q", r.Type)
		}
		p.Rlimits = append(p.Rlimits, configs.Rlimit{Type: n, Hard: r.Hard, Soft: r.Soft})
	}
	aff, err := configs.ConvertCPUAffinity(s.ExecCPUAffinity)
	if err != nil {
		return nil, err
	}
	p.CPUAffinity = aff
	for i := 3; i < 3+o.PreserveFDs; i++ {
		if _, err := unix.FcntlInt(uintptr(i), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i-3, o.PreserveFDs, err)
		}
		p.ExtraFiles = append(p.ExtraFiles, os.NewFile(uintptr(i), "preserved-fd-"+strconv.Itoa(i)))
	}
	p.ExtraFiles = append(p.ExtraFiles, o.Files...)
	return p, nil
}

// rlimits are the numbers of runtime-spec's names (getrlimit(2)).
var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// forward passes signals to the process and reaps children until it ends, which
// it is made to when gone is closed.
func forward(p *libcontainer.Process, pid int, t *streams, signals <-chan os.Signal, gone <-chan struct{}) int {
	t.resize()
	for {
		select {
		case <-gone:
			// Nobody may be left to read what the process wrote.
			gone, t.abandoned = nil, true
			_ = p.Signal(unix.SIGKILL)
		case s := <-signals:
			switch s {
			case unix.SIGCHLD:
				if status, ok := reap(pid); ok {
					// Wait flushes the pipes; the status is already known.
					_, _ = p.Wait()
					return status
				}
			case unix.SIGWINCH:
				t.resize()
			case unix.SIGURG:
				// Go's own preemption signal.
			default:
				_ = p.Signal(s)
			}
		}
	}
}

// reap waits for the children that have ended; ok says that pid is one of them.
func reap(pid int) (status int, ok bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || got <= 0:
			return 0, false
		case got == pid:
			return utils.ExitStatus(ws), true
		}
	}
}

func writePidFile(path string, pid int) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_SYNC, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

func dial(path string) (*os.File, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	f, err := conn.(*net.UnixConn).File()
	return f, errors.Join(err, conn.Close())
}
