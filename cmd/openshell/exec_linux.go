// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// statePaused is the status of a paused container, which runc adds to those of the
// runtime specification.
const statePaused specs.ContainerState = "paused"

// execCommand makes `openshell exec`: another command in a sandbox that runs.
func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run another command in a running sandbox, under the same policy",
		ArgsUsage: "CONTAINER COMMAND [ARG...]",
		Description: "The command has the environment, the folder and the user that the sandbox was made\n" +
			"with, and what providers that were attached since give it. The exit status is its own,\n" +
			"127 if it is not found and 126 if it cannot be executed.\n" +
			containerUsage + searched(),
		Flags: []cli.Flag{
			rootFlag(), operatorFlag(), runtimeFlag(),
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment variable `NAME[=VALUE]`"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "working `DIR` inside the sandbox"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "`UID[:GID]`, numbers"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "keep standard input open"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "allocate a terminal"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait for its end"},
		},
		UseShortOptionHandling: true,
		Action:                 execAction,
	}
}

// execAction becomes the runtime, whose exec passes on signals and the exit status.
func execAction(c *cli.Context) error {
	command := c.Args().Tail()
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return usage(c, "want a CONTAINER and a COMMAND")
	}
	if user := c.String("user"); user != "" && !numericUser(user) {
		return usage(c, fmt.Sprintf("--user is %q, want UID or UID:GID, numbers: the accounts of the sandbox are not read", user))
	}
	s, err := findSandbox(c, c.Args().First())
	if err != nil {
		return err
	}
	bin, err := runtimePath(c)
	if err != nil {
		return err
	}
	args := []string{bin, "--root", s.root, "--log-format", "plain", "exec", "--program-status"}
	env := environment{}
	if c.Bool("tty") {
		args = append(args, "--tty")
		env.set("TERM=xterm")
	}
	env.pass(c.StringSlice("env"))
	for _, e := range env {
		args = append(args, "--env", e)
	}
	if cwd := c.String("workdir"); cwd != "" {
		args = append(args, "--cwd", cwd)
	}
	if user := c.String("user"); user != "" {
		args = append(args, "--user", user)
	}
	if c.Bool("detach") {
		args = append(args, "--detach")
	}
	if !c.Bool("interactive") && !c.Bool("tty") {
		if err := noInput(); err != nil {
			return err
		}
	}
	st, err := ociState(c, s)
	if err != nil {
		return err
	}
	switch st.Status {
	case specs.StateStopped:
		return s.stoppedError()
	case statePaused:
		return fmt.Errorf("sandbox %s is paused, and no command can run in it; resume it with: docker unpause, or %s --root %s resume %s", s.id, proxyapi.ProgramRuntime, s.root, s.id)
	default: // the runtime refuses the other states itself
	}
	if st.Bundle == stageDir {
		// The runtime comes from this thread, which is never given back.
		runtime.LockOSThread()
		if err := joinStage(st.Pid); err != nil {
			return fmt.Errorf("enter the mount namespace of sandbox %s: %w", s.id, err)
		}
	}
	err = unix.Exec(bin, append(append(args, "--", s.id), command...), os.Environ())
	return fmt.Errorf("start %s: %w", bin, err)
}

// numericUser reports whether user is UID or UID:GID.
func numericUser(user string) bool {
	ids := strings.Split(user, ":")
	for _, id := range ids {
		if _, err := strconv.ParseUint(id, 10, 32); err != nil {
			return false
		}
	}
	return len(ids) <= 2
}

// joinStage enters the mount namespace that `openshell run` made for the bundle of the
// container whose first process is pid. The process's parent, the runtime, lives there.
//
// Preconditions: the calling goroutine is locked to its thread for good.
func joinStage(pid int) error {
	field, err := processFields(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	ns, err := stageOf(field["PPid"], pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	// setns(2) needs a thread that shares its root and working directory with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
}

// stageOf opens the mount namespace of the runtime, the process with the ID parent, whose
// child pid is the container's first process. It looks at each of the runtime's threads:
// libcontainer enters the container's mount namespace on one thread and leaves it there,
// and this can be the main thread, which does not end.
func stageOf(parent string, pid int) (*os.File, error) {
	inside, err := os.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	threads, err := os.ReadDir(filepath.Join("/proc", parent, "task"))
	if err != nil {
		return nil, err
	}
	for _, t := range threads {
		ns, err := os.Open(filepath.Join("/proc", parent, "task", t.Name(), "ns/mnt"))
		if err != nil {
			continue // the thread has ended
		}
		st, err := ns.Stat()
		if err == nil && !os.SameFile(st, inside) {
			return ns, nil
		}
		_ = ns.Close()
	}
	return nil, fmt.Errorf("no thread of process %s is outside the container", parent)
}

// noInput makes the standard input an empty one.
func noInput() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	return errors.Join(unix.Dup3(int(null.Fd()), 0, 0), null.Close())
}
