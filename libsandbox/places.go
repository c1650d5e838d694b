// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/plan"
)

// place is where a file is: a file system and the path from its root. A file has the same
// place through every bind mount.
type place struct {
	dev  uint64
	path string
}

// below reports whether p is at another place, or below it.
func (p place) below(at place) bool { return p.dev == at.dev && pathname.Below(p.path, at.path) }

// hostMounts is the mount table of this thread's mount namespace, in which the engine runs as
// well, and the places of the engines' folders in it.
type hostMounts struct {
	byID    map[int]*mountinfo.Info
	list    []*mountinfo.Info
	engines []engineFolder
	// places caches the results of placeOf.
	places map[string]place
}

// guardedFolder is a folder of this program that no sandbox gets.
type guardedFolder struct {
	path string
	// setting is the flag or the field of the operator's configuration that names the
	// folder.
	setting string
}

// engineFolder is a plan.EngineFolder or a guarded folder, and its place on this machine.
type engineFolder struct {
	plan.EngineFolder
	at place
	// setting is guardedFolder.setting, or "".
	setting string
}

// String returns the path and, for a guarded folder, how the operator can move it.
func (e engineFolder) String() string {
	if e.setting == "" {
		return e.Path
	}
	return fmt.Sprintf("%s, the folder of the operator's %s, which can be set to a folder elsewhere", e.Path, e.setting)
}

// readHostMounts reads the mount table. guarded are folders that no sandbox gets, in
// addition to plan.EngineFolders.
func readHostMounts(guarded []guardedFolder) (*hostMounts, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	defer f.Close()
	h := &hostMounts{byID: map[int]*mountinfo.Info{}, places: map[string]place{}}
	if h.list, err = mountinfo.GetMountsFromReader(f, nil); err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	for _, m := range h.list {
		h.byID[m.ID] = m
	}
	for _, e := range plan.EngineFolders {
		h.engines = append(h.engines, engineFolder{EngineFolder: e})
	}
	for _, g := range guarded {
		abs, err := filepath.Abs(g.path)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(h.engines, func(e engineFolder) bool { return e.Path == abs }) {
			h.engines = append(h.engines, engineFolder{EngineFolder: plan.EngineFolder{Path: abs}, setting: g.setting})
		}
	}
	for i, e := range h.engines {
		if h.engines[i].at, err = h.placeOf(e.Path); err != nil {
			return nil, fmt.Errorf("look at %s: %w", e.Path, err)
		}
	}
	return h, nil
}

func deviceOf(m *mountinfo.Info) uint64 { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) }

// located describes a file and its place.
type located struct {
	place
	// path is the absolute path without links, in this mount namespace.
	path string
	// mount is the mount through which it was opened.
	mount *mountinfo.Info
	// dev and ino are stat(2)'s: dev differs from place.dev on file systems with
	// several devices, as Btrfs.
	dev, ino    uint64
	dir, socket bool
}

// locate describes an open file.
func (h *hostMounts) locate(fd int) (*located, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return nil, err
	}
	name, err := os.Readlink("/proc/thread-self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	m := h.byID[int(st.Mnt_id)]
	if m == nil || st.Mask&unix.STATX_MNT_ID == 0 || !path.IsAbs(name) || !pathname.Below(name, m.Mountpoint) {
		return nil, errNoPlace
	}
	return &located{
		place: place{deviceOf(m), path.Join(m.Root, strings.TrimPrefix(name, m.Mountpoint))}, path: name, mount: m,
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino,
		dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, socket: st.Mode&unix.S_IFMT == unix.S_IFSOCK,
	}, nil
}

// errNoPlace is the error for a file that is in no mount of the table: it was deleted, or is
// in another namespace.
var errNoPlace = errors.New("it is in no mount of this machine")

// placeOf returns the place of the file at an absolute path. The file need not exist.
func (h *hostMounts) placeOf(name string) (place, error) {
	if p, ok := h.places[name]; ok {
		return p, nil
	}
	p, err := h.findPlace(name)
	if err == nil {
		h.places[name] = p
	}
	return p, err
}

// findPlace is placeOf without the cache.
func (h *hostMounts) findPlace(name string) (place, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && name != "/" {
		p, err := h.placeOf(path.Dir(name))
		return place{p.dev, path.Join(p.path, path.Base(name))}, err
	}
	if err != nil {
		return place{}, err
	}
	defer unix.Close(fd)
	l, err := h.locate(fd)
	if err != nil {
		return place{}, err
	}
	return l.place, nil
}

// kernelMounts are types of file systems that show or change the kernel, and
// deviceMounts those that hold the host's devices, wherever they are mounted.
var (
	kernelMounts = []string{
		"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "efivarfs", "pstore", "bpf", "binfmt_misc", "selinuxfs", "nsfs",
		"fusectl",
	}
	deviceMounts = []string{"devtmpfs", "devpts"}
)

// hostDev is the host's folder of devices. A container gets single devices of it, the
// folders in Gives, and folders that a CDI specification names.
var hostDev = plan.EngineFolder{Path: "/dev", Gives: []string{"shm/**", "hugepages/**", "mqueue/**"}}

// leadsOut returns the reason why a mount of l gives the sandbox control of the host, or
// "".
func (h *hostMounts) leadsOut(l *located) string {
	if why := h.placeLeadsOut(l); why != "" {
		return why
	}
	if l.dir && l.path != "/" && hostDev.Holds(l.path, hostDev.Path) && !cdiNames(l) {
		return hostDevices
	}
	if why := plan.LeadsOut(l.path); why != "" {
		return why
	}
	for _, e := range h.engines {
		if e.Holds(l.path, e.Path) {
			return "at, above or in " + e.String()
		}
	}
	return ""
}

// hostDevices is a reason of leadsOut.
const hostDevices = "a folder of the host's devices"

// placeLeadsOut is leadsOut without the path of l: it judges only the file system and the
// place in it.
func (h *hostMounts) placeLeadsOut(l *located) string {
	if slices.Contains(kernelMounts, l.mount.FSType) {
		return "part of the kernel's file system " + l.mount.FSType
	}
	if l.dir && slices.Contains(deviceMounts, l.mount.FSType) && !cdiNames(l) {
		return hostDevices
	}
	if plan.IsState(l.place.path) {
		return "the state of sandboxes"
	}
	for _, e := range h.engines {
		if l.place.dev == e.at.dev && e.Holds(l.place.path, e.at.path) {
			return "at, above or in " + e.String()
		}
	}
	return ""
}

// mountsBelow returns the mounts that a recursive bind mount of a folder includes.
func (h *hostMounts) mountsBelow(folder string) (out []*located) {
	for _, m := range h.list {
		if m.Mountpoint == folder || !pathname.Below(m.Mountpoint, folder) {
			continue
		}
		st, err := os.Lstat(m.Mountpoint)
		out = append(out, &located{
			place: place{deviceOf(m), m.Root}, path: m.Mountpoint, mount: m, dir: err != nil || st.IsDir(),
			socket: err == nil && st.Mode()&os.ModeSocket != 0,
		})
	}
	return out
}
