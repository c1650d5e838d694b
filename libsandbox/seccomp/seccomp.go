// SPDX-License-Identifier: Apache-2.0

// Package seccomp is the sandbox's own system call filter: a second one, on top
// of the engine's (the kernel takes the most restrictive answer), so that an
// engine's `seccomp=unconfined` does not remove it. It allows by default and
// refuses what leads out of a sandbox.
//
// A refused call fails with the error of a kernel that does not have it, or that
// does not give it to this process: programs know these errors and fall back. If the
// engine's filter refuses the same call, the program gets the error of this filter,
// because the kernel asks the newest filter first and keeps the first of equal answers.
//
// This file, refusals.go and numbers.go are the table and are pure; bpf.go compiles
// it with libseccomp.
package seccomp

import "slices"

// Options change which calls a filter refuses. The zero value refuses most.
type Options struct {
	// Tracing leaves out the refusals with Tracing set.
	Tracing bool
}

// Refusal is one row of the table: calls that fail with the same error for the same
// reason. docs/compat.md shows the rows to users.
type Refusal struct {
	// Calls fail whatever their arguments.
	Calls []string
	// Uses fail only if all matches of one of them hold.
	Uses []Use
	// Text describes the row where it has no Calls: its Uses, or the part of SocketErrno
	// and SocketpairErrno that it stands for.
	Text string
	// Errno is what the program gets; Reason is why this one.
	Errno  Errno
	Reason string
	// Tracing is set if the calls reach into other processes.
	Tracing bool
}

// Match holds where an argument, counted from 0 and masked by Mask, is Value.
type Match struct {
	Arg         uint
	Mask, Value uint64
}

// Use is a call whose arguments all match.
type Use struct {
	Call    string
	Matches []Match
}

// Refusals returns the table for o.
func Refusals(o Options) []Refusal {
	return slices.DeleteFunc(slices.Concat(wholeCalls(), uses(), socketRows()), func(r Refusal) bool { return r.Tracing && o.Tracing })
}

// answerTo returns the answer to a call that fails whatever its arguments.
func answerTo(refusals []Refusal, call string) answer {
	for _, r := range refusals {
		if slices.Contains(r.Calls, call) {
			return answer(r.Errno)
		}
	}
	return judge
}

// Linux's numbers, which a table that any machine can print spells out; a test
// compares them with x/sys/unix.
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

	// whole masks an int; the kernel does not look at the other half.
	whole = 1<<32 - 1
	// socketType is the part of socket(2)'s type that is not a flag.
	socketType = 0xf
)

func equal(arg uint, mask, value uint64) Match {
	return Match{Arg: arg, Mask: mask, Value: value}
}
