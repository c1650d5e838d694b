// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

var execCommand = &cli.Command{
	Name:      "exec",
	Usage:     "execute new process inside the container",
	ArgsUsage: "<container-id> <command> [command options]  || -p process.json <container-id>",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the exec process"},
		&cli.StringFlag{Name: "cwd", Usage: "current working directory in the container"},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set environment variables"},
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "allocate a pseudo-TTY"},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "UID (format: <uid>[:<gid>])"},
		&cli.Int64SliceFlag{Name: "additional-gids", Aliases: []string{"g"}, Usage: "additional gids"},
		&cli.StringFlag{Name: "process", Aliases: []string{"p"}, Usage: "path to the process.json"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.StringFlag{Name: "process-label", Usage: "set the asm process label for the process commonly used with selinux"},
		&cli.StringFlag{Name: "apparmor", Usage: "set the apparmor profile for the process"},
		&cli.BoolFlag{Name: "no-new-privs", Usage: "set the no new privileges value for the process (a sandbox always has it)"},
		&cli.StringSliceFlag{Name: "cap", Aliases: []string{"c"}, Usage: "add a capability to the bounding set for the process (a sandbox drops what no sandbox has)"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "Pass N additional file descriptors to the container (stdio + N in total)"},
		&cli.StringSliceFlag{Name: "cgroup", Usage: "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>."},
		&cli.BoolFlag{Name: "ignore-paused", Usage: "allow exec in a paused container"},
		programStatusFlag(),
	},
	Action: func(c *cli.Context) error {
		status, err := execute(c)
		switch {
		case err != nil:
			return programStatus(c, &execError{err})
		case status != 0:
			return exitStatus(status)
		}
		return nil
	},
}

func execute(c *cli.Context) (int, error) {
	if err := arguments(c, 1, 0); err != nil {
		return -1, err
	}
	root := c.String("root")
	pidFile := c.String("pid-file")
	if pidFile != "" {
		abs, err := filepath.Abs(pidFile)
		if err != nil {
			return -1, err
		}
		pidFile = abs
	}
	p, err := execProcess(c, root)
	if err != nil {
		return -1, err
	}
	groups, err := subCgroups(c.StringSlice("cgroup"))
	if err != nil {
		return -1, err
	}
	return libsandbox.Exec(root, c.Args().First(), container.ProcessConfig{
		Action: container.RunExec, Spec: p, Detach: c.Bool("detach"), PreserveFDs: c.Int("preserve-fds"),
		ConsoleSocket: c.String("console-socket"), PidfdSocket: c.String("pidfd-socket"), PidFile: pidFile,
		SubCgroups: groups, IgnorePaused: c.Bool("ignore-paused"),
	})
}

// subCgroups reads --cgroup: one path for cgroup v2, or controllers, a colon and
// a path for each of v1's.
func subCgroups(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	paths := map[string]string{}
	for _, a := range args {
		controllers, path, both := strings.Cut(a, ":")
		if !both {
			if len(args) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", a)
			}
			return map[string]string{"": a}, nil
		}
		for name := range strings.SplitSeq(controllers, ",") {
			if name == "" {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (empty <controller> prefix)", a)
			}
			if _, twice := paths[name]; twice {
				return nil, fmt.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", name)
			}
			paths[name] = path
		}
	}
	return paths, nil
}

// execProcess is the process to run: a file's, or the bundle's own with what
// the flags change.
func execProcess(c *cli.Context, root string) (*specs.Process, error) {
	if file := c.String("process"); file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var p specs.Process
		if err := readJSON(f, file, &p); err != nil {
			return nil, err
		}
		return &p, checkProcess(&p)
	}
	if c.NArg() < 2 {
		return nil, errors.New("exec args cannot be empty")
	}
	ctr, err := container.Load(root, c.Args().First())
	if err != nil {
		return nil, err
	}
	bundle, err := ctr.Bundle()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(bundle); err != nil {
		return nil, err
	}
	spec, err := readSpec()
	if err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args = c.Args().Tail()
	p.Env = append(p.Env, c.StringSlice("env")...)
	p.Terminal = c.Bool("tty")
	if c.IsSet("no-new-privs") {
		p.NoNewPrivileges = c.Bool("no-new-privs")
	}
	if v := c.String("apparmor"); v != "" {
		p.ApparmorProfile = v
	}
	if v := c.String("process-label"); v != "" {
		p.SelinuxLabel = v
	}
	addCapabilities(p, c.StringSlice("cap"))
	if cwd := c.String("cwd"); cwd != "" {
		p.Cwd = cwd
	}
	if user := c.String("user"); user != "" {
		uid, gid, both := strings.Cut(user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("bad uid: %q is not a number", uid)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return nil, fmt.Errorf("bad gid: %q is not a number", gid)
			}
			p.User.GID = uint32(n)
		}
	}
	for _, g := range c.Int64Slice("additional-gids") {
		if g < 0 || g > 1<<32-1 {
			return nil, fmt.Errorf("additional-gids must be a positive number %d", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	return p, checkProcess(p)
}

// addCapabilities adds names to all sets of p but the inheritable one. The kernel
// takes no ambient capability that is not inheritable, so without those there are
// none.
func addCapabilities(p *specs.Process, names []string) {
	if len(names) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	k := p.Capabilities
	k.Bounding = append(k.Bounding, names...)
	k.Effective = append(k.Effective, names...)
	k.Permitted = append(k.Permitted, names...)
	if k.Inheritable != nil {
		k.Ambient = append(k.Ambient, names...)
	}
}
