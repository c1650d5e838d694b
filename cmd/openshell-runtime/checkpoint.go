// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

var checkpointCommand = &cli.Command{
	Name:        "checkpoint",
	Usage:       "checkpoint a running container",
	ArgsUsage:   "<container-id>",
	Description: "The checkpoint command saves the state of the container instance. A sandbox is\nrefused: criu does not restore its Landlock domains.",
	Flags: criuFlags("path for saving criu image files",
		&cli.StringFlag{Name: "parent-path", Usage: "path for previous criu image files in pre-dump"},
		&cli.BoolFlag{Name: "leave-running", Usage: "leave the process running after checkpointing"},
		&cli.BoolFlag{Name: "tcp-skip-in-flight", Usage: "skip in-flight tcp connections"},
		&cli.BoolFlag{Name: "link-remap", Usage: "allow one to link unlinked files back when possible"},
		&cli.IntFlag{Name: "status-fd", Value: -1, Usage: "criu writes \\0 to this FD once lazy-pages is ready"},
		&cli.StringFlag{Name: "page-server", Usage: "ADDRESS:PORT of the page server"},
		&cli.BoolFlag{Name: "pre-dump", Usage: "dump container's memory information only, leave the container running after this"},
	),
	Action: func(c *cli.Context) error {
		if err := arguments(c, 1, 1); err != nil {
			return err
		}
		o, err := criuOptions(c)
		if err != nil {
			return err
		}
		o.StatusFd = c.Int("status-fd")
		return libsandbox.Checkpoint(c.String("root"), c.Args().First(), o)
	},
}

// criuFlags are the flags that checkpoint and restore share, and those that one of
// them has alone; images says what the folder of images is for.
func criuFlags(images string, own ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "image-path", Usage: images},
		&cli.StringFlag{Name: "work-path", Usage: "path for saving work files and logs"},
		&cli.BoolFlag{Name: "tcp-established", Usage: "allow open tcp connections"},
		&cli.BoolFlag{Name: "ext-unix-sk", Usage: "allow external unix sockets"},
		&cli.BoolFlag{Name: "shell-job", Usage: "allow shell jobs"},
		&cli.BoolFlag{Name: "lazy-pages", Usage: "use userfaultfd to lazily restore memory pages"},
		&cli.BoolFlag{Name: "file-locks", Usage: "handle file locks, for safety"},
		&cli.StringFlag{Name: "manage-cgroups-mode", Usage: "cgroups mode: soft|full|strict|ignore (default: soft)"},
		&cli.StringSliceFlag{Name: "empty-ns", Usage: "create a namespace, but don't restore its properties"},
		&cli.BoolFlag{Name: "auto-dedup", Usage: "enable auto deduplication of memory images"},
	}, own...)
}

// criuOptions are the flags of checkpoint and restore; a flag that only one of
// them has is its zero value for the other.
func criuOptions(c *cli.Context) (*container.CriuOptions, error) {
	for _, ns := range c.StringSlice("empty-ns") {
		if ns != "network" {
			return nil, fmt.Errorf("namespace %q is not supported", ns)
		}
	}
	o := &container.CriuOptions{
		ImagesDirectory: c.String("image-path"), WorkDirectory: c.String("work-path"), ParentImage: c.String("parent-path"),
		LeaveRunning: c.Bool("leave-running"), PreDump: c.Bool("pre-dump"), ShellJob: c.Bool("shell-job"), FileLocks: c.Bool("file-locks"),
		TcpEstablished: c.Bool("tcp-established"), TcpSkipInFlight: c.Bool("tcp-skip-in-flight"), LinkRemap: c.Bool("link-remap"),
		ExternalUnixConnections: c.Bool("ext-unix-sk"), AutoDedup: c.Bool("auto-dedup"), LazyPages: c.Bool("lazy-pages"), StatusFd: -1,
		LsmProfile: c.String("lsm-profile"), LsmMountContext: c.String("lsm-mount-context"), ManageCgroupsMode: c.String("manage-cgroups-mode"),
		// Network devices are the engine's to bring back.
		EmptyNs: unix.CLONE_NEWNET,
	}
	if server := c.String("page-server"); server != "" {
		host, port, err := net.SplitHostPort(server)
		if err != nil || host == "" || port == "" {
			return nil, errors.New("Use --page-server ADDRESS:PORT to specify page server")
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, errors.New("Invalid port number")
		}
		o.PageServer = container.CriuPageServer{Address: host, Port: int32(n)}
	}
	return o, imageFolders(o)
}

// imageFolders makes the folder of the images, and finds that of the parent's.
func imageFolders(o *container.CriuOptions) error {
	if o.ImagesDirectory == "" {
		cwd, err := os.Getwd()
		if err != nil {
			return err
		}
		o.ImagesDirectory = filepath.Join(cwd, "checkpoint")
	}
	if err := os.MkdirAll(o.ImagesDirectory, 0o700); err != nil {
		return err
	}
	if o.ParentImage == "" {
		return nil
	}
	if filepath.IsAbs(o.ParentImage) {
		return errors.New("--parent-path must be relative")
	}
	parent := filepath.Join(o.ImagesDirectory, o.ParentImage)
	st, err := os.Stat(parent)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "open", Path: parent, Err: unix.ENOTDIR}
	}
	if err != nil {
		return fmt.Errorf("invalid --parent-path: %w", err)
	}
	return nil
}
