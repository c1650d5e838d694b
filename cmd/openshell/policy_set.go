// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// livePolicyCommands are the policy commands that speak to a running sandbox.
func livePolicyCommands() []*cli.Command {
	const argument = "CONTAINER"
	revision := func(required bool) cli.Flag {
		return &cli.IntFlag{Name: "revision", Usage: "revision `N`", Required: required}
	}
	return []*cli.Command{{
		Name: "set", Usage: "give a running sandbox another policy; status 3 if it is refused", ArgsUsage: argument,
		Description: "The new policy is enforced, on open connections as well, when the command ends.\n" + containerUsage + searched(),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "policy", Usage: "policy `FILE` or the name of one of the operator's policies", Required: true},
			&cli.BoolFlag{Name: "wait", Usage: "accepted for compatibility: the command always waits", Value: true, Action: alwaysWaits},
			outputFlag(), rootFlag(), operatorFlag(),
		},
		Action: onSandbox(policySet),
	}, {
		Name: "get", Usage: "print the policy that a sandbox enforces, or an older one", ArgsUsage: argument,
		Flags: sandboxFlags(revision(false), outputFlag()), Action: onSandbox(policyGet),
	}, {
		Name: "list", Usage: "list the policies that a sandbox has enforced", ArgsUsage: argument,
		Flags: sandboxFlags(outputFlag()), Action: onSandbox(policyList),
	}, {
		Name: "rollback", Usage: "enforce an older policy again, as a new revision", ArgsUsage: argument,
		Flags: sandboxFlags(revision(true), outputFlag()), Action: onSandbox(policyRollback),
	}}
}

// asked turns a proxy's refusal into status 3.
func asked(err error) error {
	var f *proxyapi.Failure
	if errors.As(err, &f) && (f.Code == proxyapi.CodeStaticChange || f.Code == proxyapi.CodeInvalidPolicy) {
		outcome := "the sandbox keeps its old policy"
		if f.Denies > 0 {
			outcome = fmt.Sprintf("the sandbox is denied everything until a valid policy is set (revision %d)", f.Denies)
		}
		return cli.Exit(f.Error()+"\n"+outcome, exitProblems)
	}
	return err
}

func alwaysWaits(_ *cli.Context, wait bool) error {
	if !wait {
		return cli.Exit("openshell policy set: --wait=false: the answer always waits until the policy is enforced", exitUsage)
	}
	return nil
}

func policySet(c *cli.Context, s sandbox) error {
	file, err := policyFile(c, c.String("policy"))
	if err != nil {
		return err
	}
	if file, err = filepath.Abs(file); err != nil {
		return fmt.Errorf("resolve --policy: %w", err)
	}
	text, err := readFile(file)
	if err != nil {
		return err
	}
	n, err := s.proxy().SetPolicy(c.Context, file, text)
	if err != nil {
		return asked(err)
	}
	return loaded(c, n)
}

// loaded says which revision a policy became.
func loaded(c *cli.Context, n int) error {
	if wantsJSON(c) {
		return printJSON(c, proxyapi.Loaded{Revision: n})
	}
	_, err := fmt.Fprintf(c.App.Writer, "revision %d\n", n)
	return err
}

// readFile reads a file no larger than a policy may be.
func readFile(file string) ([]byte, error) {
	text, err := boundedfile.Read(file, policy.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return text, nil
}

func policyGet(c *cli.Context, s sandbox) error {
	text, n, err := s.proxy().Policy(c.Context, c.Int("revision"))
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c, struct {
			Revision int    `json:"revision"`
			Policy   string `json:"policy"`
		}{n, string(text)})
	}
	_, err = c.App.Writer.Write(text)
	return err
}

func policyList(c *cli.Context, s sandbox) error {
	list, err := s.proxy().Policies(c.Context)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c, list)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 1, 2, ' ', 0)
	fmt.Fprintln(w, "REVISION\tLOADED\tSTATUS\tFROM")
	for _, r := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.Revision, r.LoadedAt.Format(time.RFC3339), clean(string(r.Status)), clean(r.Name))
	}
	return w.Flush()
}

func policyRollback(c *cli.Context, s sandbox) error {
	n, err := s.proxy().Rollback(c.Context, c.Int("revision"))
	if err != nil {
		return asked(err)
	}
	return loaded(c, n)
}
