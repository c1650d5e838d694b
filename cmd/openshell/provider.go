// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

func providerCommand() *cli.Command {
	return &cli.Command{
		Name: "provider", Usage: "keep credentials for agents that never see them",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "store a provider's credentials", ArgsUsage: "NAME",
				Description: "Values come from the environment or standard input, never from arguments, which\n" +
					"every user of the machine can read.",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "type", Aliases: []string{"profile"}, Usage: "`PROFILE` of the service (default: NAME)"},
					&cli.BoolFlag{Name: "runtime-credentials", Usage: "without a value for now: openshell provider refresh configure says what makes them"},
				}, valueFlags()...),
				Action: providerCreate,
			},
			{
				Name: "update", Usage: "replace credentials, in running sandboxes, too", ArgsUsage: "NAME",
				Flags: valueFlags(), Action: providerUpdate,
			},
			{Name: "get", Usage: "show a provider, without its values", ArgsUsage: "NAME", Flags: append(storeFlags(), outputFlag()), Action: providerGet},
			{Name: "list", Usage: "list the providers", Flags: append(storeFlags(), outputFlag()), Action: providerList},
			{
				Name: "attach", Usage: "give a running sandbox a provider", ArgsUsage: "CONTAINER NAME",
				Description: containerUsage + searched(), Flags: append(storeFlags(), rootFlag()), Action: providerAttach,
			},
			{
				Name: "detach", Usage: "take a provider from a running sandbox", ArgsUsage: "CONTAINER NAME",
				Description: containerUsage + searched(), Flags: sandboxFlags(), Action: providerDetach,
			},
			{Name: "delete", Usage: "forget a provider; running sandboxes lose it", ArgsUsage: "NAME", Flags: storeFlags(), Action: providerDelete},
			refreshCommand(), keyCommand(),
			{
				Name: "profile", Usage: "what services there are",
				Subcommands: []*cli.Command{
					{Name: "list", Usage: "list the profiles", Flags: append(storeFlags(), outputFlag()), Action: profileList},
					{Name: "get", Usage: "show a profile", ArgsUsage: "ID", Flags: append(storeFlags(), outputFlag()), Action: profileGet},
					{Name: "lint", Usage: "check a profile; status 3 if it is refused", ArgsUsage: "FILE", Action: profileLint},
					{Name: "import", Usage: "keep a profile, in place of a built-in one of its ID", ArgsUsage: "FILE", Flags: storeFlags(), Action: profileImport},
				},
			},
		},
	}
}

// argumentAndStore is what a command on one thing of the store begins with.
func argumentAndStore(c *cli.Context, what string) (string, *provider.Store, error) {
	argument, err := oneArgument(c, what)
	if err != nil {
		return "", nil, err
	}
	store, err := openStore(c)
	return argument, store, err
}

func providerCreate(c *cli.Context) error {
	name, store, err := argumentAndStore(c, "NAME")
	if err != nil {
		return err
	}
	id := c.String("type")
	if id == "" {
		id = name
	}
	profile, err := store.Profile(id)
	if err != nil {
		return err
	}
	if _, err := store.Get(name); err == nil {
		return thereAlready(name)
	} else if !errors.Is(err, provider.ErrNotFound) {
		return err
	}
	found, err := gather(c, profile)
	if err != nil {
		return err
	}
	if len(found) == 0 && !(c.Bool("runtime-credentials") && profile.Refreshed()) {
		return nothingFound(profile)
	}
	p := &provider.Provider{Name: name, Profile: id, Values: map[string]secret.Secret{}}
	found.into(p)
	if missing := profile.Missing(p); len(missing) > 0 && len(found) > 0 {
		return fmt.Errorf("profile %s needs %s as well; nothing was stored", profile.ID, strings.Join(missing, ", "))
	}
	release, err := store.Lock(name, provider.Exclusive)
	if err != nil {
		return err
	}
	_, err = store.Get(name)
	switch {
	case err == nil:
		err = thereAlready(name)
	case errors.Is(err, provider.ErrNotFound):
		err = store.Put(p)
	}
	release()
	if err != nil {
		return err
	}
	if p.Renewed() {
		if err := askOrigins(c, name); err != nil {
			return errors.Join(fmt.Errorf("%w; nothing was stored", err), store.Delete(name))
		}
		if p, err = store.Get(name); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.App.Writer, "provider %s stored, revision %d\n", p.Name, p.Revision)
	return err
}

func thereAlready(name string) error {
	return fmt.Errorf("provider %q is there already; openshell provider update replaces its values", name)
}

func nothingFound(p *provider.Profile) error {
	more := ""
	if p.Refreshed() {
		more = "; --runtime-credentials leaves them to a refresh"
	}
	return fmt.Errorf("no credential of profile %s was found: set one of %s, or name one with --credential%s; nothing was stored", p.ID, strings.Join(p.Variables(), ", "), more)
}

func providerUpdate(c *cli.Context) error {
	name, store, err := argumentAndStore(c, "NAME")
	if err != nil {
		return err
	}
	p, err := store.Get(name)
	if err != nil {
		return err
	}
	profile, err := store.Profile(p.Profile)
	if err != nil {
		return err
	}
	found, err := gather(c, profile)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nothingFound(profile)
	}
	p, err = store.Update(name, func(p *provider.Provider) (bool, error) {
		made := p.Made()
		for credential := range found {
			if o := p.Origins[made[credential]]; o != nil && o.Refreshes() {
				return false, fmt.Errorf("provider %s: %s is made by a refresh; openshell provider refresh delete %s ends that; nothing was stored", name, credential, name)
			}
		}
		found.into(p)
		return true, nil
	})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.App.Writer, "provider %s stored, revision %d\n", p.Name, p.Revision); err != nil {
		return err
	}
	if p.Renewed() {
		if err := askOrigins(c, name); err != nil {
			return err
		}
	}
	return announce(c, store, name, "in use")
}

// announce tells running sandboxes what is stored now, and says what that is in which.
func announce(c *cli.Context, store *provider.Store, name, outcome string) error {
	told, err := attached.Announce(c.Context, store, name)
	slices.Sort(told)
	for _, id := range told {
		if _, err := fmt.Fprintf(c.App.Writer, "%s in sandbox %s\n", outcome, id); err != nil {
			return err
		}
	}
	return err
}

// shown is a provider as it is printed: names of credentials, no values.
type shown struct {
	provider.Provider
	Credentials []string `json:"credentials"`
}

func providerGet(c *cli.Context) error {
	name, store, err := argumentAndStore(c, "NAME")
	if err != nil {
		return err
	}
	p, err := store.Get(name)
	if err != nil {
		return err
	}
	out := shown{*p, slices.Sorted(maps.Keys(p.Values))}
	if wantsJSON(c) {
		return printJSON(c, out)
	}
	if _, err = fmt.Fprintf(c.App.Writer, "name: %s\nprofile: %s\nrevision: %d\nupdated: %s\ncredentials: %s\n",
		p.Name, p.Profile, p.Revision, p.Updated.Format(timeLayout), strings.Join(out.Credentials, ", ")); err != nil {
		return err
	}
	if err := printOrigins(c, p); err != nil {
		return err
	}
	return printSandboxes(c, store, name)
}

// printSandboxes says which running sandboxes have a provider.
func printSandboxes(c *cli.Context, store *provider.Store, name string) error {
	all, err := attached.List(c.Context, store)
	slices.SortFunc(all, func(a, b attached.Sandbox) int { return strings.Compare(a.ID, b.ID) })
	for _, s := range all {
		for _, p := range s.Providers {
			if p.Name != name || p.Gone != "" {
				continue
			}
			if _, err := fmt.Fprintf(c.App.Writer, "in sandbox %s: revision %d\n", s.ID, p.Revision); err != nil {
				return err
			}
		}
	}
	return err
}

func providerList(c *cli.Context) error {
	store, err := openStore(c)
	if err != nil {
		return err
	}
	names, err := store.List()
	if err != nil {
		return err
	}
	var all []shown
	for _, n := range names {
		p, err := store.Get(n)
		if err != nil {
			return err
		}
		all = append(all, shown{*p, slices.Sorted(maps.Keys(p.Values))})
	}
	if wantsJSON(c) {
		return printJSON(c, all)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPROFILE\tREVISION\tCREDENTIALS")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", p.Name, p.Profile, p.Revision, strings.Join(p.Credentials, ","))
	}
	return w.Flush()
}

func providerDelete(c *cli.Context) error {
	name, store, err := argumentAndStore(c, "NAME")
	if err != nil {
		return err
	}
	if err := store.Delete(name); err != nil {
		return err
	}
	return announce(c, store, name, "refused from now on")
}

func profileList(c *cli.Context) error {
	store, err := openStore(c)
	if err != nil {
		return err
	}
	all, err := store.Profiles()
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c, all)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCATEGORY\tVARIABLES\tDESCRIPTION")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.ID, p.Category, strings.Join(p.Variables(), ","), clean(p.Description))
	}
	return w.Flush()
}

func profileGet(c *cli.Context) error {
	id, store, err := argumentAndStore(c, "ID")
	if err != nil {
		return err
	}
	p, err := store.Profile(id)
	if err != nil {
		return err
	}
	return printJSON(c, p)
}

func profileLint(c *cli.Context) error {
	file, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	text, err := readFile(file)
	if err != nil {
		return err
	}
	p, err := provider.ParseProfile(file, text)
	if err != nil {
		return cli.Exit(err.Error(), exitProblems)
	}
	for _, k := range p.Credentials {
		if k.AuthStyle == "" {
			fmt.Fprintf(c.App.Writer, "%s: warning: credential %s has no auth_style: its placeholder becomes a value in the header Authorization alone\n", file, k.Name)
		}
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: ok (%s)\n", file, p.ID)
	return err
}

func profileImport(c *cli.Context) error {
	file, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	text, err := readFile(file)
	if err != nil {
		return err
	}
	store, err := openStore(c)
	if err != nil {
		return err
	}
	p, err := store.Import(filepath.Base(file), text)
	if err != nil {
		return cli.Exit(err.Error(), exitProblems)
	}
	_, err = fmt.Fprintf(c.App.Writer, "profile %s imported\n", p.ID)
	return err
}
