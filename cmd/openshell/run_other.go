// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "github.com/urfave/cli/v2"

// runCommand says why there is no `openshell run` on this system.
func runCommand() *cli.Command {
	return &cli.Command{
		Name:   "run",
		Usage:  "run a command in a sandbox (Linux only)",
		Action: func(*cli.Context) error { return cli.Exit("openshell run: sandboxes need a Linux kernel", 1) },
	}
}
