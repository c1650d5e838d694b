// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
)

// check refuses a config.json that no sandbox may have, by its text and by the files that
// it names. root is the runtime's root folder, which no sandbox may mount. check also
// replaces the names in r.policy.Process by the numbers that the image has for them. It
// makes nothing.
//
// The caller closes the sources when the container has its mounts.
func check(r *resolved, spec *specs.Spec, root string) (*mountSources, error) {
	if err := plan.Check(spec, r.policy, r.planOptions()); err != nil {
		return nil, err
	}
	sources, err := checkMountSources(spec, r.config.Allow, []guardedFolder{
		{root, "--root"}, {r.config.ProvidersDir, "providers_dir"}, {r.config.LogDir, "log_dir"},
	})
	if err != nil {
		return nil, err
	}
	if err := resolveAccounts(&r.policy.Process, spec.Root.Path); err != nil {
		sources.close()
		return nil, fmt.Errorf("policy %s: %w", r.source.Name, err)
	}
	return sources, nil
}
