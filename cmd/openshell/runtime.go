// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/proxyapi"
)

func runtimeFlag() cli.Flag {
	return &cli.StringFlag{Name: "runtime", Usage: proxyapi.ProgramRuntime + " `PATH` (default: beside this program)"}
}

// runtimePath is the runtime that the CLI calls.
func runtimePath(c *cli.Context) (string, error) {
	if bin := c.String("runtime"); bin != "" {
		return bin, nil
	}
	return proxyapi.Beside(proxyapi.ProgramRuntime)
}
