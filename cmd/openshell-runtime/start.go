// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var startCommand = &cli.Command{
	Name:      "start",
	Usage:     "executes the user defined process in a created container",
	ArgsUsage: "<container-id>",
	Action:    func(c *cli.Context) error { return on(c, (*container.Container).Start) },
}

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
