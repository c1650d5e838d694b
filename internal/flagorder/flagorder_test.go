// SPDX-License-Identifier: Apache-2.0

package flagorder

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestOrder(t *testing.T) {
	flags := []cli.Flag{&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}}, &cli.IntFlag{Name: "n"}, &cli.StringFlag{Name: "policy"}}
	for _, tc := range []struct {
		name, args, want string
		unknown          Unknown
	}{
		{"a value after the argument", "box --policy p.yaml", "--policy p.yaml box", Flag},
		{"a value with =", "box --policy=p.yaml", "--policy=p.yaml box", Flag},
		{"a bool has no value", "-f box -n 3", "-f -n 3 box", Flag},
		{"a value is missing", "box -n", "-n box", Flag},
		{"an unknown flag", "box --what x", "--what box x", Flag},
		{"an unknown flag, left", "box -9 -f", "-f box -9", Argument},
		{"help", "box -h --help", "-h --help box", Argument},
		{"a single -", "- -f", "-f -", Flag},
		{"after --", "a -f -- box -n 3", "-f a -- box -n 3", Flag},
		{"nothing", "", "", Flag},
	} {
		if got := strings.Join(Order(flags, strings.Fields(tc.args), tc.unknown), " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
