// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"

	"openshell.dev/runtime/policy"
)

// Tracing is the operator's setting for programs of a sandbox that trace each other: with
// ptrace, process_vm_writev, pidfd_getfd and the like, and through /proc/PID/mem. The zero
// value is TracingAuto.
type Tracing string

const (
	// TracingAuto allows tracing unless the policy names programs. It is the default.
	TracingAuto Tracing = "auto"
	// TracingAllow allows tracing always. Where the policy names programs, every program
	// can then act as a program that it names.
	TracingAllow Tracing = "allow"
	// TracingDeny refuses tracing always.
	TracingDeny Tracing = "deny"
)

// Allows reports whether programs of a sandbox that is made with pol may trace each other.
func (t Tracing) Allows(pol *policy.Policy) bool {
	return t == TracingAllow || t != TracingDeny && !pol.NamesPrograms()
}

// MayNamePrograms reports whether the sandbox accepts policies that name programs: its
// programs cannot trace each other, or the operator has accepted that each can act as a
// program that is named.
func (pl *Plan) MayNamePrograms(t Tracing) bool { return !pl.Tracing || t == TracingAllow }

// mayTrace decides whether programs of the sandbox may trace each other. A tracer acts with
// the identity of the program that it traces, so the decision is about the programs that
// the policy tells apart. Yama does not change it: a program that has just been started by
// another one is that one's child, and Yama lets a parent trace it.
//
// Landlock keeps a process from tracing into another domain: a process of a later exec,
// which is not yet confined while launch runs in it, and the processes of other execs.
// Without Landlock a traced launch would be a process without a filter.
func mayTrace(pol *policy.Policy, o Options) (bool, error) {
	if o.LandlockABI > 0 {
		return o.Tracing.Allows(pol), nil
	}
	if o.Tracing == TracingAllow {
		return false, errors.New("operator configuration: tracing: allow needs Landlock, and this kernel has none: boot it with lsm=landlock,… or remove the option")
	}
	return false, nil
}
