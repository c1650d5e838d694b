// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

// maxSpec bounds config.json, in bytes.
const maxSpec = 16 << 20

var createCommand = &cli.Command{
	Name:      "create",
	Usage:     "create a container",
	ArgsUsage: "<container-id>",
	Flags:     makeFlags(false),
	Action:    func(c *cli.Context) error { return makeContainer(c, container.CreateInit) },
}

var runCommand = &cli.Command{
	Name:      "run",
	Usage:     "create and run a container",
	ArgsUsage: "<container-id>",
	Flags:     makeFlags(true),
	Action:    func(c *cli.Context) error { return makeContainer(c, container.RunInit) },
}

func makeFlags(run bool) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory, defaults to the current directory"},
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk"},
		&cli.BoolFlag{Name: "no-new-keyring", Usage: "do not create a new session keyring for the container.  This will cause the container to inherit the calling processes session key"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "Pass N additional file descriptors to the container (stdio + N in total)"},
	}
	if run {
		flags = append(
			flags,
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
			&cli.BoolFlag{Name: "keep", Usage: "do not delete the container after it exits"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "disable the use of the subreaper used to reap reparented processes"},
		)
	}
	return flags
}

func makeContainer(c *cli.Context, action container.Action) error {
	if err := arguments(c, 1, 1); err != nil {
		return err
	}
	pidFile := c.String("pid-file")
	if pidFile != "" {
		abs, err := filepath.Abs(pidFile)
		if err != nil {
			return err
		}
		pidFile = abs
	}
	root, err := filepath.Abs(c.String("root"))
	if err != nil {
		return err
	}
	// Relative paths of the spec are relative to the bundle.
	if b := c.String("bundle"); b != "" {
		if err := os.Chdir(b); err != nil {
			return err
		}
	}
	spec, err := readSpec()
	if err != nil {
		return err
	}
	status, err := libsandbox.Create(libsandbox.CreateOptions{
		Container: container.Config{
			Root: root, ID: c.Args().First(), Spec: spec,
			NoPivot: c.Bool("no-pivot"), NoNewKeyring: c.Bool("no-new-keyring"), SystemdCgroup: c.Bool("systemd-cgroup"),
		},
		Process: container.ProcessConfig{
			Action: action, Detach: c.Bool("detach"), PreserveFDs: c.Int("preserve-fds"),
			ConsoleSocket: c.String("console-socket"), PidFile: pidFile, NoSubreaper: c.Bool("no-subreaper"),
		},
		Policy: c.String("policy"), ConfigFile: c.String("config"), Keep: c.Bool("keep"),
	})
	if err != nil {
		return fmt.Errorf("openshell-runtime %s failed: %w", c.Command.Name, err)
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// readSpec reads the bundle's config.json. Unknown properties are ignored, as
// runtime-spec asks (config.md, Extensibility).
func readSpec() (*specs.Spec, error) {
	f, err := os.Open("config.json")
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, errors.New("JSON specification file config.json not found")
		}
		return nil, err
	}
	defer f.Close()
	var s specs.Spec
	if err := json.NewDecoder(io.LimitReader(f, maxSpec)).Decode(&s); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return &s, checkProcess(s.Process)
}

func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process property must not be empty")
	case p.Cwd == "":
		return errors.New("Cwd property must not be empty")
	case !filepath.IsAbs(p.Cwd):
		return errors.New("Cwd must be an absolute path")
	case len(p.Args) == 0:
		return errors.New("args must not be empty")
	}
	return nil
}
