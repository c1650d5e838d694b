// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/landlock"
)

// pinPaths ties each rule of r to the file that its path names now, in the root of the
// container's process pid, before any program of the image has run. Every later exec
// gives rights to these files only, so a workload that replaces a path by a link gains
// nothing. A rule whose path does not exist is removed, and gives no rights later either.
// missing has the removed paths that the policy lists. A writable path that the image has
// made a link to its whole root, or into /proc, is an error.
func pinPaths(pid int, r *landlock.Ruleset) (missing []string, err error) {
	root, err := openRoot(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var top unix.Stat_t
	if err := unix.Fstat(root, &top); err != nil {
		return nil, fmt.Errorf("look at the container's root: %w", err)
	}
	var pinned []landlock.Rule
	for _, rule := range r.Rules {
		found, err := pinPath(root, &top, &rule)
		if err != nil {
			return nil, err
		}
		if found {
			pinned = append(pinned, rule)
		} else if rule.Origin == landlock.OriginPolicy {
			missing = append(missing, rule.Path)
		}
	}
	r.Rules = pinned
	return missing, nil
}

// pinPath ties one rule to its file. It returns false if there is none. top describes the
// root.
func pinPath(root int, top *unix.Stat_t, rule *landlock.Rule) (found bool, err error) {
	resolve := uint64(unix.RESOLVE_IN_ROOT)
	if rule.Origin == landlock.OriginBaseline {
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	fd, err := unix.Openat2(root, rule.Path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return false, nil //nolint:nilerr // a path that cannot be opened gives no rights
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs), unix.Close(fd)); err != nil {
		return false, fmt.Errorf("look at %s in the container: %w", rule.Path, err)
	}
	at, writable := path.Clean(rule.Path), rule.Access&^landlock.ReadOnly != 0
	if writable && at != "/" && st.Dev == top.Dev && st.Ino == top.Ino {
		return false, fmt.Errorf("filesystem_policy: read_write path %s is a link to the container's root", rule.Path)
	}
	if writable && at != "/" && fs.Type == unix.PROC_SUPER_MAGIC && !pathname.Below(at, "/proc") {
		return false, fmt.Errorf("filesystem_policy: read_write path %s is a link into the container's /proc", rule.Path)
	}
	rule.Dev, rule.Ino = st.Dev, st.Ino
	return true, nil
}
