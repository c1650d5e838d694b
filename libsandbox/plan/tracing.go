// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"

	"openshell.dev/runtime/policy"
)

// Tracing is the operator's setting for programs of a sandbox that trace each other, with
// ptrace, process_vm_writev, pidfd_getfd and similar calls, and through /proc/PID/mem. The
// zero value means TracingAuto.
type Tracing string

const (
	// TracingAuto allows tracing unless the policy names programs. It is the default.
	TracingAuto Tracing = "auto"
	// TracingAllow always allows tracing. If the policy names programs, every program can
	// then act as one of the named programs.
	TracingAllow Tracing = "allow"
	// TracingDeny never allows tracing.
	TracingDeny Tracing = "deny"
)

// Allows reports whether programs of a sandbox under pol may trace each other.
func (t Tracing) Allows(pol *policy.Policy) bool {
	return t == TracingAllow || t != TracingDeny && !pol.NamesPrograms()
}

// MayNamePrograms reports whether the sandbox accepts policies that name programs: its
// programs cannot trace each other, or the operator accepts that each of them can act as a
// named program.
func (pl *Plan) MayNamePrograms(t Tracing) bool { return !pl.Tracing || t == TracingAllow }

// mayTrace decides whether programs of the sandbox may trace each other. A tracer can act
// with the identity of the program that it traces, so tracing defeats a policy that gives
// programs different rights. Yama does not help: it lets a parent trace its child, and a
// program can start any other program as its child.
//
// Landlock keeps a process from tracing a process of another domain. These are the
// processes of other execs, and a new exec while launch runs in it, which is not yet
// confined. Without Landlock, the workload could trace launch and so get a process without
// a seccomp filter.
func mayTrace(pol *policy.Policy, o Options) (bool, error) {
	if o.LandlockABI > 0 {
		return o.Tracing.Allows(pol), nil
	}
	if o.Tracing == TracingAllow {
		return false, errors.New("operator configuration: tracing: allow needs Landlock, and this kernel has none: boot it with lsm=landlock,… or remove the option")
	}
	return false, nil
}
