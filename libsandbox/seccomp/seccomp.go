// SPDX-License-Identifier: Apache-2.0

// Package seccomp is the sandbox's own system call filter. It is installed in addition to
// the engine's, so an engine's `seccomp=unconfined` does not remove it; the kernel applies
// the most restrictive answer. It allows by default and refuses the calls that lead out of
// a sandbox.
//
// A refused call fails with the error of a kernel that does not have the call, or that
// denies it to this process: programs know these errors and fall back. If the engine's
// filter refuses the same call, the program gets the error of this filter, because the
// kernel asks the newest filter first and keeps the first of equal answers.
//
// This file, refusals.go and numbers.go are the table and are pure; bpf.go compiles it with
// libseccomp.
package seccomp

import "slices"

// Options select which calls a filter refuses. The zero value refuses the most.
type Options struct {
	// Tracing omits the refusals that have Tracing set, so that programs can trace each
	// other. The default is false.
	Tracing bool
}

// Refusal is one row of the table: calls that fail with the same error for the same
// reason. docs/compat.md shows the rows to users.
type Refusal struct {
	// Calls fail with any arguments.
	Calls []string
	// Uses fail only if all matches of one of them apply.
	Uses []Use
	// Text describes a row without Calls: its Uses, or a rule for sockets.
	Text string
	// Errno is the error that the program gets. Reason says why it is this one.
	Errno  Errno
	Reason string
	// Tracing is true if the calls reach into other processes.
	Tracing bool
}

// Match applies if argument number Arg, counted from 0 and masked by Mask, is Value.
type Match struct {
	Arg         uint
	Mask, Value uint64
}

// Use is a call with conditions on its arguments, all of which must match.
type Use struct {
	Call    string
	Matches []Match
}

// Refusals returns the table for o.
func Refusals(o Options) []Refusal {
	return slices.DeleteFunc(slices.Concat(wholeCalls(), uses(), socketRows()), func(r Refusal) bool { return r.Tracing && o.Tracing })
}

// answerTo returns the answer to a call that fails with any arguments.
func answerTo(refusals []Refusal, call string) answer {
	for _, r := range refusals {
		if slices.Contains(r.Calls, call) {
			return answer(r.Errno)
		}
	}
	return judge
}

// Linux's numbers. They are written out because the table must compile on any system; a
// test compares them with x/sys/unix.
const (
	cloneNewTime   = 0x80
	cloneNewNS     = 0x20000
	cloneNewCgroup = 0x2000000
	cloneNewUTS    = 0x4000000
	cloneNewIPC    = 0x8000000
	cloneNewUser   = 0x10000000
	cloneNewPID    = 0x20000000
	cloneNewNet    = 0x40000000

	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	sockStream   = 1
	sockDgram    = 2
	sockRaw      = 3
	netlinkRoute = 0

	protoIP     = 0
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41
	protoICMPv6 = 58

	prSetMM = 35

	tcpULP         = 31
	udpEncap       = 100
	ipXFRMPolicy   = 17
	ipv6XFRMPolicy = 35

	tiocSTI   = 0x5412
	tiocLinux = 0x541C

	// whole masks an int; the kernel ignores the upper half.
	whole = 1<<32 - 1
	// socketType is the part of socket(2)'s type argument that is not a flag.
	socketType = 0xf
)

func equal(arg uint, mask, value uint64) Match {
	return Match{Arg: arg, Mask: mask, Value: value}
}
