// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// hierarchy is a line of /proc/PID/cgroup, see cgroups(7): the place of a process
// in one hierarchy. Version 2 has no controllers in its line.
type hierarchy struct {
	controllers string
	path        string
}

// parseHierarchies reads /proc/PID/cgroup, the most telling hierarchy first:
// version 2, then systemd's, which tracks processes and nothing else, then those
// of controllers that every engine sets.
func parseHierarchies(b []byte) ([]hierarchy, error) {
	var hs []hierarchy
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			return nil, fmt.Errorf("line %q is not ID:CONTROLLERS:/PATH", line)
		}
		hs = append(hs, hierarchy{fields[1], fields[2]})
	}
	rank := func(h hierarchy) int {
		i := slices.Index([]string{"", "name=systemd", "pids", "memory", "devices", "freezer"}, h.controllers)
		if i < 0 {
			return len(hs) + 6
		}
		return i
	}
	slices.SortStableFunc(hs, func(a, b hierarchy) int { return rank(a) - rank(b) })
	return hs, nil
}

// below says whether path is dir or under it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// cgroup is an open directory of a cgroup.
type cgroup struct {
	dir  int
	path string
}

// openCgroup opens the container's cgroup in the first hierarchy in which it has
// one that the proxy is not in. nil without an error: there is none.
func openCgroup(pid int) (*cgroup, error) {
	theirs, err := hierarchiesOf(strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	own, err := hierarchiesOf("self")
	if err != nil {
		return nil, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroup mounts: %w", err)
	}
	for _, h := range theirs {
		shared := slices.ContainsFunc(own, func(o hierarchy) bool {
			return o.controllers == h.controllers && below(o.path, h.path)
		})
		// Paths out of the proxy's cgroup namespace begin with "/..".
		if shared || h.path == "/" || below(h.path, "/..") {
			continue
		}
		for _, m := range mounts {
			if !h.mountedAt(m) || !below(h.path, m.Root) {
				continue
			}
			path := filepath.Join(m.Mountpoint, strings.TrimPrefix(h.path, strings.TrimSuffix(m.Root, "/")))
			dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			c := &cgroup{dir, path}
			pids := map[int]bool{}
			if err := c.list(pids); err == nil && pids[pid] {
				return c, nil
			}
			c.close()
		}
	}
	return nil, nil
}

func hierarchiesOf(pid string) ([]hierarchy, error) {
	path := "/proc/" + pid + "/cgroup"
	b, err := readAt(unix.AT_FDCWD, path, maxProcFile)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	hs, err := parseHierarchies(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return hs, nil
}

// mountedAt says whether m is a mount of the hierarchy.
func (h hierarchy) mountedAt(m *mountinfo.Info) bool {
	if h.controllers == "" {
		return m.FSType == "cgroup2"
	}
	have := strings.Split(m.VFSOptions, ",")
	for c := range strings.SplitSeq(h.controllers, ",") {
		if !slices.Contains(have, c) {
			return false
		}
	}
	return m.FSType == "cgroup"
}

func (c *cgroup) close() { _ = unix.Close(c.dir) }

// list adds the processes of the cgroup and of those below it.
func (c *cgroup) list(pids map[int]bool) error {
	if err := listCgroup(c.dir, pids, 0); err != nil {
		return fmt.Errorf("list processes of cgroup %s: %w", c.path, err)
	}
	return nil
}

func listCgroup(dir int, pids map[int]bool, depth int) error {
	if depth > maxCgroupDepth {
		return fmt.Errorf("cgroups nested deeper than %d", maxCgroupDepth)
	}
	const perLine = 12
	b, err := readAt(dir, "cgroup.procs", maxProcesses*perLine)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && depth > 0:
		// A threaded cgroup: its processes are listed in the one above.
	case err != nil:
		return err
	default:
		if err := parsePids(b, pids); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if st.Nlink == 2 { // no directories in it
		return nil
	}
	return eachDir(dir, func(sub int) error { return listCgroup(sub, pids, depth+1) })
}

// parsePids adds the ids in a cgroup.procs file to pids.
func parsePids(b []byte, pids map[int]bool) error {
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 32)
		if err != nil || pid < 0 {
			return fmt.Errorf("%q is no process id", line)
		}
		if pid == 0 { // it ended while the list was read, or belongs to another PID namespace
			return fmt.Errorf("%w: one has no id in the proxy's PID namespace, which must be the host's", errChanged)
		}
		if pids[int(pid)] = true; len(pids) > maxProcesses {
			return errProcesses
		}
	}
	return nil
}

var errProcesses = fmt.Errorf("more than %d processes", maxProcesses)

// eachDir opens each directory in dir, leaving out those that vanish.
func eachDir(dir int, f func(int) error) error {
	names, err := list(dir, ".") // opened anew: others may be reading this one
	if err != nil {
		return err
	}
	for _, name := range names {
		sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		err = f(sub)
		_ = unix.Close(sub)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// list lists the directory at path, below dir.
func list(dir int, path string) ([]string, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readNames(fd)
}

// readNames reads an open directory from where it stands: once after opening.
func readNames(dir int) ([]string, error) {
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
		if len(names) > maxDescriptors {
			return nil, fmt.Errorf("more than %d entries", maxDescriptors)
		}
	}
}
