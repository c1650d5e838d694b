// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
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
		"NETLINK_ROUTE":   {netlinkRoute, unix.NETLINK_ROUTE},
		"TIOCSTI":         {tiocSTI, unix.TIOCSTI},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %#x, the kernel's is %#x", name, n[0], n[1])
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
