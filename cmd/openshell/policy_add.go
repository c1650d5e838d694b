// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/policy"
)

func policyAddCommand() *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "print a policy with the network_policies of further files; status 3 if they cannot be added",
		ArgsUsage: "FILE ADDITION...",
		Description: "An addition is a preset of NemoClaw (a file with the field preset), what\n" +
			"`openshell policy preset` prints, or another file of network_policies alone.",
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return usage(c, "want a FILE and at least one ADDITION")
			}
			var documents []policy.Document
			for _, file := range c.Args().Slice() {
				text, err := readFile(file)
				if err != nil {
					return err
				}
				documents = append(documents, policy.Document{File: file, Text: text})
			}
			text, err := policy.Add(documents[0], documents[1:]...)
			if err != nil {
				return cli.Exit(err, exitProblems)
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}
