// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

// eventsInterval is runc's.
const eventsInterval = 5 * time.Second

var eventsCommand = &cli.Command{
	Name:      "events",
	Usage:     "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
	ArgsUsage: "<container-id>",
	Flags: []cli.Flag{
		&cli.DurationFlag{Name: "interval", Value: eventsInterval, Usage: "set the stats collection interval"},
		&cli.BoolFlag{Name: "stats", Usage: "display the container's stats then exit"},
	},
	Action: func(c *cli.Context) error {
		return on(c, func(ctr *container.Container) error {
			interval := c.Duration("interval")
			if interval <= 0 {
				return errors.New("duration interval must be greater than 0")
			}
			out := json.NewEncoder(c.App.Writer)
			if c.Bool("stats") {
				e, err := ctr.Stats()
				if err != nil {
					return err
				}
				return out.Encode(e)
			}
			return ctr.Events(c.Context, interval, func(e *container.Event, err error) {
				if err == nil {
					err = out.Encode(e)
				}
				if err != nil {
					fmt.Fprintln(c.App.ErrWriter, err)
				}
			})
		})
	},
}
