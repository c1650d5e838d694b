// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"slices"

	"openshell.dev/runtime/internal/secret"
)

// Found is a credential that an environment has.
type Found struct {
	// Credential is its name in the profile, Variable where it was.
	Credential, Variable string
	Value                secret.Secret
}

// Discover finds the profile's credentials in an environment: of the variables of
// one, the first that is set.
func (p *Profile) Discover(getenv func(string) string) []Found {
	var out []Found
	for _, c := range p.Credentials {
		if len(p.Discovery.Credentials) > 0 && !slices.Contains(p.Discovery.Credentials, c.Name) {
			continue
		}
		for _, v := range c.EnvVars {
			if value := getenv(v); value != "" {
				out = append(out, Found{c.Name, v, secret.New(value)})
				break
			}
		}
	}
	return out
}

// CredentialOf is the credential that programs read from a variable.
func (p *Profile) CredentialOf(variable string) (name string, ok bool) {
	for _, c := range p.Credentials {
		if slices.Contains(c.EnvVars, variable) {
			return c.Name, true
		}
	}
	return "", false
}

// Variables are all that programs read credentials from.
func (p *Profile) Variables() []string {
	var out []string
	for _, c := range p.Credentials {
		out = append(out, c.EnvVars...)
	}
	return out
}

// Missing names the required credentials that a provider has neither a value nor an
// origin of.
func (p *Profile) Missing(v *Provider) []string {
	made := v.Made()
	var out []string
	for _, c := range p.Credentials {
		if _, ok := v.Values[c.Name]; c.Required && !ok && made[c.Name] == "" {
			out = append(out, c.Name)
		}
	}
	return out
}

// Refreshed says whether all that the profile requires can be made by its refresh.
func (p *Profile) Refreshed() bool {
	made := map[string]bool{}
	for _, c := range p.Credentials {
		if c.Refresh == nil {
			continue
		}
		made[c.Name] = true
		for _, a := range c.Refresh.AdditionalOutputs {
			made[a.Credential] = true
		}
	}
	for _, c := range p.Credentials {
		if c.Required && !made[c.Name] {
			return false
		}
	}
	return len(made) > 0
}
