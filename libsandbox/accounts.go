// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"bytes"
	"fmt"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/policy"
)

// sandboxName is the only name of a user or a group that a policy can have.
const sandboxName = "sandbox"

// maxAccounts bounds the image's passwd(5) and group(5), in bytes.
const maxAccounts = 1 << 20

// resolveAccounts sets the numbers of the user and the group that p names, from the files
// of the image at rootfs. A user whose group p does not say gets the group of passwd(5).
func resolveAccounts(p *policy.Process, rootfs string) error {
	if !p.SandboxUser && !p.SandboxGroup {
		return nil
	}
	root, err := openRootfs(rootfs)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if p.SandboxUser {
		uid, gid, err := findUser(root)
		if err != nil {
			return err
		}
		p.User = &uid
		if p.Group == nil && !p.SandboxGroup {
			p.Group = &gid
		}
	}
	if p.SandboxGroup {
		gid, err := findGroup(root)
		if err != nil {
			return err
		}
		p.Group = &gid
	}
	return nil
}

// findUser returns the user sandbox of the image and its group.
func findUser(root int) (uid, gid uint32, err error) {
	text, err := readIn(root, "/etc/passwd", maxAccounts)
	if err != nil {
		return 0, 0, err
	}
	found, err := user.ParsePasswdFilter(bytes.NewReader(text), func(u user.User) bool { return u.Name == sandboxName })
	if err != nil {
		return 0, 0, fmt.Errorf("read the image's /etc/passwd: %w", err)
	}
	if len(found) == 0 {
		return 0, 0, missingAccount("run_as_user", "/etc/passwd")
	}
	// Compared as the kernel's type: the file can have a number that becomes 0 in it.
	uid, gid = uint32(found[0].Uid), uint32(found[0].Gid)
	if uid == 0 {
		return 0, 0, fmt.Errorf("process.run_as_user: the image's user %s is root", sandboxName)
	}
	return uid, gid, nil
}

// findGroup returns the group sandbox of the image.
func findGroup(root int) (gid uint32, err error) {
	text, err := readIn(root, "/etc/group", maxAccounts)
	if err != nil {
		return 0, err
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(text), func(g user.Group) bool { return g.Name == sandboxName })
	if err != nil {
		return 0, fmt.Errorf("read the image's /etc/group: %w", err)
	}
	if len(found) == 0 {
		return 0, missingAccount("run_as_group", "/etc/group")
	}
	return uint32(found[0].Gid), nil
}

func missingAccount(field, file string) error {
	return fmt.Errorf("process.%s: the image's %s has no %s; add it to the image or write a number", field, file, sandboxName)
}
