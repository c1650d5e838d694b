// SPDX-License-Identifier: Apache-2.0

// Command openshell-runtime is an OCI runtime with runc's command line that makes
// every container a sandbox.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
)

// version is set by the build.
var version = "0.1.0-dev"

// defaultRoot is where containers' states are kept: gone with a reboot, as the
// containers are.
const defaultRoot = "/run/openshell"

func main() {
	app := &cli.App{
		Name:    "openshell-runtime",
		Usage:   "Open Container Initiative runtime that makes containers sandboxes",
		Version: fmt.Sprintf("%s\nspec: %s", version, specs.Version),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "debug", Usage: "enable debug logging"},
			&cli.StringFlag{Name: "log", Usage: "set the log file to write logs to (default is '/dev/stderr')"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "set the log format ('text' (default), or 'json')"},
			&cli.StringFlag{Name: "root", Value: defaultRoot, Usage: "root directory for storage of container state (this should be located in tmpfs)"},
			&cli.BoolFlag{Name: "systemd-cgroup", Usage: "enable systemd cgroup support"},
			&cli.StringFlag{Name: "rootless", Value: "auto", Usage: "accepted for runc's callers; sandboxes need root"},
			&cli.StringFlag{Name: "policy", Usage: "policy `NAME` in the operator's directory, or file"},
			&cli.StringFlag{Name: "config", Usage: "operator's configuration `FILE` (default /etc/openshell/config.yaml)"},
		},
		Commands: []*cli.Command{
			createCommand, deleteCommand, execCommand, killCommand, listCommand, pauseCommand, psCommand, resumeCommand, runCommand, startCommand, stateCommand,
		},
		// main alone exits: urfave must neither print nor exit on its own.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	cli.VersionPrinter = func(c *cli.Context) { fmt.Fprintf(c.App.Writer, "%s version %s\n", c.App.Name, c.App.Version) }
	exit(app.Run(os.Args))
}

// arguments checks how many arguments a verb got, in runc's words.
func arguments(c *cli.Context, least, most int) error {
	switch n := c.NArg(); {
	case n < least && least == most, most > 0 && n > most && least == most:
		return fmt.Errorf("openshell-runtime: %q requires exactly %d argument(s)", c.Command.Name, least)
	case n < least:
		return fmt.Errorf("openshell-runtime: %q requires a minimum of %d argument(s)", c.Command.Name, least)
	case most > 0 && n > most:
		return fmt.Errorf("openshell-runtime: %q requires a maximum of %d argument(s)", c.Command.Name, most)
	}
	if c.Args().First() == "" {
		return errors.New("container id cannot be empty")
	}
	return nil
}
