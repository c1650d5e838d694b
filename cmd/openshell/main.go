// SPDX-License-Identifier: Apache-2.0

// Command openshell is the person's side of the runtime: it runs sandboxes
// without an engine and checks policies.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set by the build.
var version = "0.1.0-dev"

func commands() []*cli.Command {
	policies := policyCommand()
	policies.Subcommands = append(policies.Subcommands, livePolicyCommands()...)
	return []*cli.Command{runCommand(), execCommand(), policies, logsCommand(), providerCommand(), inferenceCommand(), inspectCommand(), planCommand(), doctorCommand()}
}

func main() {
	app := &cli.App{
		Name:     "openshell",
		Usage:    "run and inspect agent sandboxes",
		Version:  version,
		Commands: commands(),
		// A comma is part of a value: -e LIST=a,b.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              misused,
		Action:                    group,
	}
	strict(app.Commands)
	err := app.Run(order(app.Commands, os.Args))
	if err == nil {
		return
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, text)
	}
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		os.Exit(coded.ExitCode())
	}
	// urfave/cli does not export the error's type.
	if strings.HasPrefix(err.Error(), "Required flag") {
		os.Exit(exitUsage)
	}
	os.Exit(1)
}

// strict makes a wrong command line an error of its own status everywhere.
func strict(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = misused
		if len(c.Subcommands) > 0 {
			if c.Action == nil {
				c.Action = group
			}
			strict(c.Subcommands)
		}
	}
}

func misused(c *cli.Context, err error, _ bool) error {
	return cli.Exit(fmt.Sprintf("%s; see %s --help", err, c.Command.HelpName), exitUsage)
}

// group is the action of what only holds commands.
func group(c *cli.Context) error {
	if c.NArg() > 0 {
		return cli.Exit(fmt.Sprintf("openshell: there is no command %q; see openshell --help", c.Args().First()), exitUsage)
	}
	if c.Command.Name == "" || c.Command.Name == c.App.Name {
		return cli.ShowAppHelp(c)
	}
	return cli.ShowSubcommandHelp(c)
}
