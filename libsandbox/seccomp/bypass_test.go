// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import (
	"encoding/binary"
	"slices"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The results of a program, as the kernel reads them.
const (
	allowed = unix.SECCOMP_RET_ALLOW
	enosys  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// machine runs the compiled filter of one native architecture.
type machine struct {
	t  *testing.T
	vm *bpf.VM
}

func newMachine(t *testing.T, native libseccomp.ScmpArch) *machine {
	t.Helper()
	return newMachineWith(t, native, Options{})
}

func newMachineWith(t *testing.T, native libseccomp.ScmpArch, o Options) *machine {
	t.Helper()
	prog, err := compile(native, Refusals(o))
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

// answer returns the filter's answer to one call. The interpreter loads words in network
// order, so struct seccomp_data is written in it.
func (m *machine) answer(arch, number uint32, args ...uint64) uint32 {
	m.t.Helper()
	in := make([]byte, 64)
	binary.BigEndian.PutUint32(in, number)
	binary.BigEndian.PutUint32(in[4:], arch)
	for i, a := range args { // the lower half comes first on all supported machines
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

// direct are the i386 numbers of calls for which libseccomp has none, because programs can
// also make them through socketcall, which is refused.
var direct = map[string]uint32{"socket": 359, "socketpair": 360, "setsockopt": 366}

// TestSocketNumbersAreTheKernels compares with the numbers in each table that libseccomp
// knows.
func TestSocketNumbersAreTheKernels(t *testing.T) {
	for _, c := range callTables {
		i := 0
		if c.name == "x32" {
			i = 1
		}
		want := socketCalls[c.audit][i]
		for name, n := range map[string]uint32{"socket": want.socket, "socketpair": want.socketpair} {
			if got, ok := c.number(t, name); !ok || got != n {
				t.Errorf("%s: %s is %d, not %d", c.name, name, got, n)
			}
		}
	}
}

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

// refused returns the filter's answer for an error; 0 stands for no error.
func refused(errno Errno) uint32 {
	if errno == 0 {
		return allowed
	}
	return unix.SECCOMP_RET_ERRNO | uint32(errno)
}

// TestBypass_B47_B48_EveryListedCallIsRefused compares the table with the compiled filter:
// every name is refused in every system call table, with its own error.
func TestBypass_B47_B48_EveryListedCallIsRefused(t *testing.T) {
	found := map[string]bool{}
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		for _, r := range Refusals(Options{}) {
			for _, name := range r.Calls {
				n, ok := c.number(t, name)
				if !ok {
					continue
				}
				found[name] = true
				for _, arg := range []uint64{0, 1, ^uint64(0)} {
					if got := m.answer(c.audit, n, arg, arg, arg, arg, arg, arg); got != refused(r.Errno) {
						t.Errorf("%s (%#x): %#x, want %s", name, n, got, r.Errno)
					}
				}
			}
		}
		for _, name := range []string{"execve", "close_range", "getpid", "openat", "read"} { // the control
			if n, ok := c.number(t, name); !ok || m.answer(c.audit, n, 1, 2, 3) != allowed {
				t.Errorf("%s is not allowed", name)
			}
		}
	})
	for _, r := range Refusals(Options{}) {
		for _, name := range r.Calls {
			if !found[name] {
				t.Errorf("%s is in no table", name)
			}
		}
	}
}

// TestBypass_B37_TracingFilter: the filter that lets programs trace each other differs only
// in the six calls that reach into other processes.
func TestBypass_B37_TracingFilter(t *testing.T) {
	tracing := []string{"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise"}
	for _, c := range callTables {
		m := newMachineWith(t, c.native, Options{Tracing: true})
		for _, r := range Refusals(Options{}) {
			for _, name := range r.Calls {
				n, ok := c.number(t, name)
				if !ok {
					continue
				}
				want := refused(r.Errno)
				if slices.Contains(tracing, name) {
					want = allowed
				}
				if got := m.answer(c.audit, n, 1, 2, 3); got != want {
					t.Errorf("%s: %s: %#x, want %#x", c.name, name, got, want)
				}
			}
		}
	}
	for _, r := range Refusals(Options{}) {
		if r.Tracing && (!slices.Equal(r.Calls, tracing) || r.Errno != EPERM || len(r.Uses) > 0) {
			t.Errorf("%+v", r)
		}
	}
}

// TestBypass_B48_UnknownNumbers: a call that is newer than the lists does not exist.
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
		// Calls that only x32 has.
		if n, ok := c.number(t, "execve"); c.name == "x32" && (!ok || n != x32Bit+520) {
			t.Errorf("execve is %#x", n)
		}
		// Calls that libseccomp knows and the lists do not name are still judged by name.
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

// socketAnswer returns the error that a call of socket(2) must have. It does not use the
// tables of the package.
func socketAnswer(family, kind, protocol uint64) Errno {
	open := map[uint64][]uint64{unix.AF_INET: {0, 1, 6, 17, 58}, unix.AF_INET6: {0, 1, 6, 17, 58}, unix.AF_NETLINK: {0}}[family]
	ip := family == unix.AF_INET || family == unix.AF_INET6
	switch kind &= 0xf; {
	case family == unix.AF_UNIX:
		return 0
	case open == nil:
		return EAFNOSUPPORT
	case ip && kind == unix.SOCK_RAW:
		return EPERM
	case ip && kind != unix.SOCK_STREAM && kind != unix.SOCK_DGRAM:
		return ESOCKTNOSUPPORT
	case !slices.Contains(open, protocol):
		return EPROTONOSUPPORT
	}
	return 0
}

// TestBypass_B46_B90_Families: of all families, types and protocols, only those of the list
// can be opened, in every table and whatever the upper half of the arguments contains. Each
// of the others fails with its own error.
func TestBypass_B46_B90_Families(t *testing.T) {
	protocols := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 18, 31, 33, 41, 50, 57, 58, 59, 63, 64, 115, 132, 136, 255, 256, 262, 1 << 31, 1<<32 - 1}
	flags := uint64(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		socket, ok := c.number(t, "socket")
		if !ok {
			t.Fatal("there is no socket")
		}
		for family := range uint64(64) {
			for kind := range uint64(16) {
				for _, protocol := range protocols {
					errno := socketAnswer(family, kind, protocol)
					want := refused(errno)
					if got := m.answer(c.audit, socket, family, kind|flags, protocol); got != want {
						t.Errorf("socket(%d, %d, %d): %#x, want %#x", family, kind, protocol, got, want)
					}
				}
				for _, args := range [][3]uint64{{family | 1<<32, kind, 0}, {family, kind | 1<<32, 0}, {family, kind, 1 << 32}} {
					want := refused(socketAnswer(family, kind, 0))
					if got := m.answer(c.audit, socket, args[:]...); got != want {
						t.Errorf("socket(%#x): %#x, want %#x", args, got, want)
					}
				}
			}
		}
		if got := m.answer(c.audit, socket, 1<<32-1, 1, 0); got != refused(EAFNOSUPPORT) {
			t.Errorf("family -1: %#x", got)
		}
		socketpair, ok := c.number(t, "socketpair")
		if !ok {
			t.Fatal("there is no socketpair")
		}
		for family := range uint64(64) {
			want := refused(EAFNOSUPPORT)
			switch family {
			case afUnix:
				want = allowed
			case afInet, afInet6, afNetlink:
				want = refused(EOPNOTSUPP)
			}
			if got := m.answer(c.audit, socketpair, family, 1|flags, 0); got != want {
				t.Errorf("socketpair(%d): %#x, want %#x", family, got, want)
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
			"TCP_ULP":          {unix.SOL_TCP, unix.TCP_ULP, refused(ENOENT)},
			"UDP_ENCAP":        {unix.SOL_UDP, unix.UDP_ENCAP, refused(ENOPROTOOPT)},
			"IP_XFRM_POLICY":   {unix.SOL_IP, unix.IP_XFRM_POLICY, refused(ENOPROTOOPT)},
			"IPV6_XFRM_POLICY": {unix.SOL_IPV6, unix.IPV6_XFRM_POLICY, refused(ENOPROTOOPT)},
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

// TestBypass_B48_Uses: each refused use is refused in every table that has the call, with
// the error of its row.
func TestBypass_B48_Uses(t *testing.T) {
	forTables(t, func(t *testing.T, m *machine, c callTable) {
		for _, r := range Refusals(Options{}) {
			for _, u := range r.Uses {
				n, ok := c.number(t, u.Call)
				if !ok {
					t.Errorf("there is no %s", u.Call)
					continue
				}
				var args [6]uint64
				for _, match := range u.Matches {
					args[match.Arg] = match.Value
				}
				if got := m.answer(c.audit, n, args[:]...); got != refused(r.Errno) {
					t.Errorf("%s%v: %#x, want %s", u.Call, args, got, r.Errno)
				}
			}
		}
	})
}

func TestCompileRefusesAnUnknownName(t *testing.T) {
	if _, err := compile(libseccomp.ArchAMD64, []Refusal{{Calls: []string{"no_such_call"}, Errno: EPERM}}); err == nil {
		t.Error("compiled")
	}
}
