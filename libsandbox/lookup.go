// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/landlock"
)

// Statuses of a command that cannot be started, as shells and engines have them.
const (
	StatusNotFound      = 127
	StatusNotExecutable = 126
)

// ProgramError is the error for a command that cannot be started in the container.
type ProgramError struct {
	// Status is StatusNotFound or StatusNotExecutable.
	Status int
	text   string
}

func (e *ProgramError) Error() string {
	return "unable to start container process: error during container init: exec: " + e.text
}

// lookUp finds the program of p in the root of the container's process pid and
// fails with runc's texts, which engines match (`exec: "x": executable file not
// found in $PATH` becomes exit status 127). Without it a missing program would
// show only after start, from launch.
func lookUp(pid int, p *specs.Process) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	name := p.Args[0]
	if strings.Contains(name, "/") {
		full := name
		if !strings.HasPrefix(name, "/") {
			full = path.Join("/", p.Cwd, name)
		}
		return failed(name, executable(root, full))
	}
	list := ""
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			list = v
		}
	}
	denied := false
	for dir := range strings.SplitSeq(list, ":") {
		if !strings.HasPrefix(dir, "/") {
			dir = path.Join("/", p.Cwd, dir)
		}
		err := executable(root, path.Join(dir, name))
		if err == nil {
			return nil
		}
		denied = denied || errors.Is(err, unix.EACCES)
	}
	if denied {
		return failed(name, unix.EACCES)
	}
	return &ProgramError{StatusNotFound, fmt.Sprintf("%q: executable file not found in $PATH", name)}
}

func failed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EACCES):
		return &ProgramError{StatusNotExecutable, fmt.Sprintf("%q: permission denied", name)}
	}
	return &ProgramError{StatusNotFound, fmt.Sprintf("%q: stat %s: %v", name, name, err)}
}

// executable opens file below root, where every link stays below root too
// (openat2(2), RESOLVE_IN_ROOT), and looks at its mode.
func executable(root int, file string) error {
	fd, err := unix.Openat2(root, file, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// pin ties the rules of r to the files they name now, before anything of the
// image has run, for every exec to come: a workload that swaps a path for a link
// moves no right. Paths that name nothing give nothing later either: missing are those of
// the policy. A writable path that an image has made a link to its whole root, or into
// /proc, is refused.
func pin(pid int, r *landlock.Ruleset) (missing []string, err error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	var top unix.Stat_t
	if err := unix.Fstat(root, &top); err != nil {
		return nil, fmt.Errorf("look at the container's root: %w", err)
	}
	var pinned []landlock.Rule
	for _, rule := range r.Rules {
		resolve := uint64(unix.RESOLVE_IN_ROOT)
		if rule.Origin == landlock.OriginBaseline {
			resolve |= unix.RESOLVE_NO_SYMLINKS
		}
		fd, err := unix.Openat2(root, rule.Path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
		if err != nil {
			if rule.Origin == landlock.OriginPolicy {
				missing = append(missing, rule.Path)
			}
			continue
		}
		var st unix.Stat_t
		var fs unix.Statfs_t
		err = errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs), unix.Close(fd))
		if err != nil {
			return nil, fmt.Errorf("look at %s in the container: %w", rule.Path, err)
		}
		if st.Dev == top.Dev && st.Ino == top.Ino && rule.Access&^landlock.ReadOnly != 0 && path.Clean(rule.Path) != "/" {
			return nil, fmt.Errorf("filesystem_policy: read_write path %s is a link to the container's root", rule.Path)
		}
		if fs.Type == unix.PROC_SUPER_MAGIC && rule.Access&^landlock.ReadOnly != 0 && !pathname.Below(path.Clean(rule.Path), "/proc") && path.Clean(rule.Path) != "/" {
			return nil, fmt.Errorf("filesystem_policy: read_write path %s is a link into the container's /proc", rule.Path)
		}
		rule.Dev, rule.Ino = st.Dev, st.Ino
		pinned = append(pinned, rule)
	}
	r.Rules = pinned
	return missing, nil
}
