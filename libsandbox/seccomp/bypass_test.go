// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Answers of a program, as the kernel reads them.
const (
	allowed = unix.SECCOMP_RET_ALLOW
	eperm   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// machine runs the compiled filter of one native architecture.
type machine struct {
	t  *testing.T
	vm *bpf.VM
}

func newMachine(t *testing.T, native libseccomp.ScmpArch) *machine {
	t.Helper()
	prog, err := compile(native)
	if err != nil {
		t.Fatal(err)
	}
	if len(prog)/8 > maxInstructions {
		t.Fatalf("%d instructions", len(prog)/8)
	}
	var raw []bpf.RawInstruction
	for in := range slices.Chunk(prog, 8) {
		raw = append(raw, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(in), Jt: in[2], Jf: in[3], K: binary.NativeEndian.Uint32(in[4:])})
	}
	all, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that are unknown")
	}
	vm, err := bpf.NewVM(all)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{t, vm}
}

// answer is the filter's to one call. The interpreter loads words in network order,
// so struct seccomp_data is written in it.
func (m *machine) answer(arch, number uint32, args ...uint64) uint32 {
	m.t.Helper()
	in := make([]byte, 64)
	binary.BigEndian.PutUint32(in, number)
	binary.BigEndian.PutUint32(in[4:], arch)
	for i, a := range args { // the lower half is first on all machines that are served
		binary.BigEndian.PutUint32(in[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(in[20+8*i:], uint32(a>>32))
	}
	out, err := m.vm.Run(in)
	if err != nil {
		m.t.Fatal(err)
	}
	return uint32(out)
}

// callTable is one system call table of a machine.
type callTable struct {
	name   string
	native libseccomp.ScmpArch
	arch   libseccomp.ScmpArch
	audit  uint32
}

var callTables = []callTable{
	{"x86_64", libseccomp.ArchAMD64, libseccomp.ArchAMD64, auditX8664},
	{"x32", libseccomp.ArchAMD64, libseccomp.ArchX32, auditX8664},
	{"i386", libseccomp.ArchAMD64, libseccomp.ArchX86, auditI386},
	{"arm64", libseccomp.ArchARM64, libseccomp.ArchARM64, auditARM64},
	{"arm", libseccomp.ArchARM64, libseccomp.ArchARM, auditARM},
}

// direct are i386's numbers of calls for which libseccomp gives none, because
// programs also reach them through socketcall, which is refused.
var direct = map[string]uint32{"socket": 359, "socketpair": 360, "setsockopt": 366}

// number returns a call's number in this table, and whether the table has the call. An
// unknown name fails the test.
func (c callTable) number(t *testing.T, name string) (uint32, bool) {
	t.Helper()
	if n := unified[name]; n != 0 {
		if c.name == "x32" {
			n |= x32Bit
		}
		return n, true
	}
	if n := direct[name]; n != 0 && c.name == "i386" {
		return n, true
	}
	n, err := libseccomp.GetSyscallFromNameByArch(name, c.arch)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return uint32(n), n >= 0
}

// forTables runs a test for each table, with the filter of its machine.
func forTables(t *testing.T, test func(t *testing.T, m *machine, c callTable)) {
	for _, c := range callTables {
		t.Run(c.name, func(t *testing.T) { test(t, newMachine(t, c.native), c) })
	}
}

// TestBypass_B47_B48_EveryListedCallIsRefused compares the lists with the compiled
// filter: no name is lost on the way, in any table.
func TestBypass_B47_B48_EveryListedCallIsRefused(t *testing.T) {
	found := map[string]bool{}
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		check := func(names []string, want uint32) {
			for _, name := range names {
				n, ok := c.number(t, name)
				if !ok {
					continue
				}
				found[name] = true
				for _, arg := range []uint64{0, 1, ^uint64(0)} {
					if got := m.answer(c.audit, n, arg, arg, arg, arg, arg, arg); got != want {
						t.Errorf("%s (%#x): %#x, want %#x", name, n, got, want)
					}
				}
			}
		}
		check(Denied, eperm)
		check(Missing, enosys)
		for _, name := range []string{"execve", "close_range", "getpid", "openat", "read"} { // the control
			if n, ok := c.number(t, name); !ok || m.answer(c.audit, n, 1, 2, 3) != allowed {
				t.Errorf("%s is not allowed", name)
			}
		}
	})
	for _, name := range slices.Concat(Denied, Missing) {
		if !found[name] {
			t.Errorf("%s is in no table", name)
		}
	}
}

// TestBypass_B48_UnknownNumbers: a call that is newer than the lists is not there.
func TestBypass_B48_UnknownNumbers(t *testing.T) {
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		base := uint32(0)
		if c.name == "x32" {
			base = x32Bit
		}
		for _, n := range []uint32{newest + 1, 468, 469, 470, 500, 511, 548, 1000, 0xeffff, 0xf0007, 0x3fffffff} {
			if got := m.answer(c.audit, base+n, 1, 2, 3); got != enosys {
				t.Errorf("%d: %#x, want ENOSYS", n, got)
			}
		}
		for _, n := range []uint32{0x80000000, ^uint32(0)} {
			if got := m.answer(c.audit, n); got != enosys {
				t.Errorf("%#x: %#x, want ENOSYS", n, got)
			}
		}
		// Calls that x32 alone has.
		if n, ok := c.number(t, "execve"); c.name == "x32" && (!ok || n != x32Bit+520) {
			t.Errorf("execve is %#x", n)
		}
		// All that libseccomp knows and the lists do not have are still judged by name.
		for _, name := range []string{"futex_waitv", "landlock_restrict_self", "epoll_pwait2", "openat2", "statx", "rseq", "membarrier"} {
			if n, ok := c.number(t, name); !ok || m.answer(c.audit, n) != allowed {
				t.Errorf("%s (%d) is not allowed", name, n)
			}
		}
	})
	t.Run("private calls of arm", func(t *testing.T) {
		m := newMachine(t, libseccomp.ArchARM64)
		for _, n := range []uint32{0xf0002, 0xf0005} { // cacheflush, set_tls
			if got := m.answer(auditARM, n); got != allowed {
				t.Errorf("%#x: %#x", n, got)
			}
		}
	})
	t.Run("other architectures", func(t *testing.T) {
		if got := newMachine(t, libseccomp.ArchAMD64).answer(auditARM64, 0); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("%#x", got)
		}
	})
}

// TestBypass_B46_B90_Families: of all families and protocols only those of the list
// open, in any table, whatever the upper half of the arguments holds.
func TestBypass_B46_B90_Families(t *testing.T) {
	open := map[string]bool{}
	for _, f := range []uint64{afUnix, afInet, afInet6, afNetlink} {
		open[fmt.Sprint(f, 2, 0)] = true
	}
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		socket, ok := c.number(t, "socket")
		if !ok {
			t.Fatal("there is no socket")
		}
		for family := range uint64(64) {
			for _, high := range []uint64{0, 1 << 32} {
				want := eperm
				if open[fmt.Sprint(family, 2, 0)] {
					want = allowed
				}
				// The filter may refuse more where the upper half is not 0.
				if got := m.answer(c.audit, socket, family|high, 2, 0); got != want && (high == 0 || got != eperm) {
					t.Errorf("family %d: %#x, want %#x", family|high, got, want)
				}
			}
		}
		for protocol := range uint64(64) {
			want := eperm
			if protocol == netlinkRoute {
				want = allowed
			}
			if got := m.answer(c.audit, socket, afNetlink, sockRaw, protocol); got != want {
				t.Errorf("netlink %d: %#x, want %#x", protocol, got, want)
			}
		}
		setsockopt, ok := c.number(t, "setsockopt")
		if !ok {
			t.Fatal("there is no setsockopt")
		}
		for name, tc := range map[string]struct {
			level, option uint64
			want          uint32
		}{
			"TCP_ULP":          {unix.SOL_TCP, unix.TCP_ULP, eperm},
			"UDP_ENCAP":        {unix.SOL_UDP, unix.UDP_ENCAP, eperm},
			"IP_XFRM_POLICY":   {unix.SOL_IP, unix.IP_XFRM_POLICY, eperm},
			"IPV6_XFRM_POLICY": {unix.SOL_IPV6, unix.IPV6_XFRM_POLICY, eperm},
			"TCP_NODELAY":      {unix.SOL_TCP, unix.TCP_NODELAY, allowed},
			"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, allowed},
			"IP_TOS":           {unix.SOL_IP, unix.IP_TOS, allowed},
			"IPV6_V6ONLY":      {unix.SOL_IPV6, unix.IPV6_V6ONLY, allowed},
			"UDP_SEGMENT":      {unix.SOL_UDP, unix.UDP_SEGMENT, allowed},
		} {
			if got := m.answer(c.audit, setsockopt, 3, tc.level, tc.option, 0, 4); got != tc.want {
				t.Errorf("%s: %#x, want %#x", name, got, tc.want)
			}
		}
	})
}

// TestBypass_B48_Conditions: each refused use is refused in every table that has the
// call.
func TestBypass_B48_Conditions(t *testing.T) {
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		for _, cond := range Conditions() {
			n, ok := c.number(t, cond.Call)
			if !ok {
				t.Errorf("there is no %s", cond.Call)
				continue
			}
			var args [6]uint64
			for _, match := range cond.Matches {
				args[match.Arg] = match.Value
			}
			if got := m.answer(c.audit, n, args[:]...); got != eperm {
				t.Errorf("%s%v: %#x, want EPERM", cond.Call, args, got)
			}
		}
	})
}

func TestCompileRefusesAnUnknownName(t *testing.T) {
	defer func(old []string) { Denied = old }(Denied)
	Denied = append(slices.Clone(Denied), "no_such_call")
	if _, err := Compile(); err == nil {
		t.Error("compiled")
	}
}
