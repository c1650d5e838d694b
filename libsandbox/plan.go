// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/attach"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/plan"
)

// attachOptions returns the inputs of the step attach. dir is the sandbox's folder.
func attachOptions(o *CreateOptions, r *resolved, dir string) attach.Options {
	return attach.Options{
		ID: o.Container.ID, StateDir: dir, Config: r.config, Source: r.source, Policy: r.policy,
		Providers: o.Providers, Annotations: o.Container.Spec.Annotations, Egress: o.Egress, UpstreamCAs: o.UpstreamCAs,
	}
}

// makePlan makes the plan from the operator's settings and the results of the steps before.
func makePlan(r *resolved, spec *specs.Spec, a *attach.Attachment, stores *containerStores) (*plan.Plan, error) {
	own, err := noProxy(spec)
	if err != nil {
		return nil, err
	}
	o := r.planOptions()
	o.NoProxy = own
	o.Placeholders, o.Env = a.Placeholders, a.Env
	o.CABundle, o.TrustMounts, o.TrustPaths = stores.caBundle, stores.mounts, stores.paths
	return plan.New(spec, r.policy, o)
}

// warn logs the warnings of the plan, and those of the other steps.
func warn(r *resolved, spec *specs.Spec, pl *plan.Plan, others ...[]string) {
	for _, w := range pl.Warnings(spec, r.policy, r.planOptions()) {
		container.Warn("policy " + r.source.Name + ": " + w)
	}
	for _, list := range others {
		for _, w := range list {
			container.Warn(w)
		}
	}
}

// sandboxSpec returns a copy of spec with the changes of the plan, marked as a sandbox
// under the named policy.
func sandboxSpec(pl *plan.Plan, spec *specs.Spec, policyName string) *specs.Spec {
	out := pl.Spec(spec)
	out.Annotations = maps.Clone(out.Annotations)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[annotationSandbox] = policyName
	return out
}

// completeDocument adds to the proxy's document what is known only after the plan.
func completeDocument(h *proxyapi.Config, r *resolved, pl *plan.Plan, stores *containerStores) {
	h.Trust = stores.TrustStores
	h.MayNamePrograms = pl.MayNamePrograms(r.config.Tracing)
}
