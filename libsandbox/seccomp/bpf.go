// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arches are the system call tables that a kernel of each native architecture serves, too.
// A call through any of them is judged by the same names. audits are the numbers of these
// architectures in linux/audit.h.
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

// Compile compiles the table to a BPF program, as struct sock_filter of 8 bytes each. A
// call through a system call table that the filter does not cover kills the process.
func Compile(o Options) ([]byte, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	return compile(native, Refusals(o))
}

// compile is Compile for the tables of the given machine.
func compile(machine libseccomp.ScmpArch, refusals []Refusal) ([]byte, error) {
	if audits[machine] == nil {
		return nil, fmt.Errorf("make seccomp filter: no list for architecture %s", machine)
	}
	own, err := assemble(byNumber(audits[machine], refusals), sockets(audits[machine]))
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter by number: %w", err)
	}
	names, err := byName(machine, refusals)
	if err != nil {
		return nil, err
	}
	return append(own, names...), nil
}

// The offsets of the call's number, of its architecture and of the lower half of its first
// argument in struct seccomp_data, and the distance between two arguments.
const (
	offsetNumber   = 0
	offsetArch     = 4
	offsetArgument = 16
	sizeArgument   = 8
)

// next ends a part of the filter: the next part judges the call.
var next = bpf.Jump{}

// assemble joins the parts to one program, which ends where the rest of the filter follows.
func assemble(parts ...[]bpf.Instruction) (out []byte, err error) {
	for _, part := range parts {
		for i, in := range part {
			if in == next {
				part[i] = bpf.Jump{Skip: uint32(len(part) - i - 1)}
			}
		}
		raw, err := bpf.Assemble(part)
		if err != nil {
			return nil, err
		}
		for _, in := range raw {
			out = binary.NativeEndian.AppendUint16(out, in.Op)
			out = append(out, in.Jt, in.Jf)
			out = binary.NativeEndian.AppendUint32(out, in.K)
		}
	}
	return out, nil
}

// fail ends the filter with an error.
func fail(errno Errno) []bpf.Instruction {
	return []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}}
}

// ifOneOf continues with then if the loaded word is one of values, and with otherwise if
// not.
func ifOneOf(values []uint32, then, otherwise []bpf.Instruction) (out []bpf.Instruction) {
	for i, v := range values {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	out = append(out, bpf.Jump{Skip: uint32(len(then))})
	return append(append(out, then...), otherwise...)
}

// byNumber returns the first part of the filter, for calls that the number alone decides.
// It uses only instructions that the kernel can evaluate when the filter is loaded, once
// for each number (seccomp's cache of calls that are always allowed).
func byNumber(arches []uint32, refusals []Refusal) []bpf.Instruction {
	program := []bpf.Instruction{next}
	for _, arch := range slices.Backward(arches) {
		program = ifOneOf([]uint32{arch}, answers(spans(arch, refusals)), program)
	}
	return append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetArch, Size: 4}}, program...)
}

// sockets returns the second part of the filter, which answers socket and socketpair by
// socketRules and socketpairRules. With libseccomp this needs one rule for each
// refused value and five times the compile time.
func sockets(arches []uint32) []bpf.Instruction {
	program := []bpf.Instruction{next}
	for _, arch := range slices.Backward(arches) {
		var socket, socketpair []uint32
		for _, n := range socketCalls[arch] {
			socket, socketpair = append(socket, n.socket), append(socketpair, n.socketpair)
		}
		program = ifOneOf([]uint32{arch},
			append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}},
				ifOneOf(socket, judgeSocket(socketRules()), ifOneOf(socketpair, judgeSocket(socketpairRules()), []bpf.Instruction{next}))...),
			program)
	}
	return append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetArch, Size: 4}}, program...)
}

func argument(n uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: offsetArgument + n*sizeArgument, Size: 4}
}

// judgeSocket returns the instructions that answer a call by the first rule that applies.
// The last rule must apply to all calls.
func judgeSocket(rules []socketRule) (out []bpf.Instruction) {
	for _, r := range rules {
		rule := []bpf.Instruction{next}
		if r.Errno != 0 {
			rule = fail(r.Errno)
		}
		// Each condition is put before the part of the rule behind it and skips that if it
		// does not apply.
		for n, values := range slices.Backward([][]uint32{r.families, r.types, r.protocols}) {
			if values == nil {
				continue
			}
			condition := []bpf.Instruction{argument(uint32(n))}
			if n == 1 {
				condition = append(condition, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketType})
			}
			rule = append(condition, ifOneOf(values, rule, nil)...)
		}
		out = append(out, rule...)
	}
	return out
}

// answers returns the instructions that compare the number with the end of each span.
func answers(spans []span) []bpf.Instruction {
	out := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}}
	for i, s := range spans {
		if i < len(spans)-1 { // the last span has all remaining numbers
			out = append(out, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: s.last, SkipTrue: 1})
		}
		if s.answer == judge {
			out = append(out, next)
		} else {
			out = append(out, fail(Errno(s.answer))...)
		}
	}
	return out
}

// newFilter returns a filter without rules for the system call tables of a machine.
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
	// A binary tree reduces an allowed call to a few comparisons.
	if err := f.SetOptimize(2); err != nil {
		return nil, wrap(err)
	}
	return f, nil
}

// byName returns the last part of the filter, which libseccomp compiles.
func byName(machine libseccomp.ScmpArch, refusals []Refusal) ([]byte, error) {
	f, err := newFilter(machine)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	for _, r := range refusals {
		if err := addRefusal(f, r); err != nil {
			return nil, err
		}
	}
	return export(f)
}

func addRefusal(f *libseccomp.ScmpFilter, r Refusal) error {
	action := libseccomp.ActErrno.SetReturnCode(int16(r.Errno))
	for _, name := range r.Calls {
		if err := addRule(f, name, action, nil); err != nil {
			return err
		}
	}
	for _, u := range r.Uses {
		var conds []libseccomp.ScmpCondition
		for _, m := range u.Matches {
			cond, err := libseccomp.MakeCondition(m.Arg, libseccomp.CompareMaskedEqual, m.Mask, m.Value)
			if err != nil {
				return fmt.Errorf("add %s to seccomp filter: %w", u.Call, err)
			}
			conds = append(conds, cond)
		}
		if err := addRule(f, u.Call, action, conds); err != nil {
			return err
		}
	}
	return nil
}

// addRule adds a rule for a call, unless byNumber handles the call.
func addRule(f *libseccomp.ScmpFilter, name string, action libseccomp.ScmpAction, conds []libseccomp.ScmpCondition) error {
	if unified[name] != 0 {
		return nil
	}
	// A name that libseccomp does not know is an error: without a rule the call would be
	// allowed.
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

// export uses a memfd, because libseccomp before 2.6 writes programs only to descriptors.
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
