// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/state"
)

func providerAttach(c *cli.Context) error {
	s, name, err := sandboxAndProvider(c)
	if err != nil {
		return err
	}
	store, err := openStore(c)
	if err != nil {
		return err
	}
	p, err := store.Get(name)
	if err != nil {
		return err
	}
	if len(p.Stale(time.Now())) > 0 {
		if err := askOrigins(c, name, "--"+proxyapi.FlagDue); err != nil {
			return err
		}
		if p, err = store.Get(name); err != nil {
			return err
		}
		if err := p.Usable(time.Now()); err != nil {
			return err
		}
	}
	env, err := attached.Attach(c.Context, store, s.dir(), name, os.Getenv)
	if err != nil {
		return s.explain(c, err)
	}
	err = state.Edit(s.root, s.id, func(st *state.State) {
		for _, e := range env {
			if !slices.Contains(st.Plan.Placeholders, e) {
				st.Plan.Placeholders = append(st.Plan.Placeholders, e)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("provider %s is attached, but later execs do not have its variables: %w", name, err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "provider %s is attached to sandbox %s\n"+
		"each exec from now on has these variables; what runs already keeps its environment:\n  %s\n",
		name, s.id, strings.Join(env, "\n  "))
	return err
}

func providerDetach(c *cli.Context) error {
	s, name, err := sandboxAndProvider(c)
	if err != nil {
		return err
	}
	if err := attached.Detach(c.Context, s.dir(), name); err != nil {
		return s.explain(c, err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "provider %s is detached from sandbox %s: its placeholders are refused\n", name, s.id)
	return err
}

// sandboxAndProvider are what the two arguments of a command name.
func sandboxAndProvider(c *cli.Context) (s sandbox, name string, err error) {
	if c.NArg() != 2 {
		return s, "", wrongUse(c, "want CONTAINER NAME")
	}
	s, err = findSandbox(c, c.Args().First())
	return s, c.Args().Get(1), err
}
