// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var listCommand = &cli.Command{
	Name:  "list",
	Usage: "lists containers started by openshell-runtime with the given root",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "select one of: table or json"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "display only container IDs"},
	},
	Action: func(c *cli.Context) error {
		root := c.String("root")
		ids, err := container.List(root)
		if err != nil {
			return err
		}
		states := []*specs.State{}
		var broken []error
		for _, id := range ids {
			ctr, err := container.Load(root, id)
			if err != nil {
				broken = append(broken, fmt.Errorf("load container %s: %w", id, err))
				continue
			}
			s, err := ctr.State()
			if err != nil {
				broken = append(broken, fmt.Errorf("read state of container %s: %w", id, err))
				continue
			}
			states = append(states, s)
		}
		return errors.Join(append(broken, printStates(c, states))...)
	},
}

func printStates(c *cli.Context, states []*specs.State) error {
	out := c.App.Writer
	switch format := c.String("format"); {
	case c.Bool("quiet"):
		for _, s := range states {
			fmt.Fprintln(out, s.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(out).Encode(states)
	case format != "table":
		return errors.New("invalid format option")
	}
	w := tabwriter.NewWriter(out, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE")
	for _, s := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle)
	}
	return w.Flush()
}
