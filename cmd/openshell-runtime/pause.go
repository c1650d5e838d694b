// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var pauseCommand = &cli.Command{
	Name:      "pause",
	Usage:     "pause suspends all processes inside the container",
	ArgsUsage: "<container-id>",
	Action:    func(c *cli.Context) error { return on(c, (*container.Container).Pause) },
}

var resumeCommand = &cli.Command{
	Name:      "resume",
	Usage:     "resumes all processes that have been previously paused",
	ArgsUsage: "<container-id>",
	Action:    func(c *cli.Context) error { return on(c, (*container.Container).Resume) },
}
