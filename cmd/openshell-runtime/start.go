// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

var startCommand = &cli.Command{
	Name:      "start",
	Usage:     "executes the user defined process in a created container",
	ArgsUsage: "<container-id>",
	Action: func(c *cli.Context) error {
		if err := arguments(c, 1, 1); err != nil {
			return err
		}
		return libsandbox.Start(c.String("root"), c.Args().First(), os.Getenv(notifyVariable))
	},
}

// notifyVariable names the manager's socket (sd_notify(3)).
const notifyVariable = "NOTIFY_SOCKET"

// on calls f with the container that the command names.
func on(c *cli.Context, f func(*container.Container) error) error {
	if err := arguments(c, 1, 1); err != nil {
		return err
	}
	ctr, err := container.Load(c.String("root"), c.Args().First())
	if err != nil {
		return err
	}
	return f(ctr)
}
