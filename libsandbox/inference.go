// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// inference reads the operator's routes with their credentials, and the variables
// by which the SDKs of their dialects find the router. Without routes there is no
// router.
func inference(c *operator.Config, from *custody) (*proxyapi.Inference, []string, error) {
	file, err := inferencefile.Load(c.InferenceFile)
	if err != nil || len(file.Routes) == 0 {
		return nil, nil, err
	}
	out := &proxyapi.Inference{File: *file, Keys: map[string]proxyapi.RouteKey{}}
	for _, r := range file.Routes {
		if r.Provider == "" {
			continue
		}
		handed, profile, err := from.take(r.Provider)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: route %s: %w", c.InferenceFile, r.Name, err)
		}
		key, err := profile.RouteKey(handed, &r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: route %s: %w", c.InferenceFile, r.Name, err)
		}
		out.Keys[r.Name] = *key
	}
	return out, baseURLs(file.Routes), nil
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

// copilot points Copilot CLI, which has variables of its own, at the router, if a
// route says which model: it wants to be told one. Without COPILOT_OFFLINE it first
// asks GitHub, which it does not need, again and again for more than a minute.
func copilot(routes []inferencefile.Route) []string {
	for _, r := range routes {
		if r.Dialect == "openai" && r.Model != "" {
			return []string{"COPILOT_PROVIDER_BASE_URL=https://" + policy.RouterHost + "/v1", "COPILOT_MODEL=" + r.Model, "COPILOT_OFFLINE=true"}
		}
	}
	return nil
}
