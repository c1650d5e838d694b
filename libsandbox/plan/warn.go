// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/policy"
)

// Warnings returns what a container's user may not expect. o are the options that [New]
// got.
func (pl *Plan) Warnings(spec *specs.Spec, pol *policy.Policy, o Options) (out []string) {
	if pl.Ruleset.ABI > 0 {
		out = Uncovered(spec, pol, o.Explicit)
	}
	if n := len(pol.Notes); n > 0 {
		out = append(out, fmt.Sprintf("OpenShell 0.1 refuses the policy for %d of its fields (the first in line %d); openshell policy check lists them", n, pol.Notes[0].Line))
	}
	out = append(out, pl.completed()...)
	if w := TracingWarning(pol, pl.Tracing); w != "" {
		out = append(out, w)
	}
	if lines := policy.AuditedByDefault(pol); len(lines) > 0 && !o.Enforce {
		at := strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]")
		out = append(out, fmt.Sprintf("endpoints do not set enforcement, which means audit: requests that their rules refuse are recorded and pass (line %s)", at))
	}
	return out
}

// TracingWarning returns the warning about a policy that names programs, "" if there is
// none. tracing says whether programs of the sandbox may trace each other; see
// [Tracing.Allows].
func TracingWarning(pol *policy.Policy, tracing bool) string {
	switch {
	case !pol.NamesPrograms():
	case tracing:
		return "the policy names programs, and by `tracing: allow` in the operator's configuration every program can act as each of them"
	case pol.WritesProc():
		return "the policy names programs and makes /proc writable: /proc is read-only all the same, because a program could write into the memory of a named one"
	}
	return ""
}

// completed says where the sandbox differs from config.json.
func (pl *Plan) completed() (out []string) {
	say := func(format string, list []string) {
		if len(list) > 0 {
			out = append(out, fmt.Sprintf(format, strings.Join(list, ", ")))
		}
	}
	say(`config.json does not mask %s: the sandbox masks them (allow: ["`+fieldMasked+`"] in the operator's configuration leaves them visible)`, pl.MaskedPaths)
	say(`config.json does not make %s read-only: the sandbox does (allow: ["`+fieldReadonly+`"] in the operator's configuration leaves them writable)`, pl.ReadonlyPaths)
	say("config.json adds %s, "+pl.whyTaken(), without(pl.TakenCapabilities, engineCapabilities))
	for _, a := range pl.Accepted {
		out = append(out, "the operator's allow accepts "+a)
	}
	return out
}

// ExecWarning says which capabilities of an exec's process the sandbox takes away; ""
// if it takes none beyond those that it took from the first process.
func (pl *Plan) ExecWarning(p *specs.Process) string {
	added := without(pl.taken(p), pl.TakenCapabilities)
	if len(added) == 0 {
		return ""
	}
	return fmt.Sprintf("exec adds %s, %s", strings.Join(added, ", "), pl.whyTaken())
}

// whyTaken says why the sandbox takes capabilities away.
func (pl *Plan) whyTaken() string {
	if pl.User != nil {
		return "which the policy's run_as_user takes away"
	}
	return "which no sandbox keeps"
}

// without returns the elements of list that are not in other.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

// engineCapabilities are the capabilities that Docker, Podman and containerd give every
// container. Warnings leave them out: nobody asked for them.
var engineCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Uncovered says which of the mounts from outside the policy gives nobody.
func Uncovered(spec *specs.Spec, pol *policy.Policy, explicit bool) (out []string) {
	cwd := ""
	if spec.Process != nil {
		cwd = spec.Process.Cwd
	}
	allowed := rules(pol, cwd, explicit)
	for i, m := range spec.Mounts {
		at := path.Clean("/" + m.Destination)
		covers := func(r landlock.Rule) bool {
			p := path.Clean(r.Path)
			return pathname.Below(at, p) || pathname.Below(p, at)
		}
		if IsBind(m) && !slices.ContainsFunc(allowed, covers) {
			out = append(out, fmt.Sprintf("no path of the policy covers %s (mounts[%d]), so nothing of it can be opened", at, i))
		}
	}
	return out
}

// AddedPaths names the paths that the baseline adds to a filesystem_policy that is present,
// "" if there are none.
func AddedPaths(pol *policy.Policy, explicit bool) string {
	read, write := baseline(pol, explicit)
	var added []string
	if len(read) > 0 {
		added = append(added, strings.Join(read, ", ")+" can be read")
	}
	if len(write) > 0 {
		added = append(added, strings.Join(write, ", ")+" can be written")
	}
	if pol.Filesystem.Line == 0 || len(added) == 0 {
		return ""
	}
	return "paths that filesystem_policy does not list are added, because the policy has network rules: " + strings.Join(added, "; ") +
		" (the operator's filesystem_baseline: explicit adds none)"
}

// IsBind says whether a mount is a file or folder from outside the container.
func IsBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
