// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
)

// Handed is what a sandbox's proxy is given of p, and never more: no material. The
// values of an environment are read with getenv; without it they stay what they are.
func (p *Provider) Handed(profile *Profile, getenv func(string) string) (*proxyapi.Update, error) {
	out := &proxyapi.Update{Name: p.Name, Revision: p.Revision}
	for _, k := range profile.Credentials {
		value, ok := p.Values[k.Name]
		if o := p.Origins[k.Name]; o != nil && o.Kind == FromEnvironment {
			if getenv == nil {
				out.Kept = append(out.Kept, k.Name)
				continue
			}
			value, ok = secret.New(getenv(o.Settings["variable"])), true
			if n := len(value.Reveal()); n == 0 || n > MaxValue {
				return nil, fmt.Errorf("provider %s: credential %s comes from the variable %s of whoever creates the sandbox, where it is empty or larger than %d bytes", p.Name, k.Name, o.Settings["variable"], MaxValue)
			}
		}
		if !ok {
			continue
		}
		for _, v := range k.EnvVars {
			c := proxyapi.Credential{Key: v, Value: value, Name: k.Name, Revision: p.Revision, Expires: p.Expires[k.Name]}
			switch k.style() {
			case "bearer", "basic", "header":
				c.Header = k.HeaderName
			case "query":
				c.Query = k.QueryParam
			case "path":
				c.Path = k.PathTemplate
			}
			out.Credentials = append(out.Credentials, c)
		}
	}
	out.Renewed = p.Renewed()
	return out, nil
}

// Take is what a sandbox's proxy is given of a provider, which stays as it is until
// release: what changes later, the proxy hears of.
func (s *Store) Take(name string, getenv func(string) string) (handed *proxyapi.Update, profile *Profile, release func(), err error) {
	if release, err = s.Lock(name, Shared); err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	p, err := s.Get(name)
	if err != nil {
		return nil, nil, nil, err
	}
	if profile, err = s.Profile(p.Profile); err != nil {
		return nil, nil, nil, fmt.Errorf("provider %s: %w", name, err)
	}
	handed, err = p.Handed(profile, getenv)
	return handed, profile, release, err
}

// Bind is what was handed with where it belongs.
func (p *Profile) Bind(handed *proxyapi.Update) *proxyapi.Provider {
	h := &proxyapi.Provider{
		Name: handed.Name, Revision: handed.Revision, Renewed: handed.Renewed, ModelAPI: p.InferenceCapable, Credentials: handed.Credentials,
	}
	for _, e := range p.Endpoints {
		h.Endpoints = append(h.Endpoints, proxyapi.Endpoint{Host: strings.ToLower(e.Host), Ports: e.EffectivePorts(), Path: e.Path})
	}
	for _, k := range p.Credentials {
		if k.HeaderName != "" {
			h.AuthHeaders = append(h.AuthHeaders, k.HeaderName)
		}
		if k.QueryParam != "" {
			h.AuthQuery = append(h.AuthQuery, k.QueryParam)
		}
	}
	return h
}

// Placeholder is what a workload has instead of the credential in a variable.
func Placeholder(variable string) string { return "openshell:resolve:env:" + variable }

// Placeholders are the variables, NAME=VALUE, that a workload has of a provider.
func Placeholders(p *proxyapi.Provider) (env []string) {
	for _, k := range p.Credentials {
		env = append(env, k.Key+"="+Placeholder(k.Key))
	}
	return env
}

// Renewed says whether values of p are made anew.
func (p *Provider) Renewed() bool {
	for _, o := range p.Origins {
		if o.Kind != FromEnvironment {
			return true
		}
	}
	return false
}

// Changes is what running sandboxes are told of a provider: what it is now, or that
// it was deleted.
func (s *Store) Changes(name string) (*proxyapi.Update, error) {
	p, err := s.Get(name)
	if errors.Is(err, ErrNotFound) {
		return &proxyapi.Update{Name: name, Deleted: true}, nil
	}
	if err != nil {
		return nil, err
	}
	profile, err := s.Profile(p.Profile)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", name, err)
	}
	return p.Handed(profile, nil)
}

// Variable is one that programs read a credential from.
func (p *Profile) Variable(credential string) string {
	i := slices.IndexFunc(p.Credentials, func(c Credential) bool { return c.Name == credential })
	if i < 0 || len(p.Credentials[i].EnvVars) == 0 {
		return credential
	}
	return p.Credentials[i].EnvVars[0]
}
