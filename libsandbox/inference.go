// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/handoff"
	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/libsandbox/operator"
)

// inference reads the operator's routes with their credentials, and the variables
// by which the SDKs of their dialects find the router. Without routes there is no
// router.
func inference(c *operator.Config, from *custody) (*handoff.Inference, []string, error) {
	file, err := inferencefile.Load(c.InferenceFile)
	if err != nil || len(file.Routes) == 0 {
		return nil, nil, err
	}
	out := &handoff.Inference{File: *file, Keys: map[string]handoff.RouteKey{}}
	for _, r := range file.Routes {
		if r.Provider == "" {
			continue
		}
		key, err := routeKey(from, &r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: route %s: %w", c.InferenceFile, r.Name, err)
		}
		out.Keys[r.Name] = *key
	}
	return out, baseURLs(file.Routes), nil
}

// routeKey is the credential of a route's provider, the first that has a value
// unless the route names one.
func routeKey(from *custody, r *inferencefile.Route) (*handoff.RouteKey, error) {
	handed, profile, err := from.take(r.Provider)
	if err != nil {
		return nil, err
	}
	for _, k := range profile.Credentials {
		i := slices.IndexFunc(handed.Credentials, func(c handoff.Credential) bool { return c.Name == k.Name })
		if i < 0 || r.Credential != "" && k.Name != r.Credential {
			continue
		}
		c := handed.Credentials[i]
		key := &handoff.RouteKey{Value: c.Value, Credential: k.Name, Revision: handed.Revision, Renewed: handed.Renewed, Expires: c.Expires}
		switch key.Style = strings.ToLower(strings.TrimSpace(k.AuthStyle)); key.Style {
		case "bearer", "":
			key.Style = "bearer"
		case "header":
			key.Name = k.HeaderName
		case "query":
			key.Name = k.QueryParam
		default:
			return nil, fmt.Errorf("provider %s: credential %s is sent as %s, which the router does not do", r.Provider, k.Name, key.Style)
		}
		return key, nil
	}
	return nil, fmt.Errorf("provider %s has no credential %s", r.Provider, r.Credential)
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
	}
	if has("gemini") {
		out = append(out, "GOOGLE_GEMINI_BASE_URL=https://inference.local", "GEMINI_API_KEY="+key)
	}
	if has("ollama") {
		out = append(out, "OLLAMA_HOST=https://inference.local")
	}
	return out
}
