// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

// specFile is a bundle's specification.
const specFile = "config.json"

// maxSpec bounds a JSON file that is read, in bytes.
const maxSpec = 16 << 20

var createCommand = &cli.Command{
	Name:      "create",
	Usage:     "create a container",
	ArgsUsage: "<container-id>",
	Flags:     makeFlags(false),
	Action:    func(c *cli.Context) error { return create(c, container.CreateInit) },
}

var runCommand = &cli.Command{
	Name:      "run",
	Usage:     "create and run a container",
	ArgsUsage: "<container-id>",
	Flags:     makeFlags(true),
	Action:    func(c *cli.Context) error { return create(c, container.RunInit) },
}

func makeFlags(run bool) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory, defaults to the current directory"},
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the init process"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk"},
		&cli.BoolFlag{Name: "no-new-keyring", Usage: "do not create a new session keyring for the container.  This will cause the container to inherit the calling processes session key"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)"},
	}
	if run {
		flags = append(
			flags,
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
			&cli.BoolFlag{Name: "keep", Usage: "do not delete the container after it exits"},
			&cli.IntFlag{Name: "lifeline", Usage: "kill and delete the container when descriptor `FD` comes to its end", Hidden: true},
			programStatusFlag(),
			&cli.BoolFlag{Name: "no-subreaper", Usage: "disable the use of the subreaper used to reap reparented processes"},
		)
	}
	return flags
}

func create(c *cli.Context, action container.Action) error {
	if err := arguments(c, 1, 1); err != nil {
		return err
	}
	if err := makeContainer(c, action, nil); err != nil {
		var status exitStatus
		if errors.As(err, &status) {
			return err
		}
		return fmt.Errorf("openshell-runtime %s failed: %w", c.Command.Name, err)
	}
	return nil
}

// makeContainer makes the container of the bundle that the flags name.
func makeContainer(c *cli.Context, action container.Action, criu *container.CriuOptions) error {
	pidFile := c.String("pid-file")
	if pidFile != "" {
		abs, err := filepath.Abs(pidFile)
		if err != nil {
			return err
		}
		pidFile = abs
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
	lifeline, err := openLifeline(c)
	if err != nil {
		return err
	}
	egress := proxyapi.Egress(c.String("egress"))
	if egress != proxyapi.EgressNamespace && egress != proxyapi.EgressHost {
		return fmt.Errorf("--egress %q: want %s or %s", egress, proxyapi.EgressNamespace, proxyapi.EgressHost)
	}
	activated := listenFDs(spec.Process)
	status, err := libsandbox.Create(libsandbox.CreateOptions{
		Container: container.Config{
			Root: c.String("root"), ID: c.Args().First(), Spec: spec,
			NoPivot: c.Bool("no-pivot"), NoNewKeyring: c.Bool("no-new-keyring"), SystemdCgroup: c.Bool("systemd-cgroup"),
			Rootless: c.String("rootless"), NotifySocket: os.Getenv(notifyVariable),
		},
		Process: container.ProcessConfig{
			Action: action, Detach: c.Bool("detach"), PreserveFDs: activated + c.Int("preserve-fds"),
			ConsoleSocket: c.String("console-socket"), PidfdSocket: c.String("pidfd-socket"), PidFile: pidFile,
			NoSubreaper: c.Bool("no-subreaper"), NotifySocket: os.Getenv(notifyVariable), Criu: criu, Lifeline: lifeline,
		},
		Policy: c.String("policy"), ConfigFile: c.String("config"), Keep: c.Bool("keep"),
		Egress: egress, UpstreamCAs: c.StringSlice("upstream-ca"), Providers: c.StringSlice("provider"),
	})
	if err != nil {
		return programStatus(c, err)
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// openLifeline is the descriptor of --lifeline, nil without the flag.
func openLifeline(c *cli.Context) (*os.File, error) {
	fd := c.Int("lifeline")
	if fd == 0 {
		return nil, nil
	}
	if fd <= 2+c.Int("preserve-fds") || c.Bool("detach") || c.Bool("keep") {
		return nil, fmt.Errorf("--lifeline %d: the descriptor is passed on, or the container is to outlive its caller", fd)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("--lifeline %d: %w", fd, err)
	}
	return os.NewFile(uintptr(fd), "lifeline"), nil
}

// listenFDs is how many descriptors from 3 on systemd's socket activation gave
// us (sd_listen_fds(3)); p is told that they are its own.
func listenFDs(p *specs.Process) int {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	if err != nil || pid != os.Getpid() {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return 0
	}
	p.Env = append(p.Env, fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_PID=1")
	return n
}

// readSpec reads the bundle's config.json. Unknown properties are ignored, as
// runtime-spec asks (config.md, Extensibility).
func readSpec() (*specs.Spec, error) {
	f, err := os.Open(specFile)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("JSON specification file %s not found", specFile)
		}
		return nil, err
	}
	defer f.Close()
	var s *specs.Spec
	if err := readJSON(f, specFile, &s); err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errors.New("config cannot be null")
	}
	return s, checkProcess(s.Process)
}

// readJSON reads one JSON value into v. What comes after it is ignored, as in runc.
func readJSON(r io.Reader, name string, v any) error {
	bounded := &io.LimitedReader{R: r, N: maxSpec + 1}
	err := json.NewDecoder(bounded).Decode(v)
	if bounded.N == 0 {
		return fmt.Errorf("%s is larger than %d bytes", name, maxSpec)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
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
	case slices.ContainsFunc(p.Args, func(a string) bool { return strings.ContainsRune(a, 0) }):
		// execve(2) would end each at it; runc leaves a container that says so itself.
		return errors.New("args must not contain a NUL byte")
	}
	return nil
}
