// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/landlock"
)

// keepProc removes the right to write from rules at or below a proc. With that right, a
// program can write into the memory of another program through /proc/PID/mem, as a tracer
// can (see mayTrace). Rules of Landlock only add rights, and a rule for / also covers
// /proc, as does a rule whose path is a link into it. Therefore the proc itself is mounted
// read-only (see [Plan.Spec]), and keepProc only makes the rules agree with that. A process
// can still open /proc/self/fd/1 and write, because the file behind it is on another
// mount. It cannot write its own oom_score_adj or comm.
func keepProc(rules []landlock.Rule, mounts []specs.Mount) {
	for i, r := range rules {
		if slices.ContainsFunc(mounts, func(m specs.Mount) bool {
			return isProc(m) && pathname.Below(path.Clean("/"+r.Path), path.Clean("/"+m.Destination))
		}) {
			rules[i].Access &= landlock.ReadOnly
		}
	}
}

// isProc reports whether m shows a proc, by its type or its source.
func isProc(m specs.Mount) bool {
	return m.Type == "proc" || IsBind(m) && pathname.Below(path.Clean(m.Source), "/proc")
}

// asReadOnly returns the options of a mount with ro instead of rw and rrw.
func asReadOnly(options []string) []string {
	out := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "rw" || o == "rrw" })
	return append(out, "ro")
}
