// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"openshell.dev/runtime/libsandbox/attach"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// resolved is the result of the first step of a create: the rules that apply to the
// container, and the version of the kernel's Landlock.
type resolved struct {
	config *operator.Config
	source *operator.Source
	// policy is nil if the operator's configuration says `policy: none`.
	policy *policy.Policy
	// landlockABI is the version of the kernel's Landlock, 0 without it.
	landlockABI int
}

// resolve reads the operator's configuration and the policy that applies. It refuses
// options that contradict them.
func resolve(o *CreateOptions) (*resolved, error) {
	c, err := operator.LoadConfig(o.ConfigFile)
	if err != nil {
		return nil, err
	}
	src, err := operator.FindPolicy(o.Policy, o.Container.Spec, c)
	if err != nil {
		return nil, err
	}
	r := &resolved{config: c, source: src}
	_, annotated := o.Container.Spec.Annotations[attach.AnnotationProviders]
	switch {
	case src.None && (annotated || len(o.Providers) > 0):
		return nil, errors.New("a provider needs the proxy, which puts its credentials into requests, and the operator's `policy: none` makes containers without a proxy")
	case src.None:
		return r, nil
	case o.Process.Action == container.RestoreInit:
		return nil, fmt.Errorf("restore %s under policy %s: %w", o.Container.ID, src.Name, errCheckpoint)
	}
	if r.policy, err = policy.Parse(src.Name, src.Text); err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	if abi, err := llsys.LandlockGetABIVersion(); err == nil { // else 0: the operator's floor decides
		r.landlockABI = abi
	}
	return r, nil
}

// planOptions returns the options of the plan that are known after this step.
func (r *resolved) planOptions() plan.Options { return r.config.PlanOptions(r.landlockABI) }
