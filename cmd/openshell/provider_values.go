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
	"time"

	"github.com/containerd/console"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

func valueFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "from-existing", Usage: "take the values that this environment has; what was found is shown, not the values, and on a terminal you are asked"},
		&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		&cli.StringSliceFlag{Name: "credential", Usage: "take a value: `VARIABLE` from this environment, or VARIABLE=- from a line of standard input"},
		&cli.StringSliceFlag{Name: "credential-file", Usage: "read a value from a file, again when it changes: `VARIABLE=PATH`"},
		&cli.StringSliceFlag{Name: "credential-env", Usage: "read a value from the environment of whoever creates a sandbox, and store none: `VARIABLE[=OTHER]`"},
		&cli.StringSliceFlag{Name: "credential-vault", Usage: "read a value from Vault, as VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE and VAULT_CACERT of this environment say: `VARIABLE=PATH#FIELD`"},
		&cli.StringSliceFlag{Name: "credential-kubernetes", Usage: "read a value from a Secret by the cluster's API, as a pod's service account: `VARIABLE=NAMESPACE/SECRET/KEY`"},
		operatorFlag(), storeFlag(),
	}
}

// given is a credential that a command was given: a value, or where it comes from.
type given struct {
	value  secret.Secret
	origin *provider.Origin
	// from is what a person is told of it.
	from string
}

// findings are those by the credential's name.
type findings map[string]given

func (f findings) into(p *provider.Provider) {
	for name, g := range f {
		delete(p.Expires, name)
		delete(p.Origins, name)
		if g.origin == nil {
			p.Values[name] = g.value
			continue
		}
		delete(p.Values, name)
		if p.Origins == nil {
			p.Origins = map[string]*provider.Origin{}
		}
		p.Origins[name] = g.origin
	}
}

// gather collects what the flags name and shows it; a person may still say no.
func gather(c *cli.Context, profile *provider.Profile) (findings, error) {
	out := findings{}
	asks := false
	if c.Bool("from-existing") {
		for _, found := range profile.Discover(os.Getenv) {
			out[found.Credential] = given{value: found.Value, from: found.Variable + length(found.Value)}
			asks = true
		}
	}
	in := bufio.NewReader(io.LimitReader(os.Stdin, provider.MaxValue*provider.MaxCredentials))
	for _, v := range c.StringSlice("credential") {
		variable, value, hasValue := strings.Cut(v, "=")
		if hasValue && value != "-" {
			return nil, wrongUse(c, fmt.Sprintf("--credential %s=…: a value in an argument is read by everybody; write %s to take it from the environment or %s=- for standard input", variable, variable, variable))
		}
		from := variable
		if hasValue {
			line, err := in.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read %s from standard input: %w", variable, err)
			}
			value, from = strings.TrimRight(line, "\r\n"), "standard input"
		} else {
			value = os.Getenv(variable)
		}
		v := secret.New(value)
		if err := out.put(c, profile, variable, given{value: v, from: from + length(v)}); err != nil {
			return nil, err
		}
		if value == "" {
			return nil, fmt.Errorf("%s is empty: nothing was stored", variable)
		}
	}
	for flag, read := range map[string]func(string) (*provider.Origin, string, error){
		"credential-file": fileOrigin, "credential-env": environmentOrigin, "credential-vault": vaultOrigin, "credential-kubernetes": kubernetesOrigin,
	} {
		for _, v := range c.StringSlice(flag) {
			variable, where, _ := strings.Cut(v, "=")
			if flag == "credential-env" && where == "" {
				where = variable
			}
			o, from, err := read(where)
			if err != nil {
				return nil, wrongUse(c, fmt.Sprintf("--%s %s: %s", flag, v, err))
			}
			o.Configured = time.Now().UTC()
			if err := out.put(c, profile, variable, given{origin: o, from: from}); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if _, err := fmt.Fprintf(c.App.Writer, "%s: taken from %s\n", name, out[name].from); err != nil {
			return nil, err
		}
	}
	if asks && !c.Bool("yes") {
		return out, ask(c, in)
	}
	return out, nil
}

func (f findings) put(c *cli.Context, profile *provider.Profile, variable string, g given) error {
	name, ok := profile.CredentialOf(variable)
	if !ok {
		return wrongUse(c, fmt.Sprintf("profile %s has no credential in %s; it has %s", profile.ID, clean(variable), strings.Join(profile.Variables(), ", ")))
	}
	f[name] = g
	return nil
}

func wrongUse(c *cli.Context, text string) error {
	return cli.Exit(c.Command.HelpName+": "+text, exitUsage)
}

// length is all that is shown of a value.
func length(s secret.Secret) string {
	return fmt.Sprintf(" (%d characters)", len([]rune(s.Reveal())))
}

// ask lets a person at a terminal look before anything is stored.
func ask(c *cli.Context, in *bufio.Reader) error {
	if _, err := console.ConsoleFromFile(os.Stdin); err != nil {
		return nil //nolint:nilerr // no terminal: nobody to ask
	}
	if _, err := fmt.Fprint(c.App.Writer, "Store these? [y/N] "); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing was stored")
	}
	return nil
}

func fileOrigin(where string) (*provider.Origin, string, error) {
	if where == "" {
		return nil, "", errors.New("want VARIABLE=PATH")
	}
	abs, err := filepath.Abs(where)
	if err != nil {
		return nil, "", err
	}
	return &provider.Origin{Kind: provider.FromFile, Settings: map[string]string{"path": abs}}, "file " + abs, nil
}

func environmentOrigin(where string) (*provider.Origin, string, error) {
	return &provider.Origin{Kind: provider.FromEnvironment, Settings: map[string]string{"variable": where}},
		"the variable " + clean(where) + " of whoever creates a sandbox", nil
}

func vaultOrigin(where string) (*provider.Origin, string, error) {
	path, field, ok := strings.Cut(where, "#")
	address, token := os.Getenv("VAULT_ADDR"), os.Getenv("VAULT_TOKEN")
	file := os.Getenv("VAULT_TOKEN_FILE")
	switch {
	case !ok || path == "" || field == "":
		return nil, "", errors.New("want VARIABLE=PATH#FIELD")
	case !strings.HasPrefix(address, "https://"):
		return nil, "", errors.New("VAULT_ADDR must be an address with https://")
	case token == "" && file == "":
		return nil, "", errors.New("set VAULT_TOKEN, or VAULT_TOKEN_FILE to a file that has one, which is read each time")
	}
	o := &provider.Origin{
		Kind: provider.FromVault, Settings: map[string]string{"address": address, "path": path, "field": field},
		Material: map[string]secret.Secret{},
	}
	if file != "" {
		o.Settings["token_file"] = file
	} else {
		o.Material["token"] = secret.New(token)
	}
	for setting, variable := range map[string]string{"namespace": "VAULT_NAMESPACE", "ca_file": "VAULT_CACERT"} {
		if v := os.Getenv(variable); v != "" {
			o.Settings[setting] = v
		}
	}
	return o, fmt.Sprintf("Vault %s, %s", clean(address), clean(where)), nil
}

// Where a pod finds the cluster.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

func kubernetesOrigin(where string) (*provider.Origin, string, error) {
	parts := strings.Split(where, "/")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return nil, "", errors.New("want VARIABLE=NAMESPACE/SECRET/KEY")
	}
	settings := map[string]string{
		"namespace": parts[0], "secret": parts[1], "key": parts[2],
		"server": "https://kubernetes.default.svc", "token_file": serviceAccount + "token", "ca_file": serviceAccount + "ca.crt",
	}
	// Outside a pod these say where the cluster is.
	for setting, variable := range map[string]string{"server": "KUBERNETES_SERVER", "token_file": "KUBERNETES_TOKEN_FILE", "ca_file": "KUBERNETES_CA_FILE"} {
		if v := os.Getenv(variable); v != "" {
			settings[setting] = v
		}
	}
	if !strings.HasPrefix(settings["server"], "https://") {
		return nil, "", errors.New("KUBERNETES_SERVER must be an address with https://")
	}
	return &provider.Origin{Kind: provider.FromKubernetes, Settings: settings}, "Secret " + clean(where), nil
}
