// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import (
	"errors"
	"fmt"
	"io"
	"os"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// arches are the tables a kernel of each native architecture also serves: a
// call made through one of them is judged by the same names.
var arches = map[libseccomp.ScmpArch][]libseccomp.ScmpArch{
	libseccomp.ArchAMD64: {libseccomp.ArchX86, libseccomp.ArchX32},
	libseccomp.ArchARM64: {libseccomp.ArchARM},
}

// Compile turns the table into a BPF program: struct sock_filter, 8 bytes each.
// A call through a table that is not covered kills the process.
func Compile() (_ []byte, err error) {
	f, err := libseccomp.NewFilter(libseccomp.ActAllow)
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	defer f.Release()
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	for _, a := range arches[native] {
		if err := f.AddArch(a); err != nil {
			return nil, fmt.Errorf("add architecture %s to seccomp filter: %w", a, err)
		}
	}
	if err := f.SetBadArchAction(libseccomp.ActKillProcess); err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	// A binary tree keeps the cost of an allowed call to a few comparisons.
	if err := f.SetOptimize(2); err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	eperm := libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM))
	enosys := libseccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))
	add := func(name string, action libseccomp.ScmpAction, conds []libseccomp.ScmpCondition) error {
		call, err := libseccomp.GetSyscallFromName(name)
		if errors.Is(err, libseccomp.ErrSyscallDoesNotExist) {
			return nil // a call newer than this libseccomp has no number to refuse by
		}
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
