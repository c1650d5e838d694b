// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/policy"
)

func TestResolveAccounts(t *testing.T) {
	const passwd = "root:x:0:0::/:/bin/sh\nsandbox:x:1000:1001::/:/bin/sh\n"
	five := uint32(5)
	for _, tc := range []struct {
		name, passwd, group string
		process             policy.Process
		want                string // USER GROUP, or the error
	}{
		{"nothing named", "", "", policy.Process{User: &five}, "5 -"},
		{"user", passwd, "", policy.Process{SandboxUser: true}, "1000 1001"},
		{"user with another group", passwd, "", policy.Process{SandboxUser: true, Group: &five}, "1000 5"},
		{"user and group", passwd, "sandbox:x:77:\n", policy.Process{SandboxUser: true, SandboxGroup: true}, "1000 77"},
		{"group", "", "sandbox:x:77:\n", policy.Process{User: &five, SandboxGroup: true}, "5 77"},
		{"no such user", "root:x:0:0::/:/bin/sh\n", "", policy.Process{SandboxUser: true}, "process.run_as_user: the image's /etc/passwd has no sandbox"},
		{"no such group", passwd, "", policy.Process{SandboxUser: true, SandboxGroup: true}, "process.run_as_group: the image's /etc/group has no sandbox"},
		{"root", "sandbox:x:0:0::/:/bin/sh\n", "", policy.Process{SandboxUser: true}, "process.run_as_user: the image's user sandbox is root"},
		// 2^32 is user 0 for the kernel.
		{"root by overflow", "sandbox:x:4294967296:0::/:/bin/sh\n", "", policy.Process{SandboxUser: true}, "process.run_as_user: the image's user sandbox is root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			writeFile(t, root, "etc/passwd", tc.passwd)
			writeFile(t, root, "etc/group", tc.group)
			got, p := "", tc.process
			if err := resolveAccounts(&p, root); err != nil {
				got = err.Error()
			} else {
				got = number(p.User) + " " + number(p.Group)
			}
			if !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func number(id *uint32) string {
	if id == nil {
		return "-"
	}
	return fmt.Sprint(*id)
}

// TestAccountsStayInTheImage: a link of the image to a file of the host leads below the
// image's root.
func TestAccountsStayInTheImage(t *testing.T) {
	root := t.TempDir()
	outside := writeFile(t, t.TempDir(), "passwd", "sandbox:x:1000:1000::/:/bin/sh\n")
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if err := resolveAccounts(&policy.Process{SandboxUser: true}, root); err == nil {
		t.Error("the user of a file outside of the image was taken")
	}
}
