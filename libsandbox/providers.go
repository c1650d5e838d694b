// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// AnnotationProviders attaches providers to a container: names, with commas.
const AnnotationProviders = "openshell.dev/providers"

// providers reads the providers that the flag or the annotation names: what the
// proxy is given of them, and the variables that the workload gets. One that is
// named and cannot be used is an error: the agent would not work, or worse, look
// for a key elsewhere.
func providers(flag []string, spec *specs.Spec, c *operator.Config, from *custody) (out []proxyapi.Provider, env []string, err error) {
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
		h := profile.Bind(handed)
		for _, k := range h.Credentials {
			if o := owner[k.Key]; o != "" {
				return nil, nil, fmt.Errorf("providers %s and %s both bring %s: attach one of them", o, name, k.Key)
			}
			owner[k.Key] = name
		}
		out = append(out, *h)
		env = append(env, provider.Placeholders(h)...)
	}
	return out, env, nil
}

// bindings returns what the policy's check of its bindings needs of the providers.
func bindings(attached []proxyapi.Provider) (out []policy.Attached) {
	for _, p := range attached {
		a := policy.Attached{Name: p.Name}
		for _, k := range p.Credentials {
			a.Keys = append(a.Keys, k.Key)
		}
		for _, e := range p.Endpoints {
			a.Endpoints = append(a.Endpoints, policy.AttachedEndpoint(e))
		}
		out = append(out, a)
	}
	return out
}
