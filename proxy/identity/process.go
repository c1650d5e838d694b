// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one thread of a process, by its open /proc directory. Like a pidfd
// the directory stays tied to that thread: once it has ended every access gives
// ESRCH, also when its id has been given to another.
type process struct {
	pid, tid int
	dir      int
	pidfd    int
}

func openProcess(pid, tid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, gone(fmt.Errorf("open a pidfd of process %d: %w", pid, err))
	}
	path := fmt.Sprintf("/proc/%d/task/%d", pid, tid)
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(pidfd)
		return nil, gone(fmt.Errorf("open %s: %w", path, err))
	}
	p := &process{pid: pid, tid: tid, dir: dir, pidfd: pidfd}
	// Alive with both open: they are of the same process.
	if alive, err := p.alive(); err != nil || !alive {
		p.close()
		return nil, errors.Join(errChanged, err)
	}
	return p, nil
}

func (p *process) close() {
	_ = unix.Close(p.dir)
	_ = unix.Close(p.pidfd)
}

// alive says whether the process, all of its threads, has not ended.
func (p *process) alive() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err == nil {
			return n == 0, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("poll process %d: %w", p.pid, err)
		}
	}
}

func (p *process) path(name string) string {
	return fmt.Sprintf("/proc/%d/task/%d/%s", p.pid, p.tid, name)
}

// parent returns the id of the parent process.
func (p *process) parent() (int, error) {
	b, err := readAt(p.dir, "stat", maxProcFile)
	if err != nil {
		return 0, gone(fmt.Errorf("read %s: %w", p.path("stat"), err))
	}
	ppid, err := parseParent(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.path("stat"), err)
	}
	return ppid, nil
}

// cmdline is the start of the arguments, or nothing: it is for messages.
func (p *process) cmdline() []string {
	b, err := readAt(p.dir, "cmdline", maxCmdline)
	if err != nil && !errors.Is(err, errTooLong) {
		return nil
	}
	args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	return args[:min(len(args), maxArgs)]
}

// parseParent reads the parent's id from a line of /proc/PID/stat, see
// proc_pid_stat(5). The second field is the name of the program in parentheses and
// may hold anything, parentheses and spaces too; the last closing one ends it.
func parseParent(b []byte) (int, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, errors.New("no name of a program")
	}
	fields := strings.Fields(string(b[end+1:])) // from the third
	if len(fields) < 2 {
		return 0, errors.New("no parent")
	}
	n, err := strconv.ParseInt(fields[1], 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("parent %q is no process id", fields[1])
	}
	return int(n), nil
}

var errTooLong = errors.New("longer than expected")

// readAt reads the file name in dir. If there is more than limit bytes it returns
// the first of them with errTooLong.
func readAt(dir int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):min(cap(b), limit+1)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) > limit {
			return b[:limit], errTooLong
		}
	}
}
