// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/policy"
)

const (
	exitUsage = 2
	// exitProblems is the status of a check that found problems and of a request
	// that would be denied.
	exitProblems = 3
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:        "policy",
		Usage:       "work with policy files",
		Subcommands: []*cli.Command{policyCheckCommand(), policyExplainCommand(), policyEvalCommand()},
	}
}

func policyCheckCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "say what is wrong with a policy file; status 3 if anything is",
		ArgsUsage: "FILE",
		Action: func(c *cli.Context) error {
			file, p, err := readPolicy(c)
			if err != nil {
				return err
			}
			for _, w := range policy.Lint(p) {
				fmt.Fprintf(c.App.Writer, "%s:%d: warning: %s\n", file, w.Line, w.Msg)
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s: ok\n", file)
			return err
		},
	}
}

// readPolicy reads the policy file that is the command's only argument.
func readPolicy(c *cli.Context) (string, *policy.Policy, error) {
	if c.NArg() != 1 {
		return "", nil, usage(c, "want one FILE")
	}
	file := c.Args().First()
	text, err := readFile(file)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", c.Command.HelpName, err)
	}
	p, err := policy.Parse(file, text)
	if err != nil {
		return "", nil, cli.Exit(err.Error(), exitProblems)
	}
	return file, p, nil
}

func usage(c *cli.Context, problem string) error {
	return cli.Exit(c.Command.HelpName+": "+problem, exitUsage)
}
