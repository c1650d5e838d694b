// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/landlock"
)

// keepProc takes the right to write from rules at or below a proc. With it a program
// writes into the memory of another through /proc/PID/mem, and then acts as a program
// that the policy names. A rule for / covers /proc as well, and so may one whose path
// is a link: Landlock's rules only add up. So the proc itself is mounted read-only
// (Plan.ReadOnlyProc), and these rules agree with what then holds. Opening
// /proc/self/fd/1 still writes to the file that it leads to, which lies on another
// mount; what a process sets of itself (oom_score_adj, comm) cannot be set.
func keepProc(rules []landlock.Rule, mounts []specs.Mount) {
	for i, r := range rules {
		if slices.ContainsFunc(mounts, func(m specs.Mount) bool {
			return isProc(m) && within(path.Clean("/"+r.Path), path.Clean("/"+m.Destination))
		}) {
			rules[i].Access &= landlock.ReadOnly
		}
	}
}

// isProc says whether m is a proc, by its type or its source.
func isProc(m specs.Mount) bool {
	return m.Type == "proc" || IsBind(m) && within(path.Clean(m.Source), "/proc")
}

// asReadOnly is options with ro in place of what would make a mount writable.
func asReadOnly(options []string) []string {
	out := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "rw" || o == "rrw" })
	return append(out, "ro")
}
