// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/policy"
)

// Warnings say what a container's user may not expect. enforce is the operator's
// unspecified_enforcement.
func (pl *Plan) Warnings(spec *specs.Spec, pol *policy.Policy, enforce bool) (out []string) {
	if pl.Ruleset.ABI > 0 {
		out = Uncovered(spec, pol)
	}
	if pl.ReadOnlyProc && pol.WritesProc() {
		out = append(out, policy.ReadOnlyProc)
	}
	if lines := policy.AuditedByDefault(pol); len(lines) > 0 && !enforce {
		at := strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]")
		out = append(out, fmt.Sprintf("endpoints do not set enforcement, which means audit: requests that their rules refuse are recorded and pass (line %s)", at))
	}
	return out
}

// Uncovered says which of the mounts from outside the policy gives nobody.
func Uncovered(spec *specs.Spec, pol *policy.Policy) (out []string) {
	cwd := ""
	if spec.Process != nil {
		cwd = spec.Process.Cwd
	}
	allowed := rules(pol, cwd)
	for i, m := range spec.Mounts {
		at := path.Clean("/" + m.Destination)
		covers := func(r landlock.Rule) bool {
			p := path.Clean(r.Path)
			return within(at, p) || within(p, at)
		}
		if IsBind(m) && !slices.ContainsFunc(allowed, covers) {
			out = append(out, fmt.Sprintf("no path of the policy covers %s (mounts[%d]), so nothing of it can be opened", at, i))
		}
	}
	return out
}

// IsBind says whether a mount is a file or folder from outside the container.
func IsBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
