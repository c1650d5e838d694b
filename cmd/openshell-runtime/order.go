// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/flagorder"
)

// inOrder are the verbs whose arguments belong to another program: what comes
// after the first of them is no flag of ours.
var inOrder = []string{"exec", "ps"}

// order puts a verb's flags before its arguments: runc takes them in any order,
// urfave/cli v2 does not. global are the arguments before the verb.
func order(app *cli.App, args []string) (ordered, global []string) {
	verb := 1
	for verb < len(args) && strings.HasPrefix(args[verb], "-") && args[verb] != "--" {
		verb += max(1, flagorder.Words(app.Flags, args[verb]))
	}
	if verb >= len(args) {
		return args, args[min(1, len(args)):]
	}
	global = args[1:verb]
	cmd := app.Command(args[verb])
	if cmd == nil || slices.Contains(inOrder, cmd.Name) {
		return args, global
	}
	return slices.Concat(args[:verb+1], flagorder.Order(cmd.Flags, args[verb+1:], flagorder.Argument)), global
}
