// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/handoff"
	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/libsandbox/operator"
)

// inference reads the operator's routes with their credentials, and the variables
// by which the SDKs of their dialects find the router. Without routes there is no
// router.
func inference(c *operator.Config) (*handoff.Inference, []string, error) {
	file, err := inferencefile.Load(c.InferenceFile)
	if err != nil || len(file.Routes) == 0 {
		return nil, nil, err
	}
	out := &handoff.Inference{File: *file, Keys: map[string]handoff.RouteKey{}}
	var store *provider.Store
	for _, r := range file.Routes {
		if r.Provider == "" {
			continue
		}
		if store == nil {
			if store, err = provider.Open(c.ProvidersDir); err != nil {
				return nil, nil, err
			}
		}
		key, err := routeKey(store, &r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: route %s: %w", c.InferenceFile, r.Name, err)
		}
		out.Keys[r.Name] = *key
	}
	return out, baseURLs(file.Routes), nil
}

// routeKey is the credential of a route's provider, the first that has a value
// unless the route names one.
func routeKey(store *provider.Store, r *inferencefile.Route) (*handoff.RouteKey, error) {
	p, err := store.Get(r.Provider)
	if err != nil {
		return nil, err
	}
	profile, err := store.Profile(p.Profile)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", p.Name, err)
	}
	for _, k := range profile.Credentials {
		value, ok := p.Values[k.Name]
		if !ok || r.Credential != "" && k.Name != r.Credential {
			continue
		}
		switch style := strings.ToLower(strings.TrimSpace(k.AuthStyle)); style {
		case "bearer", "":
			return &handoff.RouteKey{Style: "bearer", Value: value.Reveal()}, nil
		case "header":
			return &handoff.RouteKey{Style: style, Name: k.HeaderName, Value: value.Reveal()}, nil
		case "query":
			return &handoff.RouteKey{Style: style, Name: k.QueryParam, Value: value.Reveal()}, nil
		default:
			return nil, fmt.Errorf("provider %s: credential %s is sent as %s, which the router does not do", p.Name, k.Name, style)
		}
	}
	return nil, fmt.Errorf("provider %s has no credential %s", p.Name, r.Credential)
}

// baseURLs point the SDKs of the routes' dialects at the router. Their keys are
// words: the router takes none, the SDKs want one.
func baseURLs(routes []inferencefile.Route) []string {
	var out []string
	has := func(dialects ...string) bool {
		return slices.ContainsFunc(routes, func(r inferencefile.Route) bool { return slices.Contains(dialects, r.Dialect) })
	}
	const key = "openshell-router"
	if has("anthropic", "vertex-claude") {
		out = append(out, "ANTHROPIC_BASE_URL=https://inference.local", "ANTHROPIC_API_KEY="+key)
	}
	if has("openai", "nvidia") {
		out = append(out, "OPENAI_BASE_URL=https://inference.local/v1", "OPENAI_API_KEY="+key)
		out = append(out, copilot(routes)...)
	}
	if has("gemini") {
		out = append(out, "GOOGLE_GEMINI_BASE_URL=https://inference.local", "GEMINI_API_KEY="+key)
	}
	if has("ollama") {
		out = append(out, "OLLAMA_HOST=https://inference.local")
	}
	return out
}

// copilot points Copilot CLI, which has variables of its own, at the router, if a
// route says which model: it wants to be told one.
func copilot(routes []inferencefile.Route) []string {
	for _, r := range routes {
		if r.Dialect == "openai" && r.Model != "" {
			return []string{"COPILOT_PROVIDER_BASE_URL=https://inference.local/v1", "COPILOT_MODEL=" + r.Model}
		}
	}
	return nil
}
