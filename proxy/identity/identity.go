// SPDX-License-Identifier: Apache-2.0

// Package identity finds the programs behind a connection of a container: from
// the client's address pair to the socket, to every process that holds the
// socket, to the executable each of them runs.
//
// It works from outside, in the host's PID namespace, and asks the kernel only:
// sock_diag in the container's network namespace, /proc, and the container's own
// root directory. A program is named by the path that the kernel gives for its
// executable, and only if that path, walked in the container's first mount
// namespace, reaches the very same file. Its contents are hashed, and the first
// digest seen for a path is kept: a path whose contents change is refused for as
// long as the Resolver lives. What cannot be found out is an error, and an error
// is a denial.
//
// It does not protect against:
//   - Code brought into a permitted program: an identity is an executable file, not
//     what runs in it. LD_PRELOAD, NODE_OPTIONS, GIT_SSH_COMMAND, a script for a
//     permitted interpreter and the like all have the interpreter's identity.
//   - A socket handed on by descent: identity is sampled. Who connects, writes and
//     then executes a permitted program with the socket open is that program from
//     then on. Callers ask again for each request.
//   - Holders that no descriptor table shows: a descriptor in flight over a unix
//     socket, and files registered with io_uring. The seccomp filter must refuse
//     io_uring; pidfd_getfd and ptrace need rights that the sandbox does not give.
//   - Holders outside the container, that got the socket over a unix socket shared
//     with the host or with another container.
//   - Contents of files in a file system that the container itself serves (FUSE),
//     which may differ at each reading.
package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process that holds a connection.
type Process struct {
	// Container is the ID of the container that the process belongs to: [Config.Container].
	Container string
	// Pid is the process id in the host's PID namespace.
	Pid int
	// Binary is the path of the executable in the container.
	Binary string
	// Digest is that of the executable: "sha256:" and hex digits.
	Digest string
	// Ancestors are the parents' executables, nearest first, up to the
	// container's first process.
	Ancestors []string
	// Cmdline is the start of the argument vector, as the process shows it. The
	// process can write what it likes there: it is for messages only.
	Cmdline []string
}

// same reports whether a policy cannot tell two processes apart.
func (p Process) same(q Process) bool {
	return p.Container == q.Container && p.Binary == q.Binary && p.Digest == q.Digest && slices.Equal(p.Ancestors, q.Ancestors)
}

// Config says which container a Resolver is for.
type Config struct {
	// Container is the container's ID.
	Container string
	// Pid is the container's first process, in the host's PID namespace.
	Pid int
	// Netns is the container's network namespace.
	Netns *os.File
}

// Resolver finds the processes of one container. It is safe for concurrent use.
type Resolver struct {
	container string
	first     int
	firstFd   *process
	sockets   *sockets
	members   *members
	sweeps    sweeps
	root      *root
	digests   *digests
	slots     chan struct{}
}

// Errors that a Resolve ends with. The text around them says which connection.
var (
	// ErrNoSocket means that no open socket has these addresses: it was closed,
	// or nobody holds it any more.
	ErrNoSocket = errors.New("no open socket has these addresses")
	// ErrNoHolder means that the socket exists and no process of the container
	// has a descriptor of it.
	ErrNoHolder = errors.New("no process of the container holds the socket")
	// ErrIntegrity means that an executable is not the file that its path names,
	// or not what it was when first seen.
	ErrIntegrity = errors.New("binary integrity check failed")
	// ErrEnded means that the container's first process is gone.
	ErrEnded = errors.New("the container's first process has ended")
)

// errChanged means that a process ended or became another one while it was being
// looked at. The next attempt sees the new state.
var errChanged = errors.New("processes changed while they were looked at")

// Open returns a Resolver for a container whose first process has been made and
// has been put into its namespaces and cgroups. It may not have been started.
//
// Preconditions: CAP_SYS_ADMIN to enter the network namespace; CAP_SYS_PTRACE,
// kept for as long as the Resolver is used; the host's PID namespace and /proc.
func Open(c Config) (_ *Resolver, err error) {
	r := &Resolver{container: c.Container, first: c.Pid, digests: newDigests(), slots: make(chan struct{}, maxConcurrent)}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	if r.firstFd, err = openProcess(c.Pid, c.Pid); err != nil {
		return nil, fmt.Errorf("open the container's first process %d: %w", c.Pid, err)
	}
	if r.sockets, err = openSockets(c.Netns); err != nil {
		return nil, err
	}
	err = again(func() error {
		r.members, err = openMembers(c.Pid)
		return err
	})
	if err != nil {
		return nil, err
	}
	if r.root, err = openRoot(r.firstFd); err != nil {
		return nil, err
	}
	return r, nil
}

// Close gives back what the Resolver holds. No Resolve may be running.
func (r *Resolver) Close() error {
	var errs []error
	if r.firstFd != nil {
		r.firstFd.close()
	}
	if r.sockets != nil {
		errs = append(errs, r.sockets.close())
	}
	if r.members != nil {
		errs = append(errs, r.members.close())
	}
	if r.root != nil {
		r.root.close()
	}
	return errors.Join(errs...)
}

// Resolve finds who holds the connection from local to remote, as the client sees
// it: remote is what it dialled, before any redirection. There is at least one
// process in the answer, and one for each distinct identity: a socket may be
// shared, as by parent and child between fork and exec. The caller must judge each
// and refuse the connection unless all are allowed.
//
// A file system that the container serves itself may hold a Resolve up for ever.
// At most maxConcurrent run at once; the others wait for patience and then fail.
func (r *Resolver) Resolve(local, remote netip.AddrPort) ([]Process, error) {
	wrap := func(err error) error { return fmt.Errorf("identify %s → %s: %w", local, remote, err) }
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-late.C:
		return nil, wrap(fmt.Errorf("%d others have been running for %s", maxConcurrent, patience))
	}
	var found []Process
	err := again(func() (err error) {
		found, err = r.attempt(local, remote)
		return err
	})
	if err != nil {
		return nil, wrap(err)
	}
	return found, nil
}

// again calls attempt until it returns another error than errChanged or ErrNoHolder, which
// the state that the next attempt sees may not have, at most maxAttempts times.
func again(attempt func() error) (err error) {
	for range maxAttempts {
		if err = attempt(); !errors.Is(err, errChanged) && !errors.Is(err, ErrNoHolder) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func (r *Resolver) attempt(local, remote netip.AddrPort) ([]Process, error) {
	if alive, err := r.firstFd.alive(); err != nil || !alive {
		return nil, errors.Join(ErrEnded, err)
	}
	sock, at, err := r.sockets.find(local, remote)
	if err != nil {
		return nil, err
	}
	holders, pids, err := r.sweeps.find(sock.inode, r.members.list)
	defer func() {
		for _, h := range holders {
			h.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	if len(holders) == 0 {
		return nil, ErrNoHolder
	}
	var found []Process
	for _, h := range holders {
		p, err := r.describe(h, pids)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(found, p.same) {
			found = append(found, p)
		}
	}
	// Still the same socket, held by the same processes, that run the same.
	if err := r.sockets.still(sock, at); err != nil {
		return nil, err
	}
	for _, h := range holders {
		if err := h.unchanged(sock.inode); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// describe tells what a holder runs and who its ancestors are.
func (r *Resolver) describe(h *holder, pids map[int]bool) (Process, error) {
	p := Process{Container: r.container, Pid: h.pid}
	var err error
	if h.exe, err = r.executable(h.process); err != nil {
		return p, err
	}
	p.Binary, p.Digest = h.exe.path, h.exe.digest
	if p.Ancestors, err = r.ancestors(h.process, pids); err != nil {
		return p, err
	}
	p.Cmdline = h.cmdline()
	return p, nil
}

// ancestors follows the parents up to the container's first process. A parent
// outside the container ends the list: that of a process which the runtime's exec
// put in. So does maxAncestors: names only ever grant something.
func (r *Resolver) ancestors(p *process, pids map[int]bool) ([]string, error) {
	var paths []string
	child := p
	defer func() {
		if child != p {
			child.close()
		}
	}()
	for child.pid != r.first && len(paths) < maxAncestors {
		ppid, err := child.parent()
		if err != nil {
			return nil, err
		}
		if !pids[ppid] {
			return paths, nil
		}
		parent, err := openProcess(ppid, ppid)
		if err != nil {
			return nil, err
		}
		// Still its child: so the id has not been given to another meanwhile.
		now, err := child.parent()
		if err == nil && now != ppid {
			err = errChanged
		}
		if child != p {
			child.close()
		}
		child = parent
		if err != nil {
			return nil, err
		}
		exe, err := r.executable(parent)
		if err != nil {
			return nil, fmt.Errorf("ancestor: %w", err)
		}
		paths = append(paths, exe.path)
	}
	return paths, nil
}

// Aliases resolves literal paths of programs in the container's root. For each
// that names a file by another path than its own (a link, or a link among the
// parents, as /bin/bash for /usr/bin/bash), it tells the file's own path. Paths
// that do not exist, are no files or are their own name are left out.
//
// The answer is only as good as the links: ask before the workload can change them.
// Before the container has its root there is no answer.
func (r *Resolver) Aliases(paths []string) map[string][]string {
	aliases := map[string][]string{}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
			continue
		}
		if own, err := r.root.canonical(p); err == nil && own != p {
			aliases[p] = []string{own}
		}
	}
	return aliases
}

// gone turns the errors that /proc gives for a process that has ended into
// errChanged.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return errChanged
	}
	return err
}
