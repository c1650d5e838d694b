// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/provider"
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
				}, valueFlags()...),
				Action: providerCreate,
			},
			{
				Name: "update", Usage: "replace credentials; sandboxes that run keep those they began with", ArgsUsage: "NAME",
				Flags: valueFlags(), Action: providerUpdate,
			},
			{Name: "get", Usage: "show a provider, without its values", ArgsUsage: "NAME", Flags: []cli.Flag{outputFlag(), storeFlag()}, Action: providerGet},
			{Name: "list", Usage: "list the providers", Flags: []cli.Flag{outputFlag(), storeFlag()}, Action: providerList},
			{Name: "delete", Usage: "forget a provider", ArgsUsage: "NAME", Flags: []cli.Flag{storeFlag()}, Action: providerDelete},
			{
				Name: "profile", Usage: "what services there are",
				Subcommands: []*cli.Command{
					{Name: "list", Usage: "list the profiles", Flags: []cli.Flag{outputFlag(), storeFlag()}, Action: profileList},
					{Name: "get", Usage: "show a profile", ArgsUsage: "ID", Flags: []cli.Flag{outputFlag(), storeFlag()}, Action: profileGet},
					{Name: "lint", Usage: "check a profile; status 3 if it is refused", ArgsUsage: "FILE", Action: profileLint},
					{Name: "import", Usage: "keep a profile, in place of a built-in one of its ID", ArgsUsage: "FILE", Flags: []cli.Flag{storeFlag()}, Action: profileImport},
				},
			},
		},
	}
}

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Usage: "`DIR` of the providers", Value: provider.DefaultDir}
}

func valueFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "from-existing", Usage: "take the values that this environment has; what was found is shown, not the values"},
		&cli.StringSliceFlag{Name: "credential", Usage: "take a value: `VARIABLE` from this environment, or VARIABLE=- from a line of standard input"},
		storeFlag(),
	}
}

func openStore(c *cli.Context) (*provider.Store, error) { return provider.Open(c.String("store")) }

func providerCreate(c *cli.Context) error {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	store, err := openStore(c)
	if err != nil {
		return err
	}
	if _, err := store.Get(name); err == nil {
		return fmt.Errorf("provider %q is there already; openshell provider update replaces its values", name)
	} else if !errors.Is(err, provider.ErrNotFound) {
		return err
	}
	id := c.String("type")
	if id == "" {
		id = name
	}
	return storeValues(c, store, &provider.Provider{Name: name, Profile: id, Values: map[string]provider.Secret{}})
}

func providerUpdate(c *cli.Context) error {
	name, err := oneArgument(c, "NAME")
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
	return storeValues(c, store, p)
}

// storeValues adds what the flags name to p and keeps it.
func storeValues(c *cli.Context, store *provider.Store, p *provider.Provider) error {
	profile, err := store.Profile(p.Profile)
	if err != nil {
		return err
	}
	from := map[string]string{}
	if c.Bool("from-existing") {
		for _, found := range profile.Discover(os.Getenv) {
			p.Values[found.Credential] = found.Value
			from[found.Credential] = found.Variable
		}
	}
	in := bufio.NewReader(io.LimitReader(os.Stdin, provider.MaxValue*provider.MaxCredentials))
	for _, v := range c.StringSlice("credential") {
		variable, value, given := strings.Cut(v, "=")
		if given && value != "-" {
			return cli.Exit(fmt.Sprintf("%s: --credential %s=…: a value in an argument is read by everybody; write %s to take it from the environment or %s=- for standard input", c.Command.HelpName, variable, variable, variable), exitUsage)
		}
		credential, ok := profile.CredentialOf(variable)
		if !ok {
			return cli.Exit(fmt.Sprintf("%s: profile %s has no credential in %s; it has %s", c.Command.HelpName, profile.ID, variable, strings.Join(profile.Variables(), ", ")), exitUsage)
		}
		if given {
			line, err := in.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s from standard input: %w", variable, err)
			}
			value = strings.TrimRight(line, "\r\n")
		} else {
			value = os.Getenv(variable)
		}
		if value == "" {
			return fmt.Errorf("%s is empty: nothing was stored", variable)
		}
		p.Values[credential], from[credential] = provider.NewSecret(value), variable
	}
	if len(from) == 0 {
		return fmt.Errorf("no credential of profile %s was found: set one of %s, or name one with --credential; nothing was stored", profile.ID, strings.Join(profile.Variables(), ", "))
	}
	if missing := profile.Missing(p.Values); len(missing) > 0 {
		return fmt.Errorf("profile %s needs %s as well; nothing was stored", profile.ID, strings.Join(missing, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if _, err := fmt.Fprintf(c.App.Writer, "%s: taken from %s\n", name, from[name]); err != nil {
			return err
		}
	}
	if err := store.Put(p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "provider %s stored, revision %d\n", p.Name, p.Revision)
	return err
}

// shown is a provider as it is printed: names of credentials, no values.
type shown struct {
	provider.Provider
	Credentials []string `json:"credentials"`
}

func providerGet(c *cli.Context) error {
	name, err := oneArgument(c, "NAME")
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
	out := shown{*p, slices.Sorted(maps.Keys(p.Values))}
	if wantsJSON(c) {
		return printJSON(c, out)
	}
	_, err = fmt.Fprintf(c.App.Writer, "name: %s\nprofile: %s\nrevision: %d\nupdated: %s\ncredentials: %s\n",
		p.Name, p.Profile, p.Revision, p.Updated.Format("2006-01-02 15:04:05 MST"), strings.Join(out.Credentials, ", "))
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
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	store, err := openStore(c)
	if err != nil {
		return err
	}
	return store.Delete(name)
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
	id, err := oneArgument(c, "ID")
	if err != nil {
		return err
	}
	store, err := openStore(c)
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
