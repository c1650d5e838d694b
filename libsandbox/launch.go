// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/cleanup"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/launch"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/seccomp"
)

// wrapWithLaunch changes process, which o describes, so that it starts through
// openshell-launch. launch and its instructions become two files of o that nobody can
// write to, and launch's arguments come before those of the process. The caller calls
// release when the process has started.
func wrapWithLaunch(o *container.ProcessConfig, process *specs.Process, pl *plan.Plan) (release func(), err error) {
	if len(process.Args) == 0 {
		return nil, errors.New("args must not be empty")
	}
	var undo cleanup.Stack
	defer undo.Clean()
	text, err := instructions(pl, o.PreserveFDs)
	if err != nil {
		return nil, err
	}
	program, err := proxyapi.Beside(proxyapi.ProgramLaunch)
	if err != nil {
		return nil, err
	}
	exe, err := readOnly(program)
	if err != nil {
		return nil, fmt.Errorf("open %s, which belongs beside the runtime: %w", proxyapi.ProgramLaunch, err)
	}
	undo.Add(func() { _ = exe.Close() })
	in, err := sealed("instructions", text)
	if err != nil {
		return nil, err
	}
	undo.Add(func() { _ = in.Close() })
	process.Args = launchArgs(container.FirstFile(o.PreserveFDs)+len(o.Files), process.Args)
	o.Files = append(o.Files, exe, in)
	return undo.Release(), nil
}

// instructions returns what launch is told. preserved is how many descriptors from 3 on
// the process gets from the caller.
func instructions(pl *plan.Plan, preserved int) ([]byte, error) {
	filter, err := seccomp.Compile(seccomp.Options{Tracing: pl.Tracing})
	if err != nil {
		return nil, err
	}
	return launch.Encode(&launch.Instructions{Landlock: pl.Ruleset, Filter: filter, Keep: preserved})
}

// launchArgs returns the arguments of a process whose descriptor first is launch and whose
// next one has the instructions.
func launchArgs(first int, args []string) []string {
	return append([]string{"/proc/self/fd/" + strconv.Itoa(first), strconv.Itoa(first + 1)}, args...)
}

// readOnly opens a program on a new mount that is read-only and attached nowhere. A process
// of the container that opens it again, by /proc/PID/exe or a descriptor, cannot write to
// the host's file (CVE-2019-5736).
func readOnly(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, errors.Join(fmt.Errorf("make the mount of %s read-only (Linux 5.12): %w", path, err), f.Close())
	}
	return f, nil
}

// sealed returns a file in memory with data that nobody, inside or outside, can change.
func sealed(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("create memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("seal memfd %s: %w", name, err), f.Close())
	}
	return f, nil
}
