// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBypass_B85_PathThatDoesNotExistYet: a path of the policy that the image does not
// have gives no right later, neither as a folder nor as a link to another place, and no
// matter who creates it. Paths outside the policy that are created later give none
// either.
func TestBypass_B85_PathThatDoesNotExistYet(t *testing.T) {
	const later = `version: 1
filesystem_policy:
  read_only: [/bin, /proc, /etc, /later/read]
  read_write: [/tmp, /later/write, /tmp/later]
network_policies: {}
`
	w := newWorld(t, later)
	for _, dir := range []string{"later", "other"} {
		if err := os.Mkdir(filepath.Join(w.rootfs, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	id := fmt.Sprintf("later-%d", os.Getpid())
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	if out, err := w.runtime("run", "--detach", "--bundle", w.bundle(), id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	exec := func(want string, argv ...string) {
		t.Helper()
		if out, _ := w.runtime(append([]string{"exec", id, "/bin/probe"}, argv...)...); !strings.HasPrefix(out, want) {
			t.Errorf("exec %v printed %q, want %q…", argv, out, want)
		}
	}
	// The workload cannot create the paths.
	exec("error: EACCES", "write", "/later/write")
	exec("error: EACCES", "write", "/later/read")
	exec("ok: written", "write", "/tmp/control")
	// The workload makes a link of a path of the policy that lies below a writable one.
	exec("ok: linked", "symlink", "/", "/tmp/later")
	exec("error: EACCES", "read", "/tmp/later/secret/key")
	exec("error: EACCES", "read", "/secret/key")
	exec("error: EACCES", "write", "/tmp/later/secret/new")
	// Somebody on the host creates the others: as a folder, and as a link to the secret.
	if err := os.Mkdir(filepath.Join(w.rootfs, "later/write"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/secret", filepath.Join(w.rootfs, "later/read")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.rootfs, "other/new"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	exec("error: EACCES", "write", "/later/write/file")
	exec("error: EACCES", "read", "/later/read/key")
	exec("error: EACCES", "read", "/secret/key")
	exec("error: EACCES", "read", "/other/new")
}
