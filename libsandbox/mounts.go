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

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/plan"
)

// Fields of config.json, as the operator names them under allow.
const (
	fieldMounts = "mounts"
	fieldRoot   = "root.path"
)

// source is a file or folder of the host that a container gets, opened and judged. It stays
// open until the container has its mounts, so that no other file can get the number of its
// inode.
type source struct {
	located
	// index is the mount's place in config.json, rootIndex for the root file system.
	index int
	name  string
	// file is nil if the source could not be opened.
	file *os.File
	// below are the mounts below the folder, if the container gets them as well.
	below []*located
	// hidden are absolute paths on the host, below the folder, that the container does
	// not see: other mounts of config.json cover them. Only the root file system has them.
	hidden []string
}

const rootIndex = -1

// shows reports whether the file at p can be seen in a mount of s.
func (s *source) shows(p place) bool {
	return s.showsIn(&s.located, p) || slices.ContainsFunc(s.below, func(l *located) bool { return s.showsIn(l, p) })
}

// showsIn reports whether the file at p can be seen in l, which is s or a mount below s.
func (s *source) showsIn(l *located, p place) bool {
	return p.below(l.place) && !s.hides(path.Join(l.path, strings.TrimPrefix(p.path, l.place.path)))
}

// hides reports whether the file at an absolute path of the host is hidden in s.
func (s *source) hides(name string) bool {
	return slices.ContainsFunc(s.hidden, func(h string) bool { return pathname.Below(name, h) })
}

// mountSources are the judged sources of a container.
type mountSources struct {
	list []*source
	// allow are the fields whose refusals the operator accepts.
	allow []string
	// accepted are the refusals that allow turned off, as FIELD: REASON, one for each mount.
	accepted []string
	// sockets are live sockets in mounted folders, as mounts[N]: PATH. A socket of an engine
	// or an agent is among them only if the operator accepts it.
	sockets []string
	// warnings are for the user who makes the sandbox.
	warnings []string
}

// checkMountSources opens the root file system and the source of each bind mount, and
// refuses a source that gives the sandbox control of the host. Package plan judges only the
// text of config.json, which does not show where links and bind mounts lead, and where
// relative paths are. guarded are folders that no sandbox gets, in addition to the engines'.
// The caller closes the result when the container has its mounts.
func checkMountSources(spec *specs.Spec, allow []string, guarded []guardedFolder) (*mountSources, error) {
	if err := needsProc(spec); err != nil {
		return nil, err
	}
	checked := &mountSources{allow: allow}
	host, err := readHostMounts(guarded)
	if err != nil {
		return nil, err
	}
	err = checked.judge(checked.addRoot(host, spec))
	for i, m := range spec.Mounts {
		if err == nil && plan.IsBind(m) {
			err = checked.judge(checked.add(host, i, m.Source, slices.Contains(m.Options, "rbind")))
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

// judge returns err, or nil if err is a refusal that the operator accepts.
func (c *mountSources) judge(err error) error {
	var r *plan.Refusal
	if !errors.As(err, &r) || !slices.Contains(c.allow, r.Field) {
		return err
	}
	c.accepted = accept(c.accepted, r.Field+": "+r.Reason)
	return nil
}

// addAccepted adds the refusals that the operator accepts to those of pl.
func (c *mountSources) addAccepted(pl *plan.Plan) {
	for _, a := range c.accepted {
		pl.Accepted = accept(pl.Accepted, a)
	}
}

// accept adds an accepted refusal to list, unless list has one of the same mount or root
// file system.
func accept(list []string, refusal string) []string {
	if slices.ContainsFunc(list, func(a string) bool { return subject(a) == subject(refusal) }) {
		return list
	}
	return append(list, refusal)
}

// subject returns the mount, mounts[N], or the other field that a refusal is about.
func subject(refusal string) string {
	field, reason, _ := strings.Cut(refusal, ": ")
	if field == fieldMounts {
		field, _, _ = strings.Cut(reason, " ")
	}
	return field
}

// needsProc returns an error unless the kernel's own proc is mounted at /proc. The runtime
// starts launch by a path below /proc/self/fd, where an image without a proc could have
// another program.
func needsProc(spec *specs.Spec) error {
	if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return filepath.Clean(m.Destination) == "/proc" && (m.Type == "proc" || filepath.Clean(m.Source) == "/proc")
	}) {
		return errors.New("config.json: mounts: no proc is mounted at /proc, and a sandbox cannot be confined without it: add it")
	}
	return nil
}

// open opens and locates one source. A relative name begins at the bundle, which is the
// working directory. The result is nil if there is no file at name.
func (c *mountSources) open(host *hostMounts, index int, name string) (*source, error) {
	// The path is opened as it is written. Cleaned, LINK/.. would be another folder.
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLOEXEC)
	s := &source{index: index, name: name}
	c.list = append(c.list, s)
	if err != nil {
		return nil, nil //nolint:nilerr // libcontainer reports it with runc's text; verify refuses a file that appears later
	}
	s.file = os.NewFile(uintptr(fd), name)
	l, err := host.locate(fd)
	if err != nil {
		return nil, s.refusal("%s cannot be judged: %v", name, err)
	}
	s.located = *l
	return s, nil
}

// add opens and judges the source of a bind mount.
func (c *mountSources) add(host *hostMounts, index int, name string, recursive bool) error {
	s, err := c.open(host, index, name)
	if s == nil {
		return err
	}
	if recursive && s.dir {
		s.below = host.mountsBelow(s.path)
	}
	if s.socket {
		return s.refusal("gives the sandbox the socket %s, which leads out of it", name)
	}
	if why := host.leadsOut(&s.located); why != "" {
		return s.refusal("gives the sandbox %s, which is %s (%s) and leads out of it", name, s.path, why)
	}
	return s.judgeBelow(host.leadsOut)
}

// addRoot opens and judges the root file system. libcontainer binds it recursively, so the
// container also gets the mounts below it, unless config.json covers them.
func (c *mountSources) addRoot(host *hostMounts, spec *specs.Spec) error {
	s, err := c.open(host, rootIndex, spec.Root.Path)
	if s == nil {
		return err
	}
	s.hidden = hiddenPaths(s.path, spec)
	s.below = slices.DeleteFunc(host.mountsBelow(s.path), func(l *located) bool { return s.hides(l.path) })
	if err := s.judgeRoot(host); err != nil {
		return err
	}
	// Engines keep root file systems in their own folders, so the paths of the mounts
	// below are no reason for a refusal.
	return s.judgeBelow(host.placeLeadsOut)
}

// judgeBelow refuses s if a mount below it leads out of the sandbox. leadsOut returns
// the reason, or "".
func (s *source) judgeBelow(leadsOut func(*located) string) error {
	for _, b := range s.below {
		why := leadsOut(b)
		if b.socket {
			why = "a socket"
		}
		if why != "" {
			return s.refusal("gives the sandbox %s, below which %s is mounted (%s), which leads out of it", s.name, b.path, why)
		}
	}
	return nil
}

// hiddenPaths returns the paths of the host below the root file system that config.json
// covers.
func hiddenPaths(root string, spec *specs.Spec) (out []string) {
	for _, at := range covered(spec.Mounts, spec.Linux.MaskedPaths) {
		// libcontainer strips the root's own path from a destination.
		if !pathname.Below(at, root) {
			out = append(out, path.Join(root, at))
		}
	}
	return out
}

// covered returns the paths in the container that mounts and masks cover. It leaves out
// destinations with .., which may be another path in the container, and mounts that do not
// hide the files under them: tmpcopyup copies the files, and remount only changes flags.
func covered(mounts []specs.Mount, masked []string) (out []string) {
	add := func(destination string) {
		if at := path.Clean("/" + destination); at != "/" && !slices.Contains(strings.Split(destination, "/"), "..") {
			out = append(out, at)
		}
	}
	for _, m := range mounts {
		if !slices.Contains(m.Options, "tmpcopyup") && !slices.Contains(m.Options, "remount") {
			add(m.Destination)
		}
	}
	for _, p := range masked {
		add(p)
	}
	return out
}

// judgeRoot refuses the root file system of the host, and a root file system that has an
// engine's folder in it. A root file system in an engine's folder is accepted: engines keep
// them there.
func (s *source) judgeRoot(host *hostMounts) error {
	for _, e := range host.engines {
		if pathname.Below(e.Path, s.path) || e.at.below(s.place) {
			return s.refusal("%s holds %s, which leads out of the sandbox", s.name, e)
		}
	}
	if slices.Contains(kernelMounts, s.mount.FSType) {
		return s.refusal("%s is part of the kernel's file system %s", s.name, s.mount.FSType)
	}
	return nil
}

// field returns the field of config.json that has s.
func (s *source) field() string {
	if s.index == rootIndex {
		return fieldRoot
	}
	return fieldMounts
}

// label returns the field and, for a mount, its number.
func (s *source) label() string {
	if s.index == rootIndex {
		return fieldRoot
	}
	return fmt.Sprintf("%s[%d]", fieldMounts, s.index)
}

// refusal returns the refusal of s. For a mount, the reason begins with its number.
func (s *source) refusal(format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	if s.index != rootIndex {
		reason = s.label() + " " + reason
	}
	return &plan.Refusal{Field: s.field(), Reason: reason}
}

// findSockets refuses folders in which an engine or an agent listens, and adds the other live
// sockets to c. It does not see sockets of other network namespaces.
func (c *mountSources) findSockets(host *hostMounts, spec *specs.Spec) error {
	search := &socketSearch{host: host, devices: map[uint64]bool{}, folders: map[string]*located{}}
	var folders []*source
	for _, s := range c.list {
		if !s.dir {
			continue
		}
		folders = append(folders, s)
		// A socket that cannot be located, on the disk of the root file system, more likely
		// belongs to a program of the machine than to a listener in the root.
		search.devices[s.place.dev] = search.devices[s.place.dev] || s.index != rootIndex
		for _, b := range s.below {
			search.devices[b.place.dev] = true
		}
		if socket, name := s.usualSocket(spec); name != "" {
			if err := c.judge(s.listens(socket, name)); err != nil {
				return err
			}
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
		if s.isEngineSocket(host, socket) {
			err := c.judge(s.listens(socket, strings.TrimPrefix(strings.TrimPrefix(socket, s.path), "/")))
			if err != nil {
				refused = cmp.Or(refused, err)
				return
			}
		}
		c.sockets = append(c.sockets, fmt.Sprintf("%s: %s", s.label(), socket))
	})
	if n := len(c.sockets); n > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%d programs of the host listen in mounted folders (%s)", n, someOf(c.sockets)))
	}
	if n := len(search.lost); n > 0 {
		var names []string
		for _, b := range search.lost {
			names = append(names, b.name)
		}
		c.warnings = append(c.warnings, fmt.Sprintf("%d programs of the host listen at sockets that cannot be located (%s) and may lie in a mounted folder; ss -lxp shows the programs, and an absolute path in their configuration makes the sockets known", n, someOf(names)))
	}
	return refused
}

// usualSocket returns the path of a socket at one of the usual places of engines and agents in
// s, or in a mount below it, and its path below s, or "". The socket need not be live. The
// root file system itself is left out, because an image may have the file of a socket that
// was once live.
func (s *source) usualSocket(spec *specs.Spec) (socket, inside string) {
	if s.index != rootIndex {
		name := cmp.Or(knownSocket(s.mount, int(s.file.Fd()), ""), namedAgent(s, spec))
		if name != "" {
			return path.Join(s.path, name), name
		}
	}
	for _, b := range s.below {
		if name := knownSocket(b.mount, unix.AT_FDCWD, b.path); name != "" && !s.hides(name) {
			return name, strings.TrimPrefix(name, s.path+"/")
		}
	}
	return "", ""
}

// maxNamed bounds the sockets that a warning names.
const maxNamed = 5

// someOf returns the first maxNamed names as text.
func someOf(names []string) string {
	return fmt.Sprintf("%q", names[:min(len(names), maxNamed)])
}

// listens returns the refusal of s for a socket; inside is its path below s.
func (s *source) listens(socket, inside string) error {
	return s.refusal("gives the sandbox %s, where an engine, a bus or a key agent listens at %s (%s): it would act for the sandbox", s.name, socket, inside)
}

// isEngineSocket reports whether a socket that s shows is an engine's, by its name or
// its folder. The folder of the root file system itself may be an engine's.
func (s *source) isEngineSocket(host *hostMounts, socket string) bool {
	if s.index == rootIndex && pathname.Below(socket, s.path) {
		return plan.IsEngineSocket(socket)
	}
	return plan.IsEngineSocket(socket) || slices.ContainsFunc(host.engines, func(e engineFolder) bool { return e.Holds(socket, e.Path) })
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

// verify returns an error if the container's process pid has another file than the judged one
// at the destination of a mount: the source was replaced before libcontainer opened it. It
// skips fields that the operator accepts. spec is the container's own, with the mounts that
// the sandbox adds.
func (c *mountSources) verify(pid int, spec *specs.Spec) error {
	if len(c.list) == 0 {
		return nil
	}
	root, err := openRoot(pid)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, s := range c.list {
		if slices.Contains(c.allow, s.field()) {
			continue
		}
		if s.file == nil {
			return s.refusal("%s appeared while the container was made", s.name)
		}
		at := "/"
		if s.index != rootIndex {
			at = path.Clean("/" + spec.Mounts[s.index].Destination)
			hidden := covered(spec.Mounts[s.index+1:], spec.Linux.MaskedPaths)
			if slices.ContainsFunc(hidden, func(h string) bool { return pathname.Below(at, h) }) {
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

// judged reports whether a file is one of the sources. It may be the source of another mount,
// because a destination can be a link to the destination of a later mount.
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
