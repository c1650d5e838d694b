// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/inferencefile"
)

func inferenceCommand() *cli.Command {
	fields := func(required bool) []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "dialect", Usage: "`API` that the backend speaks: " + strings.Join(inferencefile.Dialects, ", "), Required: required},
			&cli.StringFlag{Name: "base-url", Usage: "`URL` as the API's own SDK takes it", Required: required},
			&cli.StringFlag{Name: "provider", Usage: "`NAME` of the provider that brings the key"},
			&cli.StringFlag{Name: "credential", Usage: "which of the provider's, if it has several"},
			&cli.StringFlag{Name: "region", Usage: "`REGION` that requests to AWS are signed for, if the URL does not say it"},
			&cli.StringFlag{Name: "model", Usage: "what the backend is asked for, whatever the caller names"},
			&cli.StringSliceFlag{Name: "match", Usage: "callers' models that the route takes (* is any text); without any it takes the rest"},
			&cli.StringSliceFlag{Name: "alias", Usage: "`CALLER=BACKEND` names of a model"},
			&cli.StringSliceFlag{Name: "fallback", Usage: "route to try when this one's backend fails"},
			&cli.IntFlag{Name: "weight", Usage: "share among routes that match as well"},
			routesFlag(), operatorFlag(), storeFlag(),
		}
	}
	return &cli.Command{
		Name: "inference", Usage: "models that sandboxes reach at https://inference.local without a key",
		Description: "Running sandboxes that were created with a route have the others at once; others get them\nwhen they are created.",
		Subcommands: []*cli.Command{
			{Name: "set", Usage: "add a route, or replace the one of its name", ArgsUsage: "NAME", Flags: fields(true), Action: inferenceSet},
			{Name: "update", Usage: "change what is named of a route", ArgsUsage: "NAME", Flags: fields(false), Action: inferenceUpdate},
			{Name: "get", Usage: "show the routes", Flags: []cli.Flag{outputFlag(), routesFlag(), operatorFlag()}, Action: inferenceGet},
			{Name: "delete", Usage: "remove a route", ArgsUsage: "NAME", Flags: append(storeFlags(), routesFlag()), Action: inferenceDelete},
			{
				Name: "metrics", Usage: "print what a sandbox's router has counted, as Prometheus reads it", ArgsUsage: "CONTAINER",
				Description: containerUsage + searched(), Flags: sandboxFlags(), Action: onSandbox(inferenceMetrics),
			},
		},
	}
}

func inferenceSet(c *cli.Context) error {
	return changeRoute(c, func(f *inferencefile.File, i int, name string) (int, error) {
		if i < 0 {
			i, f.Routes = len(f.Routes), append(f.Routes, inferencefile.Route{})
		}
		f.Routes[i] = inferencefile.Route{Name: name}
		return i, nil
	})
}

func inferenceUpdate(c *cli.Context) error {
	return changeRoute(c, func(_ *inferencefile.File, i int, name string) (int, error) {
		if i < 0 {
			return 0, noRoute(name)
		}
		return i, nil
	})
}

func noRoute(name string) error {
	return fmt.Errorf("there is no route %q; openshell inference get shows them", name)
}

// changeRoute writes the flags that are there into the route that find chooses, given
// where the one of the name is.
func changeRoute(c *cli.Context, find func(f *inferencefile.File, i int, name string) (int, error)) error {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	f, file, err := loadRoutes(c)
	if err != nil {
		return err
	}
	i, err := find(f, slices.IndexFunc(f.Routes, func(o inferencefile.Route) bool { return o.Name == name }), name)
	if err != nil {
		return err
	}
	r := &f.Routes[i]
	for flag, to := range map[string]*string{
		"dialect": &r.Dialect, "base-url": &r.BaseURL, "provider": &r.Provider, "credential": &r.Credential, "region": &r.Region, "model": &r.Model,
	} {
		if c.IsSet(flag) {
			*to = c.String(flag)
		}
	}
	for flag, to := range map[string]*[]string{"match": &r.Models, "fallback": &r.Fallbacks} {
		if c.IsSet(flag) {
			*to = c.StringSlice(flag)
		}
	}
	if c.IsSet("weight") {
		r.Weight = c.Int("weight")
	}
	if c.IsSet("alias") {
		r.Aliases = map[string]string{}
	}
	for _, a := range c.StringSlice("alias") {
		from, to, ok := strings.Cut(a, "=")
		if !ok {
			return cli.Exit(fmt.Sprintf("%s: --alias %q: want CALLER=BACKEND", c.Command.HelpName, a), exitUsage)
		}
		r.Aliases[from] = to
	}
	return saveRoutes(c, file, f, "route "+name+" set")
}

// loadRoutes reads the routes and returns the file that has them.
func loadRoutes(c *cli.Context) (*inferencefile.File, string, error) {
	file, err := routesFile(c)
	if err != nil {
		return nil, "", err
	}
	f, err := inferencefile.Load(file)
	return f, file, err
}

// saveRoutes writes the routes and has running sandboxes use them.
func saveRoutes(c *cli.Context, file string, f *inferencefile.File, done string) error {
	if err := f.Save(file); err != nil {
		return cli.Exit(err.Error(), exitProblems)
	}
	if _, err := fmt.Fprintln(c.App.Writer, done); err != nil {
		return err
	}
	store, err := openStore(c)
	if err != nil {
		return err
	}
	routes, err := store.Routes(f)
	if err != nil {
		return fmt.Errorf("running sandboxes keep the routes they have: %w", err)
	}
	told, err := attached.AnnounceRoutes(c.Context, store, routes)
	slices.Sort(told)
	for _, id := range told {
		if _, err := fmt.Fprintf(c.App.Writer, "in use in sandbox %s\n", id); err != nil {
			return err
		}
	}
	return err
}

func inferenceMetrics(c *cli.Context, s sandbox) error {
	text, err := s.proxy().Metrics(c.Context)
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}

func inferenceGet(c *cli.Context) error {
	f, _, err := loadRoutes(c)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c, f)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDIALECT\tBASE URL\tPROVIDER\tMODEL")
	for _, r := range f.Routes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Dialect, r.BaseURL, r.Provider, r.Model)
	}
	return w.Flush()
}

func inferenceDelete(c *cli.Context) error {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	f, file, err := loadRoutes(c)
	if err != nil {
		return err
	}
	n := len(f.Routes)
	f.Routes = slices.DeleteFunc(f.Routes, func(r inferencefile.Route) bool { return r.Name == name })
	if len(f.Routes) == n {
		return noRoute(name)
	}
	return saveRoutes(c, file, f, "route "+name+" deleted")
}
