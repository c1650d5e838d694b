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

		"IPPROTO_IP":       {protoIP, unix.IPPROTO_IP},
		"IPPROTO_IPV6":     {protoIPv6, unix.IPPROTO_IPV6},
		"TCP_ULP":          {tcpULP, unix.TCP_ULP},
		"IP_XFRM_POLICY":   {ipXFRMPolicy, unix.IP_XFRM_POLICY},
		"IPV6_XFRM_POLICY": {ipv6XFRMPolicy, unix.IPV6_XFRM_POLICY},

		"AUDIT_ARCH_X86_64":  {auditX8664, unix.AUDIT_ARCH_X86_64},
		"AUDIT_ARCH_I386":    {auditI386, unix.AUDIT_ARCH_I386},
		"AUDIT_ARCH_AARCH64": {auditARM64, unix.AUDIT_ARCH_AARCH64},
		"AUDIT_ARCH_ARM":     {auditARM, unix.AUDIT_ARCH_ARM},

		"io_uring_setup":    {uint64(unified["io_uring_setup"]), unix.SYS_IO_URING_SETUP},
		"io_uring_enter":    {uint64(unified["io_uring_enter"]), unix.SYS_IO_URING_ENTER},
		"io_uring_register": {uint64(unified["io_uring_register"]), unix.SYS_IO_URING_REGISTER},
		"open_tree":         {uint64(unified["open_tree"]), unix.SYS_OPEN_TREE},
		"move_mount":        {uint64(unified["move_mount"]), unix.SYS_MOVE_MOUNT},
		"fsopen":            {uint64(unified["fsopen"]), unix.SYS_FSOPEN},
		"fsconfig":          {uint64(unified["fsconfig"]), unix.SYS_FSCONFIG},
		"fsmount":           {uint64(unified["fsmount"]), unix.SYS_FSMOUNT},
		"fspick":            {uint64(unified["fspick"]), unix.SYS_FSPICK},
		"clone3":            {uint64(unified["clone3"]), unix.SYS_CLONE3},
		"pidfd_getfd":       {uint64(unified["pidfd_getfd"]), unix.SYS_PIDFD_GETFD},
		"process_madvise":   {uint64(unified["process_madvise"]), unix.SYS_PROCESS_MADVISE},
		"mount_setattr":     {uint64(unified["mount_setattr"]), unix.SYS_MOUNT_SETATTR},
		"quotactl_fd":       {uint64(unified["quotactl_fd"]), unix.SYS_QUOTACTL_FD},
		"open_tree_attr":    {uint64(unified["open_tree_attr"]), unix.SYS_OPEN_TREE_ATTR},
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
