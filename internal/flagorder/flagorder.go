// SPDX-License-Identifier: Apache-2.0

// Package flagorder puts the flags of a command before its arguments. urfave/cli v2 reads
// only those, and people and runc's callers write them anywhere.
package flagorder

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Unknown says what an argument is that begins with - and is not one of the flags.
type Unknown int

const (
	// Argument leaves it among the arguments.
	Argument Unknown = iota
	// Flag puts it among the flags, so that urfave/cli complains about it.
	Flag
)

// Order returns args with the flags first. The arguments after -- and a single - stay
// arguments.
func Order(flags []cli.Flag, args []string, unknown Unknown) []string {
	var first, last []string
	for rest := args; len(rest) > 0; {
		if rest[0] == "--" {
			last = append(last, rest...)
			break
		}
		n := Words(flags, rest[0])
		switch {
		case n > 0:
			n = min(n, len(rest))
			first = append(first, rest[:n]...)
		case unknown == Flag && len(rest[0]) > 1 && rest[0][0] == '-':
			n = 1
			first = append(first, rest[0])
		default:
			n = 1
			last = append(last, rest[0])
		}
		rest = rest[n:]
	}
	return slices.Concat(first, last)
}

// Words returns the number of arguments that the flag arg consists of: one, or two with its
// value. It returns 0 if arg is not one of flags and not that of the help.
func Words(flags []cli.Flag, arg string) int {
	name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if !strings.HasPrefix(arg, "-") || name == "" {
		return 0
	}
	if name == "h" || name == "help" {
		return 1
	}
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return 0
	}
	if d, ok := flags[i].(cli.DocGenerationFlag); ok && d.TakesValue() && !inline {
		return 2
	}
	return 1
}
