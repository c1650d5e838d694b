// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"bytes"
	"fmt"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/policy"
)

// sandboxName is the user and the group that a policy may name.
const sandboxName = "sandbox"

// maxAccounts bounds the image's passwd(5) and group(5), in bytes.
const maxAccounts = 1 << 20

// accounts puts numbers where the policy names the user or group sandbox, as the
// image's own files have them. A user without a group of the policy's brings its
// own.
func accounts(p *policy.Process, rootfs string) error {
	if !p.SandboxUser && !p.SandboxGroup {
		return nil
	}
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root.path %s: %w", rootfs, err)
	}
	defer unix.Close(root)
	missing := func(field, file string) error {
		return fmt.Errorf("process.%s: the image's %s has no %s; add it to the image or write a number", field, file, sandboxName)
	}
	if p.SandboxUser {
		text, err := readIn(root, "/etc/passwd", maxAccounts)
		if err != nil {
			return err
		}
		found, err := user.ParsePasswdFilter(bytes.NewReader(text), func(u user.User) bool { return u.Name == sandboxName })
		if err != nil {
			return fmt.Errorf("read the image's /etc/passwd: %w", err)
		}
		if len(found) == 0 {
			return missing("run_as_user", "/etc/passwd")
		}
		uid, gid := uint32(found[0].Uid), uint32(found[0].Gid)
		if uid == 0 {
			return fmt.Errorf("process.run_as_user: the image's user %s is root", sandboxName)
		}
		p.User = &uid
		if p.Group == nil && !p.SandboxGroup {
			p.Group = &gid
		}
	}
	if p.SandboxGroup {
		text, err := readIn(root, "/etc/group", maxAccounts)
		if err != nil {
			return err
		}
		found, err := user.ParseGroupFilter(bytes.NewReader(text), func(g user.Group) bool { return g.Name == sandboxName })
		if err != nil {
			return fmt.Errorf("read the image's /etc/group: %w", err)
		}
		if len(found) == 0 {
			return missing("run_as_group", "/etc/group")
		}
		gid := uint32(found[0].Gid)
		p.Group = &gid
	}
	return nil
}
