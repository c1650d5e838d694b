// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var psCommand = &cli.Command{
	Name:      "ps",
	Usage:     "ps displays the processes running inside a container",
	ArgsUsage: "<container-id> [ps options]",
	Flags:     []cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "select one of: table or json"}},
	Action: func(c *cli.Context) error {
		if err := arguments(c, 1, 0); err != nil {
			return err
		}
		ctr, err := container.Load(c.String("root"), c.Args().First())
		if err != nil {
			return err
		}
		pids, err := ctr.Pids()
		if err != nil {
			return err
		}
		switch c.String("format") {
		case "json":
			return json.NewEncoder(c.App.Writer).Encode(pids)
		case "table":
			return psTable(c.App.Writer, c.Args().Tail(), pids)
		}
		return errors.New("invalid format option")
	},
}

// psTable prints those lines of the host's ps that are about pids.
func psTable(out io.Writer, options []string, pids []int) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	text, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Fprintln(out, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(out, line)
		}
	}
	return nil
}
