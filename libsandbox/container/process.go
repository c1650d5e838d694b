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

// Action says which process Run starts, and how.
type Action uint8

// The actions. The zero value is none of them.
const (
	// CreateInit leaves the container's first process waiting for [Container.Start].
	CreateInit Action = iota + 1
	// RunInit starts the container's first process.
	RunInit
	// RunExec starts a further process.
	RunExec
	// RestoreInit restores the container's processes from a checkpoint.
	RestoreInit
)

// ProcessConfig describes one process of a container, for [Container.Run].
type ProcessConfig struct {
	// Action is required.
	Action Action
	// Spec is the process of config.json. It is required. A resource limit whose type is
	// unknown is an error.
	Spec *specs.Process
	// Detach makes Run return when the process has started. The zero value waits for its
	// end. CreateInit never waits.
	Detach bool
	// PreserveFDs is the number of the caller's descriptors, from 3 on, that the process
	// gets. A descriptor that is not open is an error. The zero value passes none.
	PreserveFDs int
	// Files are passed to the process after the preserved descriptors: Files[i] is the
	// descriptor FirstFile(PreserveFDs)+i. Run does not close them. The zero value passes
	// none.
	Files []*os.File
	// Lifeline, if it is not nil, is read until its end. Then the process is killed,
	// because the caller that wanted it has ended. It has no effect on a process that Run
	// does not wait for.
	Lifeline *os.File
	// ConsoleSocket is the path of a socket that gets the master of the terminal. It is
	// required for a terminal (Spec.Terminal) that Run does not wait for, and an error
	// otherwise.
	ConsoleSocket string
	// PidfdSocket is the path of a socket that gets a pidfd of the process. The zero value
	// sends none.
	PidfdSocket string
	// PidFile is the path of a file for the process's ID. The zero value writes none.
	PidFile string
	// NoSubreaper keeps this process from becoming the reaper of its descendants. The zero
	// value lets it, if it waits for the container's first process.
	NoSubreaper bool
	// SubCgroups are the cgroups of an exec, below the container's, by controller ("" for
	// cgroup v2). The zero value means the container's own.
	SubCgroups map[string]string
	// NotifySocket is the NOTIFY_SOCKET of the manager that RunInit tells when the container
	// is ready. The zero value tells none.
	NotifySocket string
	// IgnorePaused allows an exec in a paused container, where the process waits for the
	// container's resume. The zero value makes that an error of libsandbox.Exec.
	IgnorePaused bool
	// Criu are the options of RestoreInit. It is required there, and ignored otherwise.
	Criu *CriuOptions
	// Started is called for CreateInit and RunInit when the container's root is set up and
	// its init process waits: no program of the image has run. If it returns an error, Run
	// kills the process. The zero value is not called.
	Started func(pid int) error
}

// signalBuffer bounds the signals that wait for forward. It is large because the process
// of a lost SIGCHLD would be waited for without end.
const signalBuffer = 2048

// FirstFile returns the descriptor of ProcessConfig.Files[0] in the process.
func FirstFile(preserved int) int { return 3 + preserved }

// Run starts a process and returns 0, for CreateInit and with Detach. Otherwise it forwards
// signals to the process until that ends, and returns its exit status.
func (c *Container) Run(o ProcessConfig) (int, error) {
	detach := o.Detach || o.Action == CreateInit
	if err := checkConsole(&o, detach); err != nil {
		return -1, err
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
	if err := c.start(p, &o); err != nil {
		return -1, err
	}
	pid, err := finishStart(p, &o, t)
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

// checkConsole returns runc's errors about a console socket that is missing or useless.
func checkConsole(o *ProcessConfig, detach bool) error {
	if detach && o.Spec.Terminal && o.ConsoleSocket == "" {
		return errors.New("cannot allocate tty if runc will detach without setting console socket")
	}
	if (!detach || !o.Spec.Terminal) && o.ConsoleSocket != "" {
		return errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// finishStart is called when p has started. It returns the process's ID. If it returns an
// error, the caller kills the process.
func finishStart(p *libcontainer.Process, o *ProcessConfig, t *streams) (pid int, err error) {
	if pid, err = p.Pid(); err != nil {
		return 0, err
	}
	if err := t.started(); err != nil {
		return 0, err
	}
	if o.Started != nil && o.Action == CreateInit { // startNow has called it for RunInit
		if err := o.Started(pid); err != nil {
			return 0, err
		}
	}
	if o.PidFile == "" {
		return pid, nil
	}
	return pid, writePidFile(o.PidFile, pid)
}

// ended returns a channel that is closed when f is read to its end. It returns nil, a channel
// that is never closed, if f is nil.
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

// start starts p, or restores it.
func (c *Container) start(p *libcontainer.Process, o *ProcessConfig) error {
	switch o.Action {
	case CreateInit:
		return c.c.Start(p)
	case RestoreInit:
		return c.c.Restore(p, o.Criu)
	case RunExec:
		return c.c.Run(p)
	default:
		return c.startNow(p, o)
	}
}

// startNow starts the container's first process, which waits at first, so that Started
// sees the container's root before a program of the image runs.
func (c *Container) startNow(p *libcontainer.Process, o *ProcessConfig) error {
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

// newProcess returns libcontainer's description of a process.
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

// rlimits are the numbers of getrlimit(2) for runtime-spec's names.
var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// forward passes signals to the process and reaps children until the process ends. It kills
// the process when gone is closed. It returns the exit status.
func forward(p *libcontainer.Process, pid int, t *streams, signals <-chan os.Signal, gone <-chan struct{}) int {
	t.resize()
	for {
		select {
		case <-gone:
			// The reader of the process's output may have ended, too.
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
				// The Go runtime sends it to this process's threads.
			default:
				_ = p.Signal(s)
			}
		}
	}
}

// reap waits for all children that have ended. ok says that pid is one of them.
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

// writePidFile writes a process's ID into the file at path, which it replaces as a whole.
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

// dial connects to the socket at path.
func dial(path string) (*os.File, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	f, err := conn.(*net.UnixConn).File()
	return f, errors.Join(err, conn.Close())
}
