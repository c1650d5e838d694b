// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// StaticDiff returns the names of the fields that differ between two documents and cannot
// change while a sandbox runs.
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

// everyProgram is the binary pattern that matches every program.
const everyProgram = "/**"

// MaxProgramFields is the largest number of fields that [Policy.ProgramFields] returns. A
// document may have 10,000; the first ones are enough to show which rules to change.
const MaxProgramFields = 10

// ProgramFields returns the first fields of the document that name programs by a binary
// other than /**. With such a field the document allows some programs more than others.
// Only the binaries of network_policies do that: credentials are bound to hosts,
// middlewares select hosts, and inference.local serves every program.
func (p *Policy) ProgramFields() (fields []string) {
	for _, n := range p.Network {
		i := slices.IndexFunc(n.Binaries, func(b Binary) bool { return b.Path != everyProgram })
		if i >= 0 && len(fields) < MaxProgramFields {
			fields = append(fields, fmt.Sprintf("network_policies.%s.binaries[%d]", n.Key, i))
		}
	}
	return fields
}

// NamesPrograms reports whether [Policy.ProgramFields] returns any field.
func (p *Policy) NamesPrograms() bool { return len(p.ProgramFields()) > 0 }

// WritesProc reports whether filesystem_policy gives write access to /proc or a part of it.
// Through /proc/PID/mem a program can write to the memory of another one. If
// filesystem_policy lists no path, it does not restrict files.
func (p *Policy) WritesProc() bool {
	f := p.Filesystem
	return len(f.ReadOnly)+len(f.ReadWrite) == 0 && !f.IncludeWorkdir || slices.ContainsFunc(f.ReadWrite, func(name string) bool {
		return strings.HasPrefix(path.Clean(name)+"/", "/proc/")
	})
}

// sameSet compares two lists of paths and ignores order and repetition.
func sameSet(a, b []string) bool {
	set := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(set(a), set(b))
}
