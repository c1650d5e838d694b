// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notifyFolder is the folder of the notify socket in the container, as in runc.
const notifyFolder = "/run/notify"

// NotifySocket is the name of the socket in that folder, and in the container's state.
const NotifySocket = "notify.sock"

// maxNotify bounds one message of sd_notify(3), in bytes.
const maxNotify = 4096

const (
	// notifyPoll is the interval in which pass checks whether the process has ended without
	// having been ready.
	notifyPoll = 100 * time.Millisecond
	// barrierTimeout bounds the time until systemd has read a message.
	barrierTimeout = 30 * time.Second
)

// notify is a socket between the container and the manager that started the runtime
// (NOTIFY_SOCKET). The only message that passes is READY.
type notify struct {
	// manager is the path of the manager's socket.
	manager string
	// conn is the container's socket.
	conn *net.UnixConn
}

// mountNotify adds to s the mount and the variable by which the container finds its notify
// socket. The socket itself is made later.
func mountNotify(s *specs.Spec, root, id string) {
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: notifyFolder, Source: notifyDir(root, id), Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	s.Process.Env = append(s.Process.Env, "NOTIFY_SOCKET="+notifyFolder+"/"+NotifySocket)
}

func notifyDir(root, id string) string { return filepath.Join(root, id, "notify") }

// listen makes the container's notify socket. It returns nil if no manager waits.
func (c *Container) listen(manager string) (*notify, error) {
	if manager == "" {
		return nil, nil
	}
	// The folder's path may be longer than the address of a socket, 108 bytes.
	dir, err := os.Open(c.notifyDir)
	if err != nil {
		return nil, fmt.Errorf("open the container's notify folder: %w", err)
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), NotifySocket)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open the container's notify socket: %w", err)
	}
	// Every user of the container may write to it.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &notify{manager, conn}, nil
}

// pass waits for READY from the container and tells the manager, with mainPid as the process
// that the manager should watch. It also returns when process pid has ended.
func (n *notify) pass(pid, mainPid int) error {
	defer n.conn.Close()
	manager, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.manager, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach NOTIFY_SOCKET: %w", err)
	}
	defer manager.Close()
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch the container's process: %w", err)
	}
	defer unix.Close(process)
	buf := make([]byte, maxNotify)
	for {
		if err := n.conn.SetReadDeadline(time.Now().Add(notifyPoll)); err != nil {
			return err
		}
		got, err := n.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// A pidfd is readable once its process has ended, reaped or not.
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0); n > 0 && err == nil {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		for line := range bytes.SplitSeq(buf[:got], []byte("\n")) {
			if bytes.Equal(line, []byte("READY=1")) {
				return ready(manager, mainPid)
			}
		}
	}
}

// ready tells the manager that pid is ready, and waits until the manager has read it.
func ready(manager *net.UnixConn, pid int) error {
	for _, line := range []string{"READY=1\n", "MAINPID=" + strconv.Itoa(pid) + "\n"} {
		if _, err := manager.Write([]byte(line)); err != nil {
			return err
		}
	}
	// systemd closes the pipe when it has read the messages before (sd_notify_barrier(3)).
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	raw, err := manager.SyscallConn() // net sends no descriptors on a connected unixgram
	if err == nil {
		var sent error
		err = raw.Control(func(fd uintptr) {
			sent = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0)
		})
		err = errors.Join(err, sent)
	}
	if err := errors.Join(err, w.Close(), r.SetReadDeadline(time.Now().Add(barrierTimeout))); err != nil {
		return err
	}
	// An error is no failure: a manager that does not know barriers does not answer.
	_, _ = r.Read(make([]byte, 1))
	return nil
}
