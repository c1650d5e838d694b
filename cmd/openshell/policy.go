// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

const (
	exitUsage = 2
	// exitProblems is the status of a check that found problems and of a request
	// that would be denied.
	exitProblems = 3
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:        "policy",
		Usage:       "work with policy files",
		Subcommands: []*cli.Command{policyCheckCommand(), policyExplainCommand(), policyEvalCommand(), policyPresetCommand(), policyAddCommand()},
	}
}

func policyCheckCommand() *cli.Command {
	return &cli.Command{
		Name:        "check",
		Usage:       "say what is wrong with a policy file; status 3 if anything is",
		ArgsUsage:   "FILE",
		Description: "Warnings say what a valid policy does that may not be meant; they change no status.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "OCI bundle `DIR` whose mounts the policy should cover"},
			operatorFlag(),
			outputFlag(),
		},
		Action: policyCheck,
	}
}

// checked is what `openshell policy check` prints as JSON.
type checked struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Problems []finding `json:"problems"`
	Warnings []finding `json:"warnings"`
}

// finding is something about one place of a document.
type finding struct {
	Line    int    `json:"line"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

func policyCheck(c *cli.Context) error {
	file, p, err := readPolicy(c)
	out := checked{File: file, OK: err == nil, Warnings: []finding{}}
	if out.Problems = problems(err); len(out.Problems) > 0 && wantsJSON(c) {
		if err := printJSON(c, out); err != nil {
			return err
		}
		return cli.Exit("", exitProblems)
	}
	if err != nil {
		return err
	}
	config, err := operatorConfig(c)
	if err != nil {
		return err
	}
	explicit := config.FilesystemBaseline == operator.BaselineExplicit
	warnings := append(policy.Lint(p, compileOptions(config)), tenantWarnings(p)...)
	if added := plan.AddedPaths(p, explicit); added != "" {
		warnings = append(warnings, policy.Warning{Line: p.Filesystem.Line, Msg: added})
	}
	if w := plan.TracingWarning(p, config.Tracing.Allows(p)); w != "" {
		warnings = append(warnings, policy.Warning{Line: max(1, p.Filesystem.Line), Msg: w})
	}
	slices.SortStableFunc(warnings, func(a, b policy.Warning) int { return cmp.Compare(a.Line, b.Line) })
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, finding{Line: w.Line, Message: w.Msg})
	}
	if dir := c.String("bundle"); dir != "" {
		spec, err := readSpec(filepath.Join(dir, "config.json"))
		if err != nil {
			return err
		}
		for _, m := range plan.Uncovered(spec, p, explicit) {
			out.Warnings = append(out.Warnings, finding{Line: max(1, p.Filesystem.Line), Message: m})
		}
	}
	if wantsJSON(c) {
		return printJSON(c, out)
	}
	for _, w := range out.Warnings {
		fmt.Fprintf(c.App.Writer, "%s:%d: warning: %s\n", file, w.Line, w.Message)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: ok\n", file)
	return err
}

// problems are what policy.Parse found.
func problems(err error) []finding {
	out := []finding{}
	var one *policy.SyntaxError
	var all interface{ Unwrap() []error }
	switch {
	case errors.As(err, &all):
		for _, e := range all.Unwrap() {
			out = append(out, problems(e)...)
		}
	case errors.As(err, &one):
		out = append(out, finding{one.Line, one.Col, one.Msg, one.Fix})
	}
	return out
}

// readPolicy reads the policy that is the command's only argument: a file, or the name of
// one of the operator's policies.
func readPolicy(c *cli.Context) (string, *policy.Policy, error) {
	if c.NArg() != 1 {
		return "", nil, usage(c, "want one FILE")
	}
	file, err := policyFile(c, c.Args().First())
	if err != nil {
		return "", nil, err
	}
	text, err := readFile(file)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", c.Command.HelpName, err)
	}
	p, err := policy.Parse(file, text)
	if err != nil {
		return file, nil, cli.Exit(err, exitProblems)
	}
	return file, p, nil
}

func usage(c *cli.Context, problem string) error {
	return cli.Exit(c.Command.HelpName+": "+problem, exitUsage)
}
