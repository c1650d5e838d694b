// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
)

const timeLayout = "2006-01-02 15:04:05 MST"

func refreshCommand() *cli.Command {
	key := func(required bool) cli.Flag {
		return &cli.StringFlag{Name: "credential-key", Usage: "`VARIABLE` of the credential", Required: required}
	}
	return &cli.Command{
		Name: "refresh", Usage: "refresh a provider's credentials now, or show their state", ArgsUsage: "NAME",
		Description: "With a NAME in place of a command, all credentials of that provider are refreshed.",
		Flags:       storeFlags(), Action: refreshRotate,
		Subcommands: []*cli.Command{
			{Name: "status", Usage: "show how the refreshes go", ArgsUsage: "NAME", Flags: append(storeFlags(), key(false), outputFlag()), Action: refreshStatus},
			{
				Name: "configure", Usage: "say what a credential is made from, and make it", ArgsUsage: "NAME",
				Description: "What is secret comes from the environment, a file or standard input, never from an\nargument, which every user of the machine can read.",
				Flags: []cli.Flag{
					key(true),
					&cli.StringFlag{Name: "strategy", Usage: "`STRATEGY`; it must be the profile's (default: that)"},
					&cli.StringSliceFlag{Name: "material", Usage: "what is no secret: `KEY=VALUE`"},
					&cli.BoolFlag{Name: "ambient-credentials", Usage: "assume an AWS role with what AWS's tools would take here: this environment's variables, AWS's files, the machine's role"},
					&cli.StringSliceFlag{Name: "secret-material-env", Usage: "a secret from this environment: `KEY[=VARIABLE]`"},
					&cli.StringSliceFlag{Name: "secret-material-file", Usage: "a secret from a file, kept: `KEY=PATH`; KEY=- from a line of standard input"},
					operatorFlag(), storeFlag(),
				},
				Action: refreshConfigure,
			},
			{Name: "rotate", Usage: "refresh credentials now", ArgsUsage: "NAME", Flags: append(storeFlags(), key(false)), Action: refreshRotate},
			{Name: "delete", Usage: "forget what a credential is made from; its value stays until its end", ArgsUsage: "NAME", Flags: append(storeFlags(), key(true)), Action: refreshDelete},
		},
	}
}

// named is the provider that a command names, and the credential that its
// --credential-key does; empty without one.
func named(c *cli.Context) (store *provider.Store, p *provider.Provider, profile *provider.Profile, credential string, err error) {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return nil, nil, nil, "", err
	}
	if store, err = openStore(c); err != nil {
		return nil, nil, nil, "", err
	}
	if p, err = store.Get(name); err != nil {
		return nil, nil, nil, "", err
	}
	if profile, err = store.Profile(p.Profile); err != nil {
		return nil, nil, nil, "", err
	}
	if key := c.String("credential-key"); key != "" {
		var ok bool
		if credential, ok = profile.CredentialOf(key); !ok {
			return nil, nil, nil, "", wrongUse(c, fmt.Sprintf("profile %s has no credential in %s; it has %s", profile.ID, clean(key), strings.Join(profile.Variables(), ", ")))
		}
	}
	return store, p, profile, credential, nil
}

func refreshRotate(c *cli.Context) error {
	_, p, _, credential, err := named(c)
	if err != nil {
		return err
	}
	if !p.Renewed() {
		return fmt.Errorf("provider %s: nothing makes its credentials; openshell provider refresh configure says what does, provider update gives values", p.Name)
	}
	args := []string{}
	if credential != "" {
		args = append(args, "--"+proxyapi.FlagCredential, credential)
	}
	if err := askOrigins(c, p.Name, args...); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "provider %s refreshed\n", p.Name)
	return err
}

// askOrigins has the refresher make a provider's credentials anew.
func askOrigins(c *cli.Context, name string, args ...string) error {
	conf, err := operatorConfig(c)
	if err != nil {
		return err
	}
	dir, err := storeDir(c)
	if err != nil {
		return err
	}
	bin, err := proxyapi.Beside(proxyapi.ProgramRefresher)
	if err != nil {
		return err
	}
	argv := append(proxyapi.RefresherArgs(proxyapi.RefresherOnce, dir, conf.Upstream.CAFiles), args...)
	cmd := exec.CommandContext(c.Context, bin, append(argv, name)...)
	cmd.Env = []string{}
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && said.Len() > 0 {
		return errors.New(strings.TrimSpace(said.String()))
	}
	if err != nil {
		return fmt.Errorf("run %s, which belongs beside this program: %w", proxyapi.ProgramRefresher, err)
	}
	return nil
}

func refreshConfigure(c *cli.Context) error {
	store, p, profile, credential, err := named(c)
	if err != nil {
		return err
	}
	settings, material, err := materials(c, profile, credential)
	if err != nil {
		return err
	}
	o, err := profile.NewRefresh(credential, settings, material, time.Now())
	if err != nil {
		return fmt.Errorf("%w; nothing was stored", err)
	}
	if s := strings.ReplaceAll(c.String("strategy"), "-", "_"); s != "" && s != o.Kind {
		return wrongUse(c, fmt.Sprintf("--strategy %s: the profile's is %s", c.String("strategy"), o.Kind))
	}
	if _, err := store.Update(p.Name, func(p *provider.Provider) (bool, error) {
		if p.Origins == nil {
			p.Origins = map[string]*provider.Origin{}
		}
		p.Origins[credential] = o
		return false, nil
	}); err != nil {
		return err
	}
	if err := askOrigins(c, p.Name, "--"+proxyapi.FlagCredential, credential); err != nil {
		return fmt.Errorf("configured, but: %w", err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s is made by %s\n", profile.Variable(credential), o.Kind)
	return err
}

// materials reads what a refresh is made from.
func materials(c *cli.Context, profile *provider.Profile, credential string) (settings map[string]string, secrets map[string]secret.Secret, err error) {
	settings, secrets = map[string]string{}, map[string]secret.Secret{}
	for _, v := range c.StringSlice("material") {
		k, value, ok := strings.Cut(v, "=")
		switch {
		case profile.SecretMaterial(credential, k):
			return nil, nil, wrongUse(c, fmt.Sprintf("--material %s=…: it is a secret, and an argument is read by everybody: --secret-material-env %s=VARIABLE, or --secret-material-file", k, k))
		case k == provider.Ambient:
			return nil, nil, wrongUse(c, "--material "+k+": write --ambient-credentials, which keeps what AWS's tools go by here")
		case !ok || value == "":
			return nil, nil, wrongUse(c, fmt.Sprintf("--material %s: want KEY=VALUE", clean(k)))
		}
		settings[k] = value
	}
	if c.Bool("ambient-credentials") {
		settings[provider.Ambient] = "true"
		for _, name := range provider.AmbientVariables {
			if v := os.Getenv(name); v != "" {
				settings[name] = v
			}
		}
		for _, name := range provider.SecretVariables {
			if v := os.Getenv(name); v != "" {
				secrets[name] = secret.New(v)
			}
		}
	}
	for _, v := range c.StringSlice("secret-material-env") {
		k, variable, ok := strings.Cut(v, "=")
		if !ok {
			variable = k
		}
		value := os.Getenv(variable)
		if value == "" {
			return nil, nil, fmt.Errorf("%s is empty: nothing was stored", clean(variable))
		}
		secrets[k] = secret.New(value)
	}
	in := bufio.NewReader(io.LimitReader(os.Stdin, provider.MaxValue*provider.MaxCredentials))
	for _, v := range c.StringSlice("secret-material-file") {
		k, file, _ := strings.Cut(v, "=")
		if file == "-" {
			line, err := in.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("read %s from standard input: %w", clean(k), err)
			}
			secrets[k] = secret.New(strings.TrimRight(line, "\r\n"))
			continue
		}
		text, err := boundedfile.Read(file, provider.MaxValue)
		if err != nil {
			return nil, nil, fmt.Errorf("--secret-material-file %s: %w", clean(k), err)
		}
		secrets[k] = secret.New(strings.TrimRight(string(text), "\r\n"))
	}
	return settings, secrets, nil
}

func refreshDelete(c *cli.Context) error {
	store, p, _, credential, err := named(c)
	if err != nil {
		return err
	}
	_, err = store.Update(p.Name, func(p *provider.Provider) (bool, error) {
		if p.Origins[credential] == nil {
			return false, fmt.Errorf("provider %s: nothing makes credential %s", p.Name, credential)
		}
		delete(p.Origins, credential)
		// Sandboxes must not wait for values that nobody makes.
		return true, nil
	})
	if err != nil {
		return err
	}
	return announce(c, store, p.Name, "in use")
}

// origin is one credential's origin as it is printed: what it is made from is named,
// nothing of it shown.
type origin struct {
	Variable   string `json:"variable"`
	Credential string `json:"credential"`
	provider.Origin
	Materials []string  `json:"materials,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`
}

func origins(p *provider.Provider, profile *provider.Profile, only string) []origin {
	out := []origin{}
	for _, name := range slices.Sorted(maps.Keys(p.Origins)) {
		if o := p.Origins[name]; only == "" || only == name {
			out = append(out, origin{profile.Variable(name), name, *o, slices.Sorted(maps.Keys(o.Material)), p.Expires[name]})
		}
	}
	return out
}

func refreshStatus(c *cli.Context) error {
	_, p, profile, credential, err := named(c)
	if err != nil {
		return err
	}
	all := origins(p, profile, credential)
	if wantsJSON(c) {
		return printJSON(c, all)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CREDENTIAL\tFROM\tEXPIRES\tLAST\tNEXT\tFAILURES\tERROR")
	for _, o := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", o.Variable, o.Kind, at(o.Expires), at(o.Status.Succeeded), at(o.Status.Next), o.Status.Failures, clean(o.Status.Error))
	}
	return w.Flush()
}

func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.RFC3339)
}

// printOrigins says where a provider's credentials come from, if not from a person.
func printOrigins(c *cli.Context, p *provider.Provider) error {
	for _, name := range slices.Sorted(maps.Keys(p.Origins)) {
		if _, err := fmt.Fprintf(c.App.Writer, "%s: from %s\n", name, p.Origins[name].Kind); err != nil {
			return err
		}
	}
	return nil
}
