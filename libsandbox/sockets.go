// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/plan"
)

// Attributes and flags of linux/unix_diag.h.
const (
	unixDiagName = 0
	unixDiagVFS  = 1
	showName     = 1 << 0
	showVFS      = 1 << 1
)

// accepting are the states, as bits, of sockets that take connections (LISTEN) or
// datagrams (CLOSE, the state of an unconnected one).
const accepting = 1<<10 | 1<<7

// boundSocket is a unix socket that is bound to a file.
type boundSocket struct {
	dev uint64
	// ino is the low half of the inode's number: unix_diag shows no more.
	ino uint32
	// name is the path that was passed to bind(2). It is relative to the working
	// directory and the root of the process at that time.
	name string
	// socket is the number of the socket itself, which /proc/PID/fd shows.
	socket uint32
}

// unixDiagRequest is a struct unix_diag_req.
type unixDiagRequest struct{}

func (unixDiagRequest) Len() int { return 24 }

func (unixDiagRequest) Serialize() []byte {
	b := make([]byte, 24)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], accepting)
	binary.NativeEndian.PutUint32(b[12:], showName|showVFS)
	return b
}

// boundSockets lists the sockets of this thread's network namespace that are bound
// to files and take connections or datagrams, in one dump of unix_diag.
func boundSockets() ([]boundSocket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(unixDiagRequest{})
	var out []boundSocket
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
		if s, ok := parseUnixDiag(msg); ok {
			out = append(out, s)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	return out, nil
}

// parseUnixDiag reads a struct unix_diag_msg and its attributes; false if the socket
// is bound to no file.
func parseUnixDiag(msg []byte) (s boundSocket, ok bool) {
	const header = 16
	if len(msg) < header || msg[0] != unix.AF_UNIX {
		return s, false
	}
	s.socket = binary.NativeEndian.Uint32(msg[4:])
	for msg = msg[header:]; len(msg) >= unix.SizeofNlAttr; {
		size, kind := int(binary.NativeEndian.Uint16(msg)), binary.NativeEndian.Uint16(msg[2:])
		if size < unix.SizeofNlAttr || size > len(msg) {
			return s, false
		}
		value := msg[unix.SizeofNlAttr:size]
		switch {
		case kind == unixDiagName:
			s.name = strings.TrimRight(string(value), "\x00")
		case kind == unixDiagVFS && len(value) >= 8:
			s.ino = binary.NativeEndian.Uint32(value)
			dev := binary.NativeEndian.Uint32(value[4:]) // the kernel's own form: 12 bits and 20
			s.dev, ok = unix.Mkdev(dev>>20, dev&(1<<20-1)), true
		}
		msg = msg[min((size+3)&^3, len(msg)):]
	}
	return s, ok && s.name != "" && s.name[0] != 0
}

// isSocket reports whether the file at name, relative to the folder dir, is a socket, and
// returns the low half of the number of its inode. It does not follow a link in the last
// element.
func isSocket(dir int, name string) (ino uint32, ok bool) {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, false
	}
	return uint32(st.Ino), true
}

// socketSearch finds live sockets in mounted folders. Its cost depends on the number of
// sockets on the file systems of the folders, not on the size of the folders.
type socketSearch struct {
	host *hostMounts
	// devices are the file systems that the folders show. The value says whether a
	// socket on the file system that cannot be located is added to lost.
	devices map[uint64]bool
	// folders are the folders of sockets, by name; nil where there is none.
	folders map[string]*located
	// lost are the sockets on such a file system that cannot be located.
	lost []boundSocket
}

// find calls found for each socket that lies in a folder, with the source and the
// socket's path on the host.
func (s *socketSearch) find(list []boundSocket, sources []*source, found func(*source, string)) {
	for _, b := range list {
		name, ok := s.devices[b.dev]
		if ok && !s.findByPlace(b, sources, found) && !findByName(b, sources, found) && name && !isControlSocket(b) {
			s.lost = append(s.lost, b)
		}
	}
	s.findLost(sources, found)
}

// findLost looks for the lost sockets with relative names, in the working directories of the
// processes that have them open. It does not find the socket of a process that has changed
// its directory since.
func (s *socketSearch) findLost(sources []*source, found func(*source, string)) {
	held := map[uint32][]string{}
	for _, b := range s.lost {
		if !path.IsAbs(b.name) {
			held[b.socket] = nil
		}
	}
	if len(held) == 0 {
		return
	}
	findHolders(held)
	s.lost = slices.DeleteFunc(s.lost, func(b boundSocket) bool {
		return slices.ContainsFunc(held[b.socket], func(folder string) bool {
			at := b
			at.name = path.Join(folder, b.name)
			return s.findByPlace(at, sources, found) || findByName(at, sources, found)
		})
	})
}

// findHolders adds to held, whose keys are the numbers of sockets, the working directories of
// the processes that have them open. It reads the descriptors of all processes of the
// machine, which takes about 10 ms for some hundred processes.
func findHolders(held map[uint32][]string) {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return
	}
	for _, link := range links {
		var socket uint32
		to, err := os.Readlink(link)
		if err != nil {
			continue // the process has ended, or has closed the file
		}
		if n, _ := fmt.Sscanf(to, "socket:[%d]", &socket); n != 1 {
			continue
		}
		folders, wanted := held[socket]
		cwd, err := os.Readlink(path.Join(path.Dir(path.Dir(link)), "cwd"))
		if wanted && err == nil && !slices.Contains(folders, cwd) {
			held[socket] = append(folders, cwd)
		}
	}
}

// isControlSocket reports whether a socket belongs to the guard or the runtime of another
// sandbox. They bind it through a descriptor of the state folder, because the folder's path
// can be too long for an address. That name is no path in this process, and no sandbox can
// mount the state folder.
func isControlSocket(b boundSocket) bool {
	folder, base := path.Split(b.name)
	ok, err := path.Match("/proc/self/fd/*/", folder)
	return err == nil && ok && slices.Contains([]string{proxyapi.ControlSocketFile, proxyapi.SecretsSocketFile, container.NotifySocket}, base)
}

// findByPlace looks for a socket at its name, and reports whether it is there.
func (s *socketSearch) findByPlace(b boundSocket, sources []*source, found func(*source, string)) bool {
	at, p := s.lookUp(b)
	if at == nil {
		return false
	}
	for _, src := range sources {
		if src.shows(p) {
			found(src, path.Join(at.path, path.Base(b.name)))
		}
	}
	return true
}

// findByName looks for a socket in each source with underRoot, and reports whether it is
// in one.
func findByName(b boundSocket, sources []*source, found func(*source, string)) (known bool) {
	for _, src := range sources {
		if inside, ok := underRoot(b, src); ok && !src.hides(path.Join(src.path, inside)) {
			known = true
			found(src, path.Join(src.path, inside))
		}
	}
	return known
}

// lookUp returns the folder and the place of a socket if this process finds it at its
// name. Otherwise it returns nil.
func (s *socketSearch) lookUp(b boundSocket) (*located, place) {
	if !path.IsAbs(b.name) {
		return nil, place{}
	}
	if ino, ok := isSocket(unix.AT_FDCWD, b.name); !ok || ino != b.ino {
		return nil, place{}
	}
	folder := path.Dir(b.name)
	at, ok := s.folders[folder]
	if !ok {
		at = s.open(folder)
		s.folders[folder] = at
	}
	if at == nil {
		return nil, place{}
	}
	return at, place{at.place.dev, path.Join(at.place.path, path.Base(b.name))}
}

// open locates a folder. It returns nil if there is none.
func (s *socketSearch) open(folder string) *located {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	at, err := s.host.locate(fd)
	if err != nil {
		return nil
	}
	return at
}

// underRoot looks for a socket below a source and returns its path there. The process that
// bound the socket may have another root or working directory, so underRoot tries the
// name without its first element, without its first two, and so on: /run/app/sock in a
// root at /srv/root is found in the source /srv/root/run as app/sock.
func underRoot(b boundSocket, src *source) (inside string, ok bool) {
	if src.place.dev != b.dev {
		return "", false
	}
	for rest := strings.TrimLeft(path.Clean(b.name), "/"); rest != ""; {
		if ino, ok := isSocket(int(src.file.Fd()), rest); ok && ino == b.ino {
			return rest, true
		}
		_, rest, _ = strings.Cut(rest, "/")
	}
	return "", false
}

// remote are file systems that another machine or a program serves. A look-up there can take
// long. It is not needed, because unix_diag shows the live sockets of this machine.
var remote = []string{"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse", "fuseblk"}

// knownSocket returns the path of a socket at one of the places in a folder where engines
// and agents have theirs, or "". It need not be live. The folder is at the path name,
// relative to the folder dir, and lies in the mount m.
func knownSocket(m *mountinfo.Info, dir int, name string) string {
	kind, _, _ := strings.Cut(m.FSType, ".")
	if slices.Contains(remote, kind) {
		return ""
	}
	for _, known := range plan.KnownSockets {
		file := path.Join(name, known)
		if _, ok := isSocket(dir, file); ok {
			return file
		}
	}
	return ""
}
