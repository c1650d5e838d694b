// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// members tells the processes of the container: those in its cgroup, those in its
// PID namespace, or both.
//
// The cgroup is preferred: a process cannot leave it without rights over cgroups
// outside the container, those put in by exec are in it, and it is listed without
// a walk through the host's processes. The PID namespace is used where the
// container has no cgroup of its own, and added where the cgroup does not hold the
// whole namespace (systemd as first process moves itself and others between
// cgroups below the container's; a Resolver opened later sees only its own).
//
// Listing too many is safe, as every holder of a socket must be allowed. Listing
// too few is not.
type members struct {
	cgroup *cgroup
	pidns  *pidns
}

func openMembers(pid int) (*members, error) {
	m := &members{}
	var err error
	if m.cgroup, err = openCgroup(pid); err != nil {
		return nil, err
	}
	ns, err := openPidns(pid)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	if ns == nil && m.cgroup == nil {
		return nil, errors.New("the container has neither a cgroup nor a PID namespace of its own")
	}
	if m.cgroup == nil {
		m.pidns = ns
		return m, nil
	}
	if ns == nil {
		return m, nil
	}
	inNs, inCgroup := map[int]bool{}, map[int]bool{}
	if err := errors.Join(ns.list(inNs), m.cgroup.list(inCgroup)); err != nil {
		return nil, errors.Join(err, m.close())
	}
	for pid := range inNs {
		if !inCgroup[pid] {
			m.pidns = ns
		}
	}
	return m, nil
}

func (m *members) close() error {
	if m.cgroup != nil {
		m.cgroup.close()
	}
	return nil
}

func (m *members) list() (map[int]bool, error) {
	pids := map[int]bool{}
	if m.cgroup != nil {
		if err := m.cgroup.list(pids); err != nil {
			return nil, err
		}
	}
	if m.pidns != nil {
		if err := m.pidns.list(pids); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// fileKey names a file while it is open or otherwise kept.
type fileKey struct{ dev, ino uint64 }

// pidns is a PID namespace, kept by the container's first process: without that
// one there is no container.
type pidns struct{ id, host fileKey }

// openPidns returns nil where the container is in the proxy's PID namespace.
func openPidns(pid int) (*pidns, error) {
	var st unix.Stat_t
	key := func(path string) (fileKey, error) {
		if err := statLink(unix.AT_FDCWD, path, &st); err != nil {
			return fileKey{}, fmt.Errorf("look at %s: %w", path, err)
		}
		return fileKey{st.Dev, st.Ino}, nil
	}
	host, err := key("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	id, err := key(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil || id == host {
		return nil, err
	}
	return &pidns{id, host}, nil
}

// list adds the processes of the namespace and of those nested in it.
func (ns *pidns) list(pids map[int]bool) error {
	names, err := list(unix.AT_FDCWD, "/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 { // 1 is the first of the proxy's own namespace
			continue
		}
		in, err := ns.contains(pid)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			continue // ended
		}
		if err != nil {
			return fmt.Errorf("look at PID namespace of process %d: %w", pid, err)
		}
		if !in {
			continue
		}
		if pids[pid] = true; len(pids) > maxProcesses {
			return errProcesses
		}
	}
	return nil
}

func (ns *pidns) contains(pid int) (bool, error) {
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/pid", pid)
	if err := statLink(unix.AT_FDCWD, path, &st); err != nil {
		return false, err
	}
	switch (fileKey{st.Dev, st.Ino}) {
	case ns.id:
		return true, nil
	case ns.host:
		return false, nil
	}
	fd, err := openLink(unix.AT_FDCWD, path, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		parent, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		if errors.Is(err, unix.EPERM) {
			return false, nil // above the proxy's own
		}
		if err != nil {
			return false, err
		}
		_ = unix.Close(fd)
		fd = parent
		if err := unix.Fstat(fd, &st); err != nil {
			return false, err
		}
		if (fileKey{st.Dev, st.Ino}) == ns.id {
			return true, nil
		}
	}
}
