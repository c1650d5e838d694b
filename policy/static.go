// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

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

// everyProgram is the binary that stands for all programs.
const everyProgram = "/**"

// MaxProgramFields is the most fields that ProgramFields lists: the first ones show which
// rules to change, and a document may have 10,000.
const MaxProgramFields = 10

// ProgramFields are the first fields of the document that name programs, by a binary other
// than /**: with them the document allows some programs more than others. Only the
// binaries of network_policies do: credentials are bound to hosts, middlewares select
// hosts, and inference.local serves every program.
func (p *Policy) ProgramFields() (fields []string) {
	for _, n := range p.Network {
		i := slices.IndexFunc(n.Binaries, func(b Binary) bool { return b.Path != everyProgram })
		if i >= 0 && len(fields) < MaxProgramFields {
			fields = append(fields, fmt.Sprintf("network_policies.%s.binaries[%d]", n.Key, i))
		}
	}
	return fields
}

// NamesPrograms reports whether the document has ProgramFields.
func (p *Policy) NamesPrograms() bool { return len(p.ProgramFields()) > 0 }

// WritesProc reports whether filesystem_policy gives write access to /proc or a part of
// it, through which a program can write into the memory of another (/proc/PID/mem).
// Without any path files are not restricted.
func (p *Policy) WritesProc() bool {
	f := p.Filesystem
	return len(f.ReadOnly)+len(f.ReadWrite) == 0 && !f.IncludeWorkdir || slices.ContainsFunc(f.ReadWrite, func(name string) bool {
		return strings.HasPrefix(path.Clean(name)+"/", "/proc/")
	})
}

// sameSet ignores order and repetition, which mean nothing in a list of paths.
func sameSet(a, b []string) bool {
	set := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(set(a), set(b))
}
