// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// mappedRoot returns the user and the group on the host that root of the container is.
// Without a user namespace that is root.
func mappedRoot(spec *specs.Spec) (uid, gid int) {
	if spec.Linux == nil {
		return 0, 0
	}
	return hostID(spec.Linux.UIDMappings), hostID(spec.Linux.GIDMappings)
}

// hostID returns the ID on the host of the container's ID 0, or 0 if it is not mapped.
func hostID(mappings []specs.LinuxIDMapping) int {
	for _, m := range mappings {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// makeMountpoints creates the folders for CA stores that the image does not have, as root of
// the container. libcontainer would create them from within the container's user namespace,
// where root may not write into a root filesystem that belongs to the host's root. The
// guard removes them after the container's end ([proxyapi.TrustFolder].Made).
func (c *containerStores) makeMountpoints() error {
	for i := range c.Folders {
		if f := &c.Folders[i]; f.Made != "" {
			if err := c.makeMountpoint(f); err != nil {
				return fmt.Errorf("create %s in the root filesystem for the sandbox's CA: %w", f.Path, err)
			}
		}
	}
	return nil
}

func (c *containerStores) makeMountpoint(f *proxyapi.TrustFolder) error {
	root, err := unix.Open(c.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root.path: %w", err)
	}
	defer unix.Close(root)
	dir, err := openFolder(root, "."+path.Dir(f.Made))
	if err != nil {
		return err
	}
	defer func() { unix.Close(dir) }()
	uid, gid := mappedRoot(c.spec)
	for name := range strings.SplitSeq(strings.TrimPrefix(f.Path, strings.TrimSuffix(path.Dir(f.Made), "/")+"/"), "/") {
		err := unix.Mkdirat(dir, name, 0o755)
		made := err == nil
		if err != nil && !errors.Is(err, unix.EEXIST) { // another sandbox may have made it
			return &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
		next, err := openFolder(dir, name)
		if err != nil {
			return err
		}
		unix.Close(dir)
		dir = next
		if !made {
			continue
		}
		// Chmod, because the umask applies to mkdir.
		at := fmt.Sprintf("/proc/self/fd/%d", dir)
		if err := errors.Join(unix.Chmod(at, 0o755), unix.Chown(at, uid, gid)); err != nil {
			return fmt.Errorf("change the owner of %s: %w", name, err)
		}
	}
	return nil
}

// openFolder opens a folder below dir. It follows no link.
func openFolder(dir int, name string) (int, error) {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}
