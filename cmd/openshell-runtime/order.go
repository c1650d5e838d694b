// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// inOrder are the verbs whose arguments belong to another program: what comes
// after the first of them is no flag of ours.
var inOrder = []string{"exec", "ps"}

// order puts a verb's flags before its arguments: runc takes them in any order,
// urfave/cli v2 does not. global are the arguments before the verb.
func order(app *cli.App, args []string) (ordered, global []string) {
	verb := 1
	for verb < len(args) && strings.HasPrefix(args[verb], "-") && args[verb] != "--" {
		verb += 1 + max(0, values(app.Flags, args[verb]))
	}
	if verb >= len(args) {
		return args, args[min(1, len(args)):]
	}
	global = args[1:verb]
	cmd := app.Command(args[verb])
	if cmd == nil || slices.Contains(inOrder, cmd.Name) {
		return args, global
	}
	var flags, others []string
	rest := args[verb+1:]
	for i := 0; i < len(rest); i++ {
		if rest[i] == "--" {
			others = append(others, rest[i:]...)
			break
		}
		if n := values(cmd.Flags, rest[i]); n < 0 {
			others = append(others, rest[i])
		} else {
			end := min(i+1+n, len(rest))
			flags = append(flags, rest[i:end]...)
			i = end - 1
		}
	}
	return slices.Concat(args[:verb+1], flags, others), global
}

// values is how many arguments after arg belong to it, -1 if arg is not one of
// flags.
func values(flags []cli.Flag, arg string) int {
	name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if !strings.HasPrefix(arg, "-") || name == "" {
		return -1
	}
	if name == "h" || name == "help" {
		return 0
	}
	for _, f := range flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		if d, ok := f.(cli.DocGenerationFlag); ok && d.TakesValue() && !inline {
			return 1
		}
		return 0
	}
	return -1
}
