// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestOrder(t *testing.T) {
	commands := []*cli.Command{
		{Name: "run", Flags: []cli.Flag{&cli.BoolFlag{Name: "tty"}}},
		{Name: "exec", Flags: []cli.Flag{&cli.BoolFlag{Name: "tty"}}},
		{Name: "logs", Flags: []cli.Flag{&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}}, &cli.IntFlag{Name: "n"}}},
		{Name: "policy", Subcommands: []*cli.Command{{Name: "set", Flags: []cli.Flag{&cli.StringFlag{Name: "policy"}}}}},
	}
	for _, tc := range []struct{ name, args, want string }{
		{"value after the argument", "policy set box --policy p.yaml", "policy set --policy p.yaml box"},
		{"value with =", "policy set box --policy=p.yaml", "policy set --policy=p.yaml box"},
		{"bool takes nothing", "logs -f box -n 3", "logs -f -n 3 box"},
		{"value is missing", "logs box -n", "logs -n box"},
		{"unknown flag", "logs box --what", "logs --what box"},
		{"after --", "logs -- box -n 3", "logs -- box -n 3"},
		{"run's command is not ours", "run ls --tty", "run ls --tty"},
		{"nor exec's", "exec box ls --tty", "exec box ls --tty"},
		{"no command", "--version", "--version"},
		{"unknown command", "what --policy p", "what --policy p"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(order(commands, append([]string{"openshell"}, strings.Fields(tc.args)...)), " ")
			if got != "openshell "+tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
