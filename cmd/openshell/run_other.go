// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "github.com/urfave/cli/v2"

func runCommand() *cli.Command { return elsewhere("run", "run a command in a sandbox") }

func execCommand() *cli.Command { return elsewhere("exec", "run another command in a sandbox") }

// elsewhere says why there is no such command on this system.
func elsewhere(name, usage string) *cli.Command {
	return &cli.Command{
		Name:   name,
		Usage:  usage + " (Linux only)",
		Action: func(*cli.Context) error { return cli.Exit("openshell "+name+": sandboxes need a Linux kernel", 1) },
	}
}
