// SPDX-License-Identifier: Apache-2.0

package seccomp

const (
	// firstUnified is the first system call number that is the same in every table:
	// pidfd_send_signal, of Linux 5.1. The numbers below it differ, and libseccomp knows
	// their names.
	firstUnified = 424
	// newest is the last system call number that was reviewed for these lists. A call with
	// a higher number fails with ENOSYS, as on a kernel without the call, so a new kernel
	// gives a sandbox no unreviewed call. To raise it, review the calls up to the new
	// number and list those that lead out of a sandbox.
	newest = 467
)

// unified holds the listed calls that are newer than Linux 5.1. They are refused by number,
// because a release of libseccomp knows only the calls that existed before it.
var unified = map[string]uint32{
	"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
	"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
	"clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
	"open_tree_attr": 467,
}

// The architectures of linux/audit.h, as in struct seccomp_data. A test compares them with
// x/sys/unix.
const (
	auditX8664 = 0xc000003e
	auditI386  = 0x40000003
	auditARM64 = 0xc00000b7
	auditARM   = 0x40000028
)

// socketCalls are the numbers of socket and socketpair in each table. libseccomp has none
// for i386, where programs can also make these calls through socketcall, which is refused.
var socketCalls = map[uint32][]socketNumbers{
	auditX8664: {{41, 53}, {x32Bit + 41, x32Bit + 53}},
	auditI386:  {{359, 360}},
	auditARM64: {{198, 199}},
	auditARM:   {{281, 288}},
}

type socketNumbers struct{ socket, socketpair uint32 }

// x32Bit is set in the numbers of the x32 table, whose architecture is x86_64.
const x32Bit = 0x40000000

// answer is the filter's answer to a call as far as the number decides it: judge, or an
// error.
type answer int

const (
	// judge leaves the call to the rules of libseccomp.
	judge answer = -1
	// missing is the error of a call that the kernel does not have.
	missing = answer(ENOSYS)
)

// span gives an answer to the numbers after the end of the previous span, up to last.
type span struct {
	last   uint32
	answer answer
}

// spans returns the answers to all 2^32 system call numbers of an architecture of
// linux/audit.h, or nil for an architecture that the filter does not support.
func spans(arch uint32, refusals []Refusal) []span {
	switch arch {
	case auditX8664: // uprobe is 336; after it the x86 tables are empty up to 424
		s := table(nil, 0, 336, refusals)
		s = append(s, span{x32Bit - 1, missing})
		s = table(s, x32Bit, 336, refusals)
		// x32's own variants of older calls.
		return append(s, span{x32Bit + 511, missing}, span{x32Bit + 547, judge}, span{^uint32(0), missing})
	case auditI386:
		return append(table(nil, 0, firstUnified-1, refusals), span{^uint32(0), missing})
	case auditARM64: // kexec_file_load is 294
		return append(table(nil, 0, 294, refusals), span{^uint32(0), missing})
	case auditARM:
		// ARM's private calls (cacheflush, set_tls and the like) are at 0xf0000.
		return append(table(nil, 0, firstUnified-1, refusals), span{0xf0000, missing}, span{0xf0006, judge}, span{^uint32(0), missing})
	}
	return nil
}

// table appends the spans of a table whose numbers begin at base. old is the last number
// that only this table has; the numbers that all tables share begin at firstUnified.
func table(s []span, base, old uint32, refusals []Refusal) []span {
	s = append(s, span{base + old, judge})
	if old+1 < firstUnified {
		s = append(s, span{base + firstUnified - 1, missing})
	}
	for n := uint32(firstUnified); n <= newest; n++ {
		next := span{base + n, unifiedAnswer(n, refusals)}
		if last := &s[len(s)-1]; last.answer == next.answer {
			last.last = next.last
			continue
		}
		s = append(s, next)
	}
	return s
}

// unifiedAnswer returns the answer to a number that all tables share.
func unifiedAnswer(n uint32, refusals []Refusal) answer {
	for name, number := range unified {
		if number == n {
			return answerTo(refusals, name)
		}
	}
	return judge
}
