// SPDX-License-Identifier: Apache-2.0

// Command openshell is the person's side of the runtime: it runs sandboxes
// without an engine and checks policies.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	app := &cli.App{
		Name:           "openshell",
		Usage:          "run and inspect agent sandboxes",
		Version:        version,
		Commands:       []*cli.Command{policyCommand(), runCommand()},
		ExitErrHandler: func(*cli.Context, error) {},
	}
	err := app.Run(os.Args)
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
	os.Exit(1)
}
