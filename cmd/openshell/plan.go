// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/libsandbox/features"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// maxSpec bounds config.json, in bytes, as the runtime does.
const maxSpec = 16 << 20

// planned is what `openshell plan` prints.
type planned struct {
	// Policy is where the policy came from; Sandbox is false where the operator
	// asks for plain runc.
	Policy  string `json:"policy"`
	Sandbox bool   `json:"sandbox"`
	// Plan is what is done, Process what the container's first process becomes
	// (openshell-launch comes before its arguments), Removed the capabilities no
	// sandbox has.
	Plan    *plan.Plan     `json:"plan,omitempty"`
	Process *specs.Process `json:"process,omitempty"`
	Removed []string       `json:"removed_capabilities,omitempty"`
	// Warnings say what the container's user may not expect.
	Warnings []string `json:"warnings,omitempty"`
}

func planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "print what would be done to a container, as JSON; status 3 if it would be refused",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "OCI bundle `DIR`", Required: true},
			&cli.StringFlag{Name: "policy", Usage: "policy `FILE` or the name of one of the operator's policies"},
			operatorFlag(),
		},
		Action: planAction,
	}
}

func planAction(c *cli.Context) error {
	if c.NArg() != 0 {
		return cli.Exit("openshell plan: want no arguments", exitUsage)
	}
	spec, err := readSpec(filepath.Join(c.String("bundle"), "config.json"))
	if err != nil {
		return err
	}
	config, err := operatorConfig(c)
	if err != nil {
		return err
	}
	src, err := operator.FindPolicy(c.String("policy"), spec, config)
	if err != nil {
		return err
	}
	if src.None {
		return printJSON(c, planned{Policy: src.Name})
	}
	have, err := features.Probe()
	if err != nil {
		return err
	}
	p, err := makePlan(spec, src, config, have)
	if err != nil {
		return cli.Exit(err.Error(), exitProblems)
	}
	return printJSON(c, p)
}

func makePlan(spec *specs.Spec, src *operator.Source, config *operator.Config, have features.Features) (*planned, error) {
	pol, err := policy.Parse(src.Name, src.Text)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	o := config.PlanOptions(have.LandlockABI)
	pl, err := plan.New(spec, pol, o)
	if err != nil {
		return nil, err
	}
	return &planned{
		Policy: src.Name, Sandbox: true, Plan: pl, Process: pl.Spec(spec).Process, Removed: plan.Removed,
		Warnings: pl.Warnings(spec, pol, o),
	}, nil
}

func readSpec(file string) (*specs.Spec, error) {
	data, err := boundedfile.Read(file, maxSpec)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if spec.Process == nil {
		return nil, errors.New("config.json: process property must not be empty")
	}
	return &spec, nil
}
