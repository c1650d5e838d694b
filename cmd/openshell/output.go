// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"
)

// outputFlag is -o of every command that prints facts.
func outputFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT`: text or json", Value: "text",
		Action: func(_ *cli.Context, v string) error {
			if v != "text" && v != "json" {
				return cli.Exit(fmt.Sprintf("--output %q: want text or json", v), exitUsage)
			}
			return nil
		},
	}
}

func wantsJSON(c *cli.Context) bool { return c.String("output") == "json" }

// printJSON prints v for programs and for people who pipe.
func printJSON(c *cli.Context, v any) error {
	e := json.NewEncoder(c.App.Writer)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// clean makes what a workload may have chosen harmless on a terminal: what is not
// printable, and what would end the line, is written as an escape.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return s
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}

// oneArgument checks that a command got exactly what it names.
func oneArgument(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", cli.Exit(fmt.Sprintf("%s: want one %s", c.Command.HelpName, what), exitUsage)
	}
	return c.Args().First(), nil
}
