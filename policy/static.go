// SPDX-License-Identifier: Apache-2.0

package policy

import "slices"

// StaticDiff names the fields that cannot change while a sandbox runs and that
// differ between two documents.
func StaticDiff(old, new *Policy) []string {
	sameID := func(a, b *uint32) bool { return a == b || a != nil && b != nil && *a == *b }
	var out []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"filesystem_policy.include_workdir", old.Filesystem.IncludeWorkdir == new.Filesystem.IncludeWorkdir},
		{"filesystem_policy.read_only", sameSet(old.Filesystem.ReadOnly, new.Filesystem.ReadOnly)},
		{"filesystem_policy.read_write", sameSet(old.Filesystem.ReadWrite, new.Filesystem.ReadWrite)},
		{"landlock.compatibility", old.Landlock.Hard == new.Landlock.Hard},
		{"process.run_as_user", sameID(old.Process.User, new.Process.User) && old.Process.SandboxUser == new.Process.SandboxUser},
		{"process.run_as_group", sameID(old.Process.Group, new.Process.Group) && old.Process.SandboxGroup == new.Process.SandboxGroup},
	} {
		if !f.same {
			out = append(out, f.name)
		}
	}
	return out
}

// sameSet ignores order and repetition, which mean nothing in a list of paths.
func sameSet(a, b []string) bool {
	set := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(set(a), set(b))
}
