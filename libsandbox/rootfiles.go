// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
)

// openRoot opens the root that process pid has. The caller closes it.
func openRoot(pid int) (root int, err error) {
	root, err = unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the container's root: %w", err)
	}
	return root, nil
}

// openRootfs opens the root filesystem that config.json names. The caller closes it.
func openRootfs(name string) (root int, err error) {
	root, err = unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open root.path %s: %w", name, err)
	}
	return root, nil
}

// readIn reads a file below root. Every symbolic link stays below root, too. readIn returns
// nil if there is no file.
func readIn(root int, file string, most int64) ([]byte, error) {
	data, err := readRegular(root, file, unix.RESOLVE_IN_ROOT, most)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s in the container: %w", file, err)
	}
	return data, nil
}

// readSeen reads a file as the container will see it: from the mount of config.json at that
// path, else below root.
func readSeen(spec *specs.Spec, root int, file string, most int64) ([]byte, error) {
	data, err := readIn(root, file, most)
	if err != nil {
		return nil, err
	}
	top := fmt.Sprintf("/proc/self/fd/%d", root)
	real := leadsTo(top, file)
	for _, m := range spec.Mounts {
		if filepath.IsAbs(m.Source) && leadsTo(top, m.Destination) == real {
			if data, err = readRegular(unix.AT_FDCWD, m.Source, 0, most); err != nil {
				return nil, fmt.Errorf("config.json: mounts: read %s for %s: %w", m.Source, file, err)
			}
		}
	}
	return data, nil
}

// readRegular reads the file at name, relative to the folder dir. It returns nil if that is
// no regular file, and an error if the file has more than most bytes. resolve are flags of
// openat2(2).
func readRegular(dir int, name string, resolve uint64, most int64) ([]byte, error) {
	f, err := boundedfile.OpenRegular(dir, name, resolve)
	if errors.Is(err, boundedfile.ErrNotRegular) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("larger than %d bytes", most)
	}
	return data, err
}
