// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"slices"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/proxyapi"
)

// RouteKey is the credential by which a route of the privacy router uses a provider:
// the one it names, or the first that has a value. Bedrock takes AWS keys together.
func (p *Profile) RouteKey(handed *proxyapi.Update, r *inferencefile.Route) (*proxyapi.RouteKey, error) {
	credential := r.Credential
	if r.Dialect == "bedrock" && credential == "" {
		if key, ok := handed.AWSKey(); ok {
			return key, nil
		}
	}
	for _, k := range p.Credentials {
		i := slices.IndexFunc(handed.Credentials, func(c proxyapi.Credential) bool { return c.Name == k.Name })
		if i < 0 || credential != "" && k.Name != credential {
			continue
		}
		c := handed.Credentials[i]
		key := &proxyapi.RouteKey{Value: c.Value, Credential: k.Name, Revision: handed.Revision, Renewed: handed.Renewed, Expires: c.Expires}
		switch key.Style = k.style(); key.Style {
		case "bearer", "":
			key.Style = "bearer"
		case "header":
			key.Name = k.HeaderName
		case "query":
			key.Name = k.QueryParam
		default:
			return nil, fmt.Errorf("provider %s: credential %s is sent as %s, which the router does not do", handed.Name, k.Name, key.Style)
		}
		return key, nil
	}
	return nil, fmt.Errorf("provider %s has no credential %s", handed.Name, credential)
}

// Routes are the operator's routes with their keys, for sandboxes that run. A key
// that comes from the environment of whoever creates a sandbox is not known here.
func (s *Store) Routes(f *inferencefile.File) (*proxyapi.Inference, error) {
	out := &proxyapi.Inference{File: *f, Keys: map[string]proxyapi.RouteKey{}}
	for _, r := range f.Routes {
		if r.Provider == "" {
			continue
		}
		p, err := s.Get(r.Provider)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		profile, err := s.Profile(p.Profile)
		if err != nil {
			return nil, fmt.Errorf("route %s: provider %s: %w", r.Name, p.Name, err)
		}
		handed, err := p.Handed(profile, nil)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		key, err := profile.RouteKey(handed, &r)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		out.Keys[r.Name] = *key
	}
	return out, nil
}
