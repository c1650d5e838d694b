// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/handoff"
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
func providers(flag []string, spec *specs.Spec, c *operator.Config, from *custody) (out []handoff.Provider, env []string, err error) {
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
	owner := map[string]string{}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		handed, profile, err := from.take(name)
		if err != nil {
			return nil, nil, err
		}
		h := handoff.Provider{
			Name: name, Revision: handed.Revision, Renewed: handed.Renewed, ModelAPI: profile.InferenceCapable, Credentials: handed.Credentials,
		}
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
		}
		for _, k := range handed.Credentials {
			if o := owner[k.Key]; o != "" {
				return nil, nil, fmt.Errorf("providers %s and %s both bring %s: attach one of them", o, name, k.Key)
			}
			owner[k.Key] = name
			env = append(env, k.Key+"="+placeholder+k.Key)
		}
		out = append(out, h)
	}
	return out, env, nil
}
