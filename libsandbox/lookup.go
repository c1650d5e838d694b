// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exit statuses of a command that cannot be started, as shells and engines use them.
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

// lookUp looks for the program of p in the root of the container's process pid. If there is
// none, the error has runc's text, which engines match (`exec: "x": executable file not
// found in $PATH` becomes exit status 127). Without lookUp only launch would notice it,
// after start.
func lookUp(pid int, p *specs.Process) error {
	root, err := openRoot(pid)
	if err != nil {
		return err
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

// failed returns the error of runc for a program, name, of which executable returned err.
func failed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EACCES):
		return &ProgramError{StatusNotExecutable, fmt.Sprintf("%q: permission denied", name)}
	}
	return &ProgramError{StatusNotFound, fmt.Sprintf("%q: stat %s: %v", name, name, err)}
}

// executable returns an error unless file is executable. Every symbolic link stays below
// root (openat2(2), RESOLVE_IN_ROOT).
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
