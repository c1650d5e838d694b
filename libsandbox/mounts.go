// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/plan"
)

// Fields of config.json, as the operator names them under allow.
const (
	fieldMounts = "mounts"
	fieldRoot   = "root.path"
)

// source is a file or folder of the host that a container gets, opened and judged.
// It stays open until the container's mounts are made, so that no other file can get
// its inode's number.
type source struct {
	located
	// index is the mount's place in config.json, rootIndex for the root file system.
	index int
	name  string
	// file is nil if the source could not be opened.
	file *os.File
	// below are the mounts below the folder, if the container gets them, too.
	below []*located
}

const rootIndex = -1

// shows reports whether the file at p can be seen in a mount of s.
func (s *source) shows(p place) bool {
	return p.below(s.place) || slices.ContainsFunc(s.below, func(l *located) bool { return p.below(l.place) })
}

// mountSources are the judged sources of a container.
type mountSources struct {
	list []*source
	// sockets are live sockets in mounted folders that are no engine's or agent's:
	// mounts[N]: PATH.
	sockets []string
	// warnings are for the person who makes the sandbox.
	warnings []string
}

// checkMounts opens the root file system and the source of each bind mount and
// refuses a source that gives the sandbox control of the host. Package plan judges only
// the text of config.json, which does not show links, bind mounts and paths below the
// bundle. guarded are folders that no sandbox gets, beside the engines'. The caller
// closes the result when the container's mounts are made.
func checkMounts(spec *specs.Spec, allow, guarded []string) (*mountSources, error) {
	if err := needsProc(spec); err != nil {
		return nil, err
	}
	checked := &mountSources{}
	host, err := readHostMounts(guarded)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(allow, fieldRoot) {
		err = checked.add(host, rootIndex, spec.Root.Path, false)
	}
	for i, m := range spec.Mounts {
		if err == nil && plan.IsBind(m) && !slices.Contains(allow, fieldMounts) {
			err = checked.add(host, i, m.Source, slices.Contains(m.Options, "rbind"))
		}
	}
	if err == nil {
		err = checked.findSockets(host, spec)
	}
	if err != nil {
		checked.close()
		return nil, err
	}
	return checked, nil
}

// needsProc fails unless the kernel's own proc is mounted at /proc: the runtime starts
// launch by a path below /proc/self/fd, where an image could have another program.
func needsProc(spec *specs.Spec) error {
	if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return filepath.Clean(m.Destination) == "/proc" && (m.Type == "proc" || filepath.Clean(m.Source) == "/proc")
	}) {
		return errors.New("config.json: mounts: none is a proc at /proc, and a sandbox cannot be confined without: add it")
	}
	return nil
}

// add opens and judges one source. A relative one begins at the bundle, where the
// runtime is by now.
func (c *mountSources) add(host *hostMounts, index int, name string, recursive bool) error {
	// The path is opened as it is written: cleaned, LINK/.. would lead elsewhere.
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLOEXEC)
	s := &source{index: index, name: name}
	c.list = append(c.list, s)
	if err != nil {
		return nil // libcontainer reports it as runc does; verify refuses a file that appears later
	}
	s.file = os.NewFile(uintptr(fd), name)
	l, err := host.locate(fd)
	if err != nil {
		return s.refusal("%s cannot be judged: %v", name, err)
	}
	s.located = *l
	if index == rootIndex {
		return s.judgeRoot(host, name)
	}
	if l.socket {
		return s.refusal("gives the sandbox the socket %s, which leads out of it", name)
	}
	if why := host.leadsOut(l); why != "" {
		return s.refusal("gives the sandbox %s, which is %s (%s) and leads out of it", name, l.path, why)
	}
	if recursive && l.dir {
		s.below = host.mountsBelow(l.path)
	}
	for _, b := range s.below {
		if why := host.leadsOut(b); why != "" || b.socket {
			return s.refusal("gives the sandbox %s, below which %s is mounted (%s), which leads out of it", name, b.path, why)
		}
	}
	return nil
}

// judgeRoot refuses a root file system that is the host's or holds an engine's
// folder. Engines keep root file systems in their folders.
func (s *source) judgeRoot(host *hostMounts, name string) error {
	for _, e := range host.engines {
		if pathBelow(e.Path, s.path) || e.at.below(s.place) {
			return s.refusal("%s holds %s, which leads out of the sandbox", name, e.Path)
		}
	}
	if slices.Contains(kernelMounts, s.mount.FSType) {
		return s.refusal("%s is part of the kernel's file system %s", name, s.mount.FSType)
	}
	return nil
}

// refusal returns the refusal of s. The reason follows the mount's number.
func (s *source) refusal(format string, args ...any) error {
	if s.index == rootIndex {
		return &plan.Refusal{Field: fieldRoot, Reason: fmt.Sprintf(format, args...)}
	}
	return &plan.Refusal{Field: fieldMounts, Reason: fmt.Sprintf("mounts[%d] ", s.index) + fmt.Sprintf(format, args...)}
}

// maxNamed bounds the sockets that a warning names.
const maxNamed = 5

// findSockets refuses folders in which an engine or an agent listens, and keeps the
// other live sockets in c. It does not see sockets of other network namespaces.
func (c *mountSources) findSockets(host *hostMounts, spec *specs.Spec) error {
	search := &socketSearch{host: host, devices: map[uint64]bool{}, folders: map[string]*located{}}
	var folders []*source
	for _, s := range c.list {
		if s.index == rootIndex || !s.dir {
			continue
		}
		folders = append(folders, s)
		search.devices[s.place.dev] = true
		for _, b := range s.below {
			search.devices[b.place.dev] = true
		}
		name := knownSocket(s)
		if name == "" {
			name = namedAgent(s, spec)
		}
		if name != "" {
			return s.listens(path.Join(s.path, name), name)
		}
	}
	if len(folders) == 0 {
		return nil
	}
	list, err := boundSockets()
	if err != nil {
		c.warnings = append(c.warnings, fmt.Sprintf("live sockets in mounted folders are not looked for: %v", err))
		return nil
	}
	var refused error
	search.find(list, folders, func(s *source, socket string) {
		if host.isEngineSocket(socket) {
			refused = cmp.Or(refused, s.listens(socket, strings.TrimPrefix(strings.TrimPrefix(socket, s.path), "/")))
			return
		}
		c.sockets = append(c.sockets, fmt.Sprintf("mounts[%d]: %s", s.index, socket))
	})
	if n := len(c.sockets); n > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%d programs of the host listen in mounted folders (%s)", n, someOf(c.sockets)))
	}
	if n := len(search.lost); n > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%d sockets on the file systems of mounted folders cannot be located (%s): they may lie in one", n, someOf(search.lost)))
	}
	return refused
}

// someOf returns the first maxNamed names as text.
func someOf(names []string) string {
	return fmt.Sprintf("%q", names[:min(len(names), maxNamed)])
}

// listens returns the refusal of s for a socket; inside is its path below s.
func (s *source) listens(socket, inside string) error {
	return s.refusal("gives the sandbox %s, where an engine, a bus or a key agent listens at %s (%s): it would act for the sandbox", s.name, socket, inside)
}

// isEngineSocket reports whether a socket is an engine's, by its name or its folder.
func (h *hostMounts) isEngineSocket(socket string) bool {
	return plan.IsEngineSocket(socket) || slices.ContainsFunc(h.engines, func(e engineFolder) bool { return e.Holds(socket, e.Path) })
}

// namedAgent returns the socket in s that SSH_AUTH_SOCK names, or "".
func namedAgent(s *source, spec *specs.Spec) string {
	for _, e := range spec.Process.Env {
		v, ok := strings.CutPrefix(e, "SSH_AUTH_SOCK=")
		if !ok {
			continue
		}
		inside, ok := strings.CutPrefix(path.Clean("/"+v), path.Clean("/"+spec.Mounts[s.index].Destination)+"/")
		if !ok {
			continue
		}
		if _, ok := isSocket(int(s.file.Fd()), inside); ok {
			return inside
		}
	}
	return ""
}

// verify fails if the container's process pid has another file than the judged one
// at a mount's destination: the source was swapped before libcontainer opened it.
// spec is the container's own, with the mounts that the sandbox adds.
func (c *mountSources) verify(pid int, spec *specs.Spec) error {
	if len(c.list) == 0 {
		return nil
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	for _, s := range c.list {
		if s.file == nil {
			return s.refusal("%s appeared while the container was made", s.name)
		}
		at := "/"
		if s.index != rootIndex {
			at = path.Clean("/" + spec.Mounts[s.index].Destination)
			if covered(at, spec.Mounts[s.index+1:], spec.Linux.MaskedPaths) {
				continue
			}
		}
		fd, err := unix.Openat2(root, at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			return s.refusal("cannot be found at %s in the container: %v", at, err)
		}
		var st unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &st), unix.Close(fd)); err != nil {
			return fmt.Errorf("look at %s in the container: %w", at, err)
		}
		if !c.judged(st.Dev, st.Ino) {
			return s.refusal("%s was swapped for another file while the container was made", s.name)
		}
	}
	return nil
}

// covered reports whether a later mount or mask hides the destination at.
func covered(at string, later []specs.Mount, masked []string) bool {
	return slices.ContainsFunc(later, func(m specs.Mount) bool { return pathBelow(at, path.Clean("/"+m.Destination)) }) ||
		slices.ContainsFunc(masked, func(p string) bool { return pathBelow(at, path.Clean("/"+p)) })
}

// judged reports whether a file is one of the sources. It may be another mount's: a
// destination can be a link to the destination of a later mount.
func (c *mountSources) judged(dev, ino uint64) bool {
	return slices.ContainsFunc(c.list, func(s *source) bool { return s.located.dev == dev && s.ino == ino })
}

// close closes the sources.
func (c *mountSources) close() {
	for _, s := range c.list {
		if s.file != nil {
			_ = s.file.Close()
		}
	}
}
