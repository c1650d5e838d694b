// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// AnnotationProviders is the annotation of config.json that attaches providers to a
// container: names, separated by commas.
const AnnotationProviders = "openshell.dev/providers"

// providerNames returns the providers that the options and the annotation name, each once.
func providerNames(o *Options) (names []string, err error) {
	list, annotated := o.Annotations[AnnotationProviders]
	if annotated && !o.Config.AnnotationProviders {
		return nil, fmt.Errorf("annotation %s: the operator's configuration does not honour it (annotation_providers: true)", AnnotationProviders)
	}
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range o.Providers {
		add(name)
	}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			add(name)
		}
	}
	return names, nil
}

// providers returns what the proxy is given of the named providers, and the variables,
// NAME=VALUE, that the workload gets. A provider that cannot be used is an error: without
// its credential the agent would fail later, or look for a key elsewhere.
func providers(names []string, l *leases) (out []proxyapi.Provider, env []string, err error) {
	owner := map[string]string{}
	for _, name := range names {
		p, err := l.acquire(name)
		if err != nil {
			return nil, nil, err
		}
		h := p.profile.Bind(p.values)
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
