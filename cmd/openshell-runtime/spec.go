// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

var specCommand = &cli.Command{
	Name:  "spec",
	Usage: "create a new specification file",
	Description: "The spec command creates the new specification file named \"" + specFile + "\" for\nthe bundle." +
		" It is a starter file: it runs \"sh\" in the folder \"rootfs\".",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory"},
		&cli.BoolFlag{Name: "rootless", Usage: "generate a configuration for a rootless container (which cannot be a sandbox)"},
	},
	Action: func(c *cli.Context) (err error) {
		if err := arguments(c, 0, 0); err != nil {
			return err
		}
		data, err := json.MarshalIndent(container.Example(c.Bool("rootless")), "", "\t")
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(c.String("bundle"), specFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("File %s exists. Remove it first", specFile)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	},
}
