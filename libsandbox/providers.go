// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/handoff"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/libsandbox/operator"
)

// AnnotationProviders attaches providers to a container: names, with commas.
const AnnotationProviders = "openshell.dev/providers"

// placeholder is what a workload has instead of a credential.
const placeholder = "openshell:resolve:env:"

// providers reads the providers that the flag or the annotation names: what the
// proxy is given of them, and the variables that the workload gets. One that is
// named and cannot be used is an error: the agent would not work, or worse, look
// for a key elsewhere.
func providers(flag []string, spec *specs.Spec, c *operator.Config) (out []handoff.Provider, env []string, err error) {
	names := slices.Clone(flag)
	if list, ok := spec.Annotations[AnnotationProviders]; ok {
		if !c.AnnotationProviders {
			return nil, nil, fmt.Errorf("annotation %s: the operator's configuration does not honour it (annotation_providers: true)", AnnotationProviders)
		}
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	store, err := provider.Open(c.ProvidersDir)
	if err != nil {
		return nil, nil, err
	}
	owner := map[string]string{}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		p, err := store.Get(name)
		if err != nil {
			return nil, nil, err
		}
		profile, err := store.Profile(p.Profile)
		if err != nil {
			return nil, nil, fmt.Errorf("provider %s: %w", name, err)
		}
		h := handoff.Provider{Name: name, ModelAPI: profile.InferenceCapable}
		for _, e := range profile.Endpoints {
			h.Endpoints = append(h.Endpoints, handoff.Endpoint{Host: strings.ToLower(e.Host), Ports: e.EffectivePorts(), Path: e.Path})
		}
		for _, k := range profile.Credentials {
			if k.HeaderName != "" {
				h.AuthHeaders = append(h.AuthHeaders, k.HeaderName)
			}
			if k.QueryParam != "" {
				h.AuthQuery = append(h.AuthQuery, k.QueryParam)
			}
			value, ok := p.Values[k.Name]
			if !ok {
				continue
			}
			for _, v := range k.EnvVars {
				if o := owner[v]; o != "" {
					return nil, nil, fmt.Errorf("providers %s and %s both bring %s: attach one of them", o, name, v)
				}
				owner[v] = name
				h.Credentials = append(h.Credentials, handoff.Credential{Key: v, Value: value.Reveal()})
				env = append(env, v+"="+placeholder+v)
			}
		}
		out = append(out, h)
	}
	return out, env, nil
}
