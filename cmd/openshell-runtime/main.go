// SPDX-License-Identifier: Apache-2.0

// Command openshell-runtime is an OCI runtime with runc's command line that makes
// every container a sandbox.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/container"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func main() {
	app := &cli.App{
		Name:    proxyapi.ProgramRuntime,
		Usage:   "Open Container Initiative runtime that makes containers sandboxes",
		Version: version,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "debug", Usage: "enable debug logging"},
			&cli.StringFlag{Name: "log", Usage: "set the log file to write logs to (default is '/dev/stderr')"},
			&cli.StringFlag{Name: "log-format", Value: container.FormatText, Usage: "set the log format ('text' (default), 'json', or 'plain' for people)"},
			&cli.StringFlag{Name: "root", Value: defaultRoot(), Usage: "root directory for storage of container state (this should be located in tmpfs)"},
			&cli.BoolFlag{Name: "systemd-cgroup", Usage: "enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\" for e.g. \"system.slice:runc:434234\""},
			&cli.StringFlag{Name: "rootless", Value: "auto", Usage: "ignore cgroup permission errors ('true', 'false', or 'auto'); sandboxes need root"},
			&cli.StringFlag{Name: "policy", Usage: "policy `NAME` in the operator's directory, or file"},
			&cli.StringFlag{Name: "egress", Value: string(proxyapi.EgressNamespace), Usage: "`WHERE` the proxy's own connections start: the container's network namespace, or host for containers without an uplink"},
			&cli.StringSliceFlag{Name: "upstream-ca", Usage: "`FILE` of certificates (PEM) that upstreams are verified with beside the system's"},
			&cli.StringSliceFlag{Name: "provider", Usage: "`NAME` of a provider whose credentials the container may use without having them"},
			&cli.StringFlag{Name: "config", Usage: "operator's configuration `FILE` (default /etc/openshell/config.yaml)"},
		},
		Commands: []*cli.Command{
			checkpointCommand, createCommand, deleteCommand, eventsCommand, execCommand, featuresCommand, killCommand, listCommand,
			pauseCommand, psCommand, restoreCommand, resumeCommand, runCommand, specCommand, startCommand, stateCommand, updateCommand,
		},
		Before: before,
		// A value may hold a comma, as an environment variable's may.
		DisableSliceFlagSeparator: true,
		// main alone exits: urfave must neither print nor exit on its own.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	for _, cmd := range app.Commands {
		cmd.HideHelpCommand = true // "help" may be a container's ID
	}
	cli.VersionPrinter = printVersion
	args, global := order(app, os.Args)
	exit(app.Run(args), global)
}

func printVersion(c *cli.Context) {
	w := c.App.Writer
	fmt.Fprintf(w, "%s version %s\ncommit: %s\nspec: %s\ngo: %s\n", c.App.Name, c.App.Version, commit, specs.Version, runtime.Version())
	if v := container.SeccompVersion(); v != "" {
		fmt.Fprintf(w, "libseccomp: %s\n", v)
	}
}

// defaultRoot is where containers' states are kept: gone with a reboot, as the
// containers are. Who is not the host's root has a place of his own.
func defaultRoot() string {
	const system = "/run/openshell"
	dir := os.Getenv("XDG_RUNTIME_DIR")
	root := os.Geteuid() == 0 && (!container.InUserNamespace() || os.Getenv("USER") == "root")
	if dir == "" || root {
		return system
	}
	return filepath.Join(dir, "openshell")
}

// before sets what all verbs share.
func before(c *cli.Context) error {
	if c.IsSet("root") {
		root, err := filepath.Abs(c.String("root"))
		if err != nil {
			return err
		}
		if root == "/" {
			return errors.New("Option --root argument should not be set to /")
		}
		if err := c.Set("root", root); err != nil {
			return err
		}
	}
	format := c.String("log-format")
	switch format {
	case "", container.FormatText, container.FormatJSON, container.FormatPlain:
	default:
		return fmt.Errorf("invalid log-format: %s", format)
	}
	var out io.Writer = os.Stderr
	if file := c.String("log"); file != "" {
		f, err := openLog(file)
		if err != nil {
			return err
		}
		out = f
	}
	container.Log(out, format, c.Bool("debug"))
	return nil
}

// arguments checks how many arguments a verb got, in runc's words. most is 0 for
// any number.
func arguments(c *cli.Context, least, most int) error {
	var err error
	switch n := c.NArg(); {
	case least == most && n != least:
		err = fmt.Errorf("%s: %q requires exactly %d argument(s)", c.App.Name, c.Command.Name, least)
	case n < least:
		err = fmt.Errorf("%s: %q requires a minimum of %d argument(s)", c.App.Name, c.Command.Name, least)
	case most > 0 && n > most:
		err = fmt.Errorf("%s: %q requires a maximum of %d argument(s)", c.App.Name, c.Command.Name, most)
	}
	if err != nil {
		fmt.Fprint(c.App.Writer, "Incorrect Usage.\n\n")
		return errors.Join(err, cli.ShowSubcommandHelp(c))
	}
	if least > 0 && c.Args().First() == "" {
		return errors.New("container id cannot be empty")
	}
	return nil
}
