// SPDX-License-Identifier: Apache-2.0

// Command openshell-launch is the last step inside a container before the user's program.
// It removes the rights that the policy does not grant, and then executes the program.
//
//	/proc/self/fd/N INSTRUCTIONS-FD ARG0 [ARG...]
//
// libcontainer's init starts it after mounts, user and capabilities are set. N is a
// descriptor of a read-only mount of launch that is not attached to any folder: the image
// gets no new file, and the container cannot write to the host's program (CVE-2019-5736).
// INSTRUCTIONS-FD is a sealed memfd with [launch.Instructions].
//
// Everything happens on one thread, in this order: Landlock, no_new_privs, the seccomp
// filter, execve. If a step fails, launch ends with status 126 and the user's program does
// not run.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/launch"
)

// Exit statuses, the same as those of shells.
const (
	exitRefused  = 126
	exitNotFound = 127
)

func main() {
	runtime.LockOSThread()
	if err := confine(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "openshell-launch: %v\n", err)
		os.Exit(exitRefused)
	}
	// The text is runc's: the reader looks for the user's program, not for launch.
	code, err := execute(os.Args[2:], os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(code)
}

// confine removes the rights that the instructions do not grant from this thread.
func confine(args []string) error {
	if len(args) < 3 {
		return errors.New("only openshell-runtime starts this program")
	}
	in, err := read(args[1])
	if err != nil {
		return err
	}
	if err := restrict(in.Landlock); err != nil {
		return err
	}
	// After exec only the standard streams and the descriptors from the caller remain.
	if err := unix.CloseRange(uint(3+in.Keep), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return filter(in.Filter)
}

// read reads the instructions from the descriptor of that number.
func read(number string) (*launch.Instructions, error) {
	fd, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("instructions descriptor %q: %w", number, err)
	}
	data, err := io.ReadAll(io.LimitReader(os.NewFile(uintptr(fd), "instructions"), launch.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read instructions: %w", err)
	}
	if len(data) > launch.MaxSize {
		return nil, fmt.Errorf("read instructions: more than %d bytes", launch.MaxSize)
	}
	return launch.Decode(data)
}

// restrict applies r to this thread. A ruleset without rules still denies: every handled
// right that no rule grants is refused.
func restrict(r landlock.Ruleset) error {
	if r.ABI == 0 {
		return nil // the runtime's floor allowed a kernel without Landlock
	}
	set, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: uint64(r.Handled), Scoped: uint64(r.Scoped)}, 0)
	if err != nil {
		return fmt.Errorf("create Landlock ruleset (ABI %d): %w", r.ABI, err)
	}
	applied := false
	for _, rule := range r.Rules {
		switch err := add(set, rule); {
		case err == nil:
			applied = applied || rule.Origin != landlock.OriginRuntime
		case r.Complete && rule.Origin == landlock.OriginPolicy:
			return fmt.Errorf("Landlock path unavailable in hard_requirement mode, and the operator's landlock.missing_paths is fail: %s: %w", rule.Path, err)
		case !skippable(err):
			return fmt.Errorf("add Landlock rule for %s: %w", rule.Path, err)
		}
	}
	if r.Hard && !applied {
		return errors.New("Landlock in hard_requirement mode: none of the policy's paths can be opened")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := ll.LandlockRestrictSelf(set, 0); err != nil {
		return fmt.Errorf("apply Landlock ruleset: %w", err)
	}
	return unix.Close(set)
}

// errSwapped means that the path named another file when the container was created.
var errSwapped = errors.New("names another file than when the container was made")

// skippable reports whether a rule with this error grants nothing instead of failing: its
// path does not exist, or this user cannot reach it anyway.
func skippable(err error) bool {
	return errors.Is(err, errSwapped) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// add adds one rule. A path of the baseline that contains a link is skipped: an image could
// link it to a folder that the policy does not list.
func add(set int, rule landlock.Rule) error {
	if rule.Origin == landlock.OriginBaseline && linked(rule.Path) {
		return unix.ELOOP
	}
	fd, err := unix.Open(rule.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if rule.Ino != 0 && (rule.Ino != st.Ino || rule.Dev != st.Dev) {
		return errSwapped
	}
	access := rule.Access
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access = access.ForFile()
	}
	if access == 0 {
		return nil
	}
	return ll.LandlockAddPathBeneathRule(set, &ll.PathBeneathAttr{AllowedAccess: uint64(access), ParentFd: fd}, 0)
}

// linked reports whether an absolute path contains a symbolic link.
func linked(name string) bool {
	for ; name != "/"; name = filepath.Dir(name) {
		if st, err := os.Lstat(name); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return true
		}
	}
	return false
}

func filter(program []byte) error {
	insns := make([]unix.SockFilter, len(program)/launch.InstructionSize)
	for i := range insns {
		b := program[i*launch.InstructionSize:]
		insns[i] = unix.SockFilter{
			Code: uint16(b[0]) | uint16(b[1])<<8, Jt: b[2], Jf: b[3],
			K: uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24,
		}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("apply seccomp filter: %w", errno)
	}
	return nil
}

// execute replaces launch by the program. The runtime has already looked the program up;
// execute repeats the search inside the container.
func execute(argv, env []string) (int, error) {
	name := argv[0]
	if strings.Contains(name, "/") {
		return status(name, unix.Exec(name, argv, env))
	}
	path := os.Getenv("PATH")
	var last error = unix.ENOENT
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		err := unix.Exec(dir+"/"+name, argv, env)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			last = err
		}
	}
	return status(name, last)
}

func status(name string, err error) (int, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return exitNotFound, fmt.Errorf("exec %s: %w", name, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return exitRefused, fmt.Errorf("exec %s: %w (it and its interpreter must be executable and below a path of the policy's filesystem_policy)", name, err)
	}
	return exitRefused, fmt.Errorf("exec %s: %w", name, err)
}
