// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/flagorder"
)

// order puts a command's flags before its arguments, as urfave/cli v2 wants them:
// people write `openshell policy set BOX --policy FILE`. `run` and `exec` keep their
// order, because what follows their arguments is another program's.
func order(commands []*cli.Command, args []string) []string {
	at := 1
	var cmd *cli.Command
	for ; at < len(args); at++ {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if i < 0 {
			break
		}
		cmd, commands = commands[i], commands[i].Subcommands
	}
	if cmd == nil || cmd.Name == "run" || cmd.Name == "exec" {
		return args
	}
	return slices.Concat(args[:at], flagorder.Order(cmd.Flags, args[at:], flagorder.Flag))
}
