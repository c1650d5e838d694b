// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/policy"
)

// exitProblems is the status of a check that found problems.
const exitProblems = 3

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "work with policy files",
		Subcommands: []*cli.Command{{
			Name:      "check",
			Usage:     "say what is wrong with a policy file; status 3 if anything is",
			ArgsUsage: "FILE",
			Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return cli.Exit("openshell policy check: want one FILE", 2)
				}
				file := c.Args().First()
				f, err := os.Open(file)
				if err != nil {
					return fmt.Errorf("openshell policy check: %w", err)
				}
				defer f.Close()
				text, err := io.ReadAll(io.LimitReader(f, policy.MaxSize+1))
				if err != nil {
					return fmt.Errorf("openshell policy check: read %s: %w", file, err)
				}
				if _, err := policy.Parse(file, text); err != nil {
					return cli.Exit(err.Error(), exitProblems)
				}
				_, err = fmt.Fprintf(c.App.Writer, "%s: ok\n", file)
				return err
			},
		}},
	}
}
