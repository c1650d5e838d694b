// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var psCommand = &cli.Command{
	Name:      "ps",
	Usage:     "ps displays the processes running inside a container",
	ArgsUsage: "<container-id>",
	Flags:     []cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "select one of: table or json"}},
	Action: func(c *cli.Context) error {
		return on(c, func(ctr *container.Container) error {
			pids, err := ctr.Pids()
			if err != nil {
				return err
			}
			switch c.String("format") {
			case "json":
				return json.NewEncoder(c.App.Writer).Encode(pids)
			case "table":
				fmt.Fprintln(c.App.Writer, "PID")
				for _, p := range pids {
					fmt.Fprintln(c.App.Writer, p)
				}
				return nil
			}
			return errors.New("invalid format option")
		})
	},
}
