// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

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
		if err := arguments(c, 0, 0); err != nil {
			return err
		}
		states, broken, err := container.List(c.String("root"))
		// The default root is there only once a container was.
		if err != nil && (c.IsSet("root") || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		for _, err := range broken {
			fmt.Fprintln(c.App.ErrWriter, err)
		}
		return printStates(c, states)
	},
}

func printStates(c *cli.Context, states []*container.State) error {
	out := c.App.Writer
	switch format := c.String("format"); {
	case c.Bool("quiet"):
		for _, s := range states {
			fmt.Fprintln(out, s.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(out).Encode(states)
	case format == "table":
		return printTable(out, states)
	}
	return errors.New("invalid format option")
}

func printTable(out io.Writer, states []*container.State) error {
	w := tabwriter.NewWriter(out, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, s := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}
