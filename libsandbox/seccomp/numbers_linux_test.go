// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNumbersAreTheKernels(t *testing.T) {
	for name, n := range map[string][2]uint64{
		"CLONE_NEWTIME":   {cloneNewTime, unix.CLONE_NEWTIME},
		"CLONE_NEWNS":     {cloneNewNS, unix.CLONE_NEWNS},
		"CLONE_NEWCGROUP": {cloneNewCgroup, unix.CLONE_NEWCGROUP},
		"CLONE_NEWUTS":    {cloneNewUTS, unix.CLONE_NEWUTS},
		"CLONE_NEWIPC":    {cloneNewIPC, unix.CLONE_NEWIPC},
		"CLONE_NEWUSER":   {cloneNewUser, unix.CLONE_NEWUSER},
		"CLONE_NEWPID":    {cloneNewPID, unix.CLONE_NEWPID},
		"CLONE_NEWNET":    {cloneNewNet, unix.CLONE_NEWNET},
		"AF_UNIX":         {afUnix, unix.AF_UNIX},
		"AF_INET":         {afInet, unix.AF_INET},
		"AF_INET6":        {afInet6, unix.AF_INET6},
		"AF_NETLINK":      {afNetlink, unix.AF_NETLINK},
		"SOCK_RAW":        {sockRaw, unix.SOCK_RAW},
		"SOCK_PACKET":     {sockPacket, unix.SOCK_PACKET},
		"SOCK_RDM":        {sockRDM, unix.SOCK_RDM},
		"SOCK_SEQPACKET":  {sockSeqpacket, unix.SOCK_SEQPACKET},
		"SOCK_DCCP":       {sockDCCP, unix.SOCK_DCCP},
		"IPPROTO_ICMP":    {protoICMP, unix.IPPROTO_ICMP},
		"IPPROTO_TCP":     {protoTCP, unix.IPPROTO_TCP},
		"IPPROTO_UDP":     {protoUDP, unix.IPPROTO_UDP},
		"IPPROTO_ICMPV6":  {protoICMPv6, unix.IPPROTO_ICMPV6},
		"PR_SET_MM":       {prSetMM, unix.PR_SET_MM},
		"NETLINK_ROUTE":   {netlinkRoute, unix.NETLINK_ROUTE},
		"TIOCSTI":         {tiocSTI, unix.TIOCSTI},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %#x, the kernel's is %#x", name, n[0], n[1])
		}
	}
}

func TestExcept(t *testing.T) {
	keep := []uint64{0, 1, 6, 17, 58}
	for v := range uint64(300) {
		hits := 0
		for _, m := range except(2, 64, keep...) {
			if m.Compare == Equal && v&m.Mask == m.Value || m.Compare == AtLeast && v >= m.Value {
				hits++
			}
		}
		if want := !slices.Contains(keep, v); (hits == 1) != want || hits > 1 {
			t.Errorf("%d is matched %d times", v, hits)
		}
	}
}

func TestEveryMatchSaysHow(t *testing.T) {
	for _, c := range Conditions() {
		for _, m := range c.Matches {
			if m.Compare == 0 {
				t.Errorf("%s: %+v compares nothing", c.Call, m)
			}
			if m.Compare == Equal && m.Value&^m.Mask != 0 {
				t.Errorf("%s: %+v can never hold", c.Call, m)
			}
		}
	}
}
