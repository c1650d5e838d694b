// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var restoreCommand = &cli.Command{
	Name:        "restore",
	Usage:       "restore a container from a previous checkpoint",
	ArgsUsage:   "<container-id>",
	Description: "Restores the saved state of the container instance that was previously saved\nusing the checkpoint command. A container that would be a sandbox is refused:\ncriu does not restore Landlock domains.",
	Flags: criuFlags("path to criu image files for restoring",
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.BoolFlag{Name: "no-subreaper", Usage: "disable the use of the subreaper used to reap reparented processes"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk"},
		&cli.StringFlag{Name: "lsm-profile", Usage: "Specify an LSM profile to be used during restore in the form of TYPE:NAME."},
		&cli.StringFlag{Name: "lsm-mount-context", Usage: "Specify an LSM mount context to be used during restore."},
	),
	Action: func(c *cli.Context) error {
		if err := arguments(c, 1, 1); err != nil {
			return err
		}
		o, err := criuOptions(c)
		if err != nil {
			return err
		}
		return makeContainer(c, container.RestoreInit, o)
	},
}
