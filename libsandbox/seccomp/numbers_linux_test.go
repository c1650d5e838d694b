// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		"SOCK_STREAM":     {sockStream, unix.SOCK_STREAM},
		"SOCK_DGRAM":      {sockDgram, unix.SOCK_DGRAM},
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

func TestEveryMatchCanHold(t *testing.T) {
	for _, r := range Refusals(Options{}) {
		for _, u := range r.Uses {
			for _, m := range u.Matches {
				if m.Mask == 0 || m.Value&^m.Mask != 0 {
					t.Errorf("%s: %+v", u.Call, m)
				}
			}
		}
	}
}

func TestErrnosAreTheKernels(t *testing.T) {
	for errno, name := range errnoNames {
		got := unix.ErrnoName(unix.Errno(errno))
		if got == "ENOTSUP" { // x/sys/unix has two names for the number
			got = "EOPNOTSUPP"
		}
		if got != name || errno.String() != name {
			t.Errorf("%d is %s here, %s in the kernel", errno, errno, got)
		}
	}
}

// TestRefusalsHaveADocumentedError checks that each row has an error with a name, a reason,
// and either whole calls or uses with a text.
func TestRefusalsHaveADocumentedError(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Refusals(Options{}) {
		if _, ok := errnoNames[r.Errno]; !ok || r.Reason == "" || (len(r.Calls) > 0) == (r.Text != "") || len(r.Calls) > 0 && len(r.Uses) > 0 {
			t.Errorf("%+v", r)
		}
		for _, name := range r.Calls {
			if seen[name] {
				t.Errorf("%s is in two rows", name)
			}
			seen[name] = true
		}
	}
}

// TestErrorTableIsDocumented checks that docs/compat.md has the table of refused calls, row
// by row.
func TestErrorTableIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "| call | error | reason |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/compat.md has no table of refused calls")
	}
	got, _, _ := strings.Cut(rest, "\n\n")
	var want []string
	for _, r := range Refusals(Options{}) {
		what := r.Text
		if len(r.Calls) > 0 {
			what = "`" + strings.Join(r.Calls, "`, `") + "`"
		}
		want = append(want, fmt.Sprintf("| %s | %s | %s |", what, r.Errno, r.Reason))
	}
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Error(diff)
	}
}
