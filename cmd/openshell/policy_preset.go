// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/registry"
	"openshell.dev/runtime/policy"
)

func policyPresetCommand() *cli.Command {
	var names []string
	for _, k := range registry.Clients() {
		names = append(names, k.Name)
	}
	return &cli.Command{
		Name:      "preset",
		Usage:     "print the entry of a policy with which a package client (" + strings.Join(names, ", ") + ") reads from its registries",
		ArgsUsage: "CLIENT",
		Description: "The registries are those that the client is configured for on this machine and in\n" +
			"this folder: it is asked. Packages are read; nothing is published.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "binary", Usage: "`PATH` of a program in the container that may read, in place of the usual ones; may be repeated"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usage(c, "name one client: "+strings.Join(names, ", "))
			}
			i := slices.Index(names, c.Args().First())
			if i < 0 {
				return usage(c, fmt.Sprintf("there is no preset %q; there are %s", c.Args().First(), strings.Join(names, ", ")))
			}
			client := registry.Clients()[i]
			if b := c.StringSlice("binary"); len(b) > 0 {
				client.Binaries = b
			}
			from, err := client.Registries(c.Context)
			if err != nil {
				return err
			}
			text, err := preset(&client, from)
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}

// The parts of a policy that a preset has.
type (
	presetFile struct {
		Version int                    `yaml:"version"`
		Network map[string]presetEntry `yaml:"network_policies"`
	}
	presetEntry struct {
		Endpoints []presetEndpoint `yaml:"endpoints"`
		Binaries  []presetBinary   `yaml:"binaries,flow"`
	}
	presetEndpoint struct {
		Host        string       `yaml:"host"`
		Port        int          `yaml:"port"`
		Protocol    string       `yaml:"protocol"`
		Enforcement string       `yaml:"enforcement"`
		Access      string       `yaml:"access,omitempty"`
		Rules       []presetRule `yaml:"rules,omitempty"`
	}
	presetBinary struct {
		Path string `yaml:"path"`
	}
	presetRule struct {
		Allow presetAllow `yaml:"allow,flow"`
	}
	presetAllow struct {
		Method string `yaml:"method"`
		Path   string `yaml:"path"`
	}
)

// preset is a policy with which a client reads from its registries.
func preset(client *registry.Client, from []*url.URL) ([]byte, error) {
	entry := presetEntry{}
	for _, b := range client.Binaries {
		entry.Binaries = append(entry.Binaries, presetBinary{b})
	}
	for _, u := range from {
		e := presetEndpoint{Host: u.Hostname(), Port: 443, Protocol: "rest", Enforcement: "enforce", Access: "read-only"}
		if u.Scheme == "http" {
			e.Port = 80
		}
		if p := u.Port(); p != "" {
			var err error
			if e.Port, err = strconv.Atoi(p); err != nil {
				return nil, fmt.Errorf("%s: port %q", client.Name, p)
			}
		}
		// A registry below a path is not the whole host.
		if path := strings.TrimSuffix(u.Path, "/"); path != "" {
			if strings.ContainsAny(path, `*?[]{}\`) {
				return nil, fmt.Errorf("%s: the path of %s has characters that a policy takes for patterns", client.Name, u.Host)
			}
			e.Access = ""
			for _, m := range []string{"GET", "HEAD"} {
				e.Rules = append(e.Rules, presetRule{presetAllow{m, path + "/**"}})
			}
		}
		at := slices.IndexFunc(entry.Endpoints, func(o presetEndpoint) bool { return o.Host == e.Host && o.Port == e.Port })
		switch {
		case at < 0:
			entry.Endpoints = append(entry.Endpoints, e)
		case e.Access != "":
			entry.Endpoints[at] = e
		case entry.Endpoints[at].Access == "":
			entry.Endpoints[at].Rules = append(entry.Endpoints[at].Rules, e.Rules...)
		}
	}
	text, err := yaml.Marshal(presetFile{1, map[string]presetEntry{client.Name: entry}})
	if err != nil {
		return nil, err
	}
	text = append([]byte("# Reads packages from where "+client.Name+" is configured to on the machine that printed this.\n"), text...)
	if _, err := policy.Parse("preset "+client.Name, text); err != nil {
		return nil, fmt.Errorf("the client's registries make no policy: %w", err)
	}
	return text, nil
}
