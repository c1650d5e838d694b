// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/container"
)

// annotationPrefix is that of the annotations that choose how a container is
// confined; an engine must not let just anybody set them.
const annotationPrefix = "openshell.dev/"

var featuresCommand = &cli.Command{
	Name:        "features",
	Usage:       "show the enabled features",
	Description: "Show the enabled features.\nThe result is parsable as a JSON.\nSee https://github.com/opencontainers/runtime-spec/blob/main/features.md for the type definition.",
	Action: func(c *cli.Context) error {
		if err := arguments(c, 0, 0); err != nil {
			return err
		}
		f := container.Features()
		f.Annotations[annotationPrefix+"version"] = version
		f.PotentiallyUnsafeConfigAnnotations = append(f.PotentiallyUnsafeConfigAnnotations, annotationPrefix)
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "    ")
		return enc.Encode(f)
	},
}
