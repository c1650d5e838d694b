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

// Warnings returns what the user of the container may not expect, one sentence each. o are
// the options of [New].
func (pl *Plan) Warnings(spec *specs.Spec, pol *policy.Policy, o Options) (out []string) {
	if pl.Ruleset.ABI > 0 {
		out = Uncovered(spec, pol, o.OnlyListedPaths)
	}
	if n := len(pol.Notes); n > 0 {
		out = append(out, fmt.Sprintf("OpenShell 0.1 refuses the policy for %d of its fields (the first in line %d); openshell policy check lists them", n, pol.Notes[0].Line))
	}
	out = append(out, pl.completed()...)
	if w := TracingWarning(pol, pl.Tracing); w != "" {
		out = append(out, w)
	}
	if lines := policy.AuditedByDefault(pol); len(lines) > 0 && !o.EnforceByDefault {
		at := strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]")
		out = append(out, fmt.Sprintf("endpoints do not set enforcement, which means audit: requests that their rules refuse are recorded and pass (line %s)", at))
	}
	return out
}

// TracingWarning returns the warning about a policy that names programs, or "". tracing says
// whether programs of the sandbox may trace each other, see [Tracing.Allows].
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

// completed returns the warnings about differences between the sandbox and config.json.
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

// ExecWarning returns the warning about capabilities that the sandbox takes away from the
// process of an exec, or "". It leaves out capabilities that the first process lost, too.
func (pl *Plan) ExecWarning(p *specs.Process) string {
	added := without(pl.taken(p), pl.TakenCapabilities)
	if len(added) == 0 {
		return ""
	}
	return fmt.Sprintf("exec adds %s, %s", strings.Join(added, ", "), pl.whyTaken())
}

// whyTaken returns the reason, as a clause, why the sandbox takes capabilities away.
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
// container. Warnings leave them out, because the user did not ask for them.
var engineCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Uncovered returns a warning for each bind mount that no path of the policy covers.
// onlyListed is [Options].OnlyListedPaths.
func Uncovered(spec *specs.Spec, pol *policy.Policy, onlyListed bool) (out []string) {
	cwd := ""
	if spec.Process != nil {
		cwd = spec.Process.Cwd
	}
	allowed := rules(pol, cwd, onlyListed)
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

// AddedPaths returns a sentence about the paths that are added to the policy's
// filesystem_policy, or "". onlyListed is [Options].OnlyListedPaths.
func AddedPaths(pol *policy.Policy, onlyListed bool) string {
	read, write := baseline(pol, onlyListed)
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

// IsBind reports whether m is a bind mount: a file or folder of the host.
func IsBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
