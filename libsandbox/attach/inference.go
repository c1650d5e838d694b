// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"slices"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// inference reads the operator's routes of inference.local, with the credentials of their
// providers. It returns nil if there are no routes.
func inference(name string, l *leases) (*proxyapi.Inference, error) {
	file, err := inferencefile.Load(name)
	if err != nil || len(file.Routes) == 0 {
		return nil, err
	}
	out := &proxyapi.Inference{File: *file, Keys: map[string]proxyapi.RouteKey{}}
	for _, r := range file.Routes {
		if r.Provider == "" {
			continue
		}
		p, err := l.acquire(r.Provider)
		if err != nil {
			return nil, fmt.Errorf("%s: route %s: %w", name, r.Name, err)
		}
		key, err := p.profile.RouteKey(p.values, &r)
		if err != nil {
			return nil, fmt.Errorf("%s: route %s: %w", name, r.Name, err)
		}
		out.Keys[r.Name] = *key
	}
	return out, nil
}

// baseURLs returns the variables, NAME=VALUE, by which the SDKs of the routes' dialects
// find inference.local. The keys in them are only words: the router needs no key, but an
// SDK does not start without one.
func baseURLs(routes []inferencefile.Route) []string {
	var out []string
	has := func(dialects ...string) bool {
		return slices.ContainsFunc(routes, func(r inferencefile.Route) bool { return slices.Contains(dialects, r.Dialect) })
	}
	const key = "openshell-router"
	if has("anthropic", "vertex-claude") {
		out = append(out, "ANTHROPIC_BASE_URL=https://"+policy.RouterHost, "ANTHROPIC_API_KEY="+key)
	}
	if has("openai", "nvidia") {
		out = append(out, "OPENAI_BASE_URL=https://"+policy.RouterHost+"/v1", "OPENAI_API_KEY="+key)
		out = append(out, copilot(routes)...)
	}
	if has("gemini") {
		out = append(out, "GOOGLE_GEMINI_BASE_URL=https://"+policy.RouterHost, "GEMINI_API_KEY="+key)
	}
	if has("ollama") {
		out = append(out, "OLLAMA_HOST=https://"+policy.RouterHost)
	}
	return out
}

// copilot returns the variables of Copilot CLI, which does not read OpenAI's. It must be
// told a model, so there are none unless a route names one. Without COPILOT_OFFLINE it
// first asks GitHub, which it does not need, and tries again for more than a minute.
func copilot(routes []inferencefile.Route) []string {
	for _, r := range routes {
		if r.Dialect == "openai" && r.Model != "" {
			return []string{"COPILOT_PROVIDER_BASE_URL=https://" + policy.RouterHost + "/v1", "COPILOT_MODEL=" + r.Model, "COPILOT_OFFLINE=true"}
		}
	}
	return nil
}
