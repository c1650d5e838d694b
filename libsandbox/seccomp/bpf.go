// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arches are the tables a kernel of each native architecture also serves: a
// call made through one of them is judged by the same names. audits are the same
// architectures by their numbers in linux/audit.h.
var (
	arches = map[libseccomp.ScmpArch][]libseccomp.ScmpArch{
		libseccomp.ArchAMD64: {libseccomp.ArchX86, libseccomp.ArchX32},
		libseccomp.ArchARM64: {libseccomp.ArchARM},
	}
	audits = map[libseccomp.ScmpArch][]uint32{
		libseccomp.ArchAMD64: {auditX8664, auditI386},
		libseccomp.ArchARM64: {auditARM64, auditARM},
	}
)

// Compile turns the table into a BPF program: struct sock_filter, 8 bytes each.
// A call through a table that is not covered kills the process.
func Compile() ([]byte, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	return compile(native)
}

// compile is Compile for another machine's tables.
func compile(machine libseccomp.ScmpArch) ([]byte, error) {
	if audits[machine] == nil {
		return nil, fmt.Errorf("make seccomp filter: no list for architecture %s", machine)
	}
	numbers, err := byNumber(audits[machine])
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter by number: %w", err)
	}
	names, err := byName(machine)
	if err != nil {
		return nil, err
	}
	return append(numbers, names...), nil
}

// Where struct seccomp_data has the call's number and its architecture.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// byNumber returns the first part of the filter: it answers the calls that the number
// alone decides, and jumps behind its own end, to the second part, with all others. It
// uses only instructions that the kernel can evaluate when the filter is loaded, once
// for each number (seccomp's cache of calls that are always allowed).
func byNumber(arches []uint32) ([]byte, error) {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetArch, Size: 4}}
	var parts [][]bpf.Instruction
	left := 0 // instructions after the one that is appended
	for _, arch := range arches {
		part := answers(spans(arch))
		parts = append(parts, part)
		left += 2 + len(part)
	}
	for i, part := range parts {
		program = append(
			program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: arches[i], SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(part))},
		)
		left -= 2
		for _, in := range part {
			left--
			if _, ok := in.(bpf.Jump); ok { // to the end of all parts
				in = bpf.Jump{Skip: uint32(left)}
			}
			program = append(program, in)
		}
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, in := range raw {
		out = binary.NativeEndian.AppendUint16(out, in.Op)
		out = append(out, in.Jt, in.Jf)
		out = binary.NativeEndian.AppendUint32(out, in.K)
	}
	return out, nil
}

// answers returns the instructions that compare the number with the end of each span. A
// Jump stands for a call that the rules by name judge.
func answers(spans []span) []bpf.Instruction {
	out := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}}
	for i, s := range spans {
		if i < len(spans)-1 { // the last one has all numbers that are left
			out = append(out, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: s.last, SkipTrue: 1})
		}
		var then bpf.Instruction
		switch s.answer {
		case judge:
			then = bpf.Jump{}
		case missing:
			then = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
		default:
			then = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
		}
		out = append(out, then)
	}
	return out
}

// newFilter returns a filter without rules for the tables of a machine.
func newFilter(machine libseccomp.ScmpArch) (f *libseccomp.ScmpFilter, err error) {
	wrap := func(err error) error { return fmt.Errorf("make seccomp filter: %w", err) }
	if f, err = libseccomp.NewFilter(libseccomp.ActAllow); err != nil {
		return nil, wrap(err)
	}
	defer func() {
		if err != nil {
			f.Release()
		}
	}()
	for _, a := range append([]libseccomp.ScmpArch{machine}, arches[machine]...) {
		if err := f.AddArch(a); err != nil {
			return nil, fmt.Errorf("add architecture %s to seccomp filter: %w", a, err)
		}
	}
	if native, err := libseccomp.GetNativeArch(); err != nil {
		return nil, wrap(err)
	} else if native != machine {
		if err := f.RemoveArch(native); err != nil {
			return nil, fmt.Errorf("remove architecture %s from seccomp filter: %w", native, err)
		}
	}
	if err := f.SetBadArchAction(libseccomp.ActKillProcess); err != nil {
		return nil, wrap(err)
	}
	// A binary tree keeps the cost of an allowed call to a few comparisons.
	if err := f.SetOptimize(2); err != nil {
		return nil, wrap(err)
	}
	return f, nil
}

// byName returns the second part of the filter, which libseccomp compiles.
func byName(machine libseccomp.ScmpArch) ([]byte, error) {
	f, err := newFilter(machine)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	eperm := libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM))
	enosys := libseccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))
	add := func(name string, action libseccomp.ScmpAction, conds []libseccomp.ScmpCondition) error {
		if unified[name] != 0 {
			return nil // byNumber has it
		}
		// A name that libseccomp does not know is an error: skipped, the call would
		// be allowed.
		call, err := libseccomp.GetSyscallFromName(name)
		if err == nil && conds == nil {
			err = f.AddRule(call, action)
		} else if err == nil {
			err = f.AddRuleConditional(call, action, conds)
		}
		if err != nil {
			return fmt.Errorf("add %s to seccomp filter: %w", name, err)
		}
		return nil
	}
	for _, name := range Denied {
		if err := add(name, eperm, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range Missing {
		if err := add(name, enosys, nil); err != nil {
			return nil, err
		}
	}
	for _, c := range Conditions() {
		var conds []libseccomp.ScmpCondition
		for _, m := range c.Matches {
			cond, err := m.condition()
			if err != nil {
				return nil, fmt.Errorf("add %s to seccomp filter: %w", c.Call, err)
			}
			conds = append(conds, cond)
		}
		if err := add(c.Call, eperm, conds); err != nil {
			return nil, err
		}
	}
	return export(f)
}

func (m Match) condition() (libseccomp.ScmpCondition, error) {
	switch m.Compare {
	case Equal:
		return libseccomp.MakeCondition(m.Arg, libseccomp.CompareMaskedEqual, m.Mask, m.Value)
	case AtLeast:
		return libseccomp.MakeCondition(m.Arg, libseccomp.CompareGreaterEqual, m.Value)
	default:
		return libseccomp.ScmpCondition{}, fmt.Errorf("argument %d: no comparison %d", m.Arg, m.Compare)
	}
}

// export goes through a memfd: libseccomp before 2.6 writes programs to
// descriptors only.
func export(f *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "seccomp")
	defer mem.Close()
	if err := f.ExportBPF(mem); err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	if _, err := mem.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	return io.ReadAll(mem)
}
