// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
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
	var flags, others []string
	for rest := args[at:]; len(rest) > 0; {
		arg := rest[0]
		if arg == "--" {
			others = append(others, rest...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			others, rest = append(others, arg), rest[1:]
			continue
		}
		n := 1
		if takesNext(cmd.Flags, arg) {
			n = min(2, len(rest))
		}
		flags, rest = append(flags, rest[:n]...), rest[n:]
	}
	return slices.Concat(args[:at], flags, others)
}

// takesNext says whether the argument after arg is its value.
func takesNext(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return false // unknown, or --name=value
	}
	d, ok := flags[i].(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
