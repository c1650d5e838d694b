// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/inferencefile"
)

func inferenceCommand() *cli.Command {
	file := func() cli.Flag {
		return &cli.StringFlag{Name: "file", Usage: "`FILE` of the routes", Value: inferencefile.DefaultFile}
	}
	return &cli.Command{
		Name: "inference", Usage: "models that sandboxes reach at https://inference.local without a key",
		Description: "Sandboxes that are created afterwards have the routes.",
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "add a route, or replace the one of its name", ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "dialect", Usage: "`API` that the backend speaks: " + strings.Join(inferencefile.Dialects, ", "), Required: true},
					&cli.StringFlag{Name: "base-url", Usage: "`URL` as the API's own SDK takes it", Required: true},
					&cli.StringFlag{Name: "provider", Usage: "`NAME` of the provider that brings the key"},
					&cli.StringFlag{Name: "credential", Usage: "which of the provider's, if it has several"},
					&cli.StringFlag{Name: "model", Usage: "what the backend is asked for, whatever the caller names"},
					&cli.StringSliceFlag{Name: "match", Usage: "callers' models that the route takes (* is any text); without any it takes the rest"},
					&cli.StringSliceFlag{Name: "alias", Usage: "`CALLER=BACKEND` names of a model"},
					&cli.StringSliceFlag{Name: "fallback", Usage: "route to try when this one's backend fails"},
					&cli.IntFlag{Name: "weight", Usage: "share among routes that match as well"},
					file(),
				},
				Action: inferenceSet,
			},
			{Name: "get", Usage: "show the routes", Flags: []cli.Flag{outputFlag(), file()}, Action: inferenceGet},
			{Name: "delete", Usage: "remove a route", ArgsUsage: "NAME", Flags: []cli.Flag{file()}, Action: inferenceDelete},
		},
	}
}

func inferenceSet(c *cli.Context) error {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	f, err := inferencefile.Load(c.String("file"))
	if err != nil {
		return err
	}
	r := inferencefile.Route{
		Name: name, Dialect: c.String("dialect"), BaseURL: c.String("base-url"), Provider: c.String("provider"), Credential: c.String("credential"),
		Model: c.String("model"), Models: c.StringSlice("match"), Fallbacks: c.StringSlice("fallback"), Weight: c.Int("weight"),
	}
	for _, a := range c.StringSlice("alias") {
		from, to, ok := strings.Cut(a, "=")
		if !ok {
			return cli.Exit(fmt.Sprintf("%s: --alias %q: want CALLER=BACKEND", c.Command.HelpName, a), exitUsage)
		}
		if r.Aliases == nil {
			r.Aliases = map[string]string{}
		}
		r.Aliases[from] = to
	}
	if i := slices.IndexFunc(f.Routes, func(o inferencefile.Route) bool { return o.Name == name }); i >= 0 {
		f.Routes[i] = r
	} else {
		f.Routes = append(f.Routes, r)
	}
	if err := f.Save(c.String("file")); err != nil {
		return cli.Exit(err.Error(), exitProblems)
	}
	_, err = fmt.Fprintf(c.App.Writer, "route %s set\n", name)
	return err
}

func inferenceGet(c *cli.Context) error {
	f, err := inferencefile.Load(c.String("file"))
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
	f, err := inferencefile.Load(c.String("file"))
	if err != nil {
		return err
	}
	n := len(f.Routes)
	f.Routes = slices.DeleteFunc(f.Routes, func(r inferencefile.Route) bool { return r.Name == name })
	if len(f.Routes) == n {
		return fmt.Errorf("there is no route %q; openshell inference get shows them", name)
	}
	return f.Save(c.String("file"))
}
