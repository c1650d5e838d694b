// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBypass_B58_ProcOfTheImage: without a proc of the kernel's, an image's own files
// do not run in the place of launch, which is started by a path below /proc.
func TestBypass_B58_ProcOfTheImage(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{
		policy: openPolicy,
		argv:   []string{"/bin/probe", "unshare"},
		files: func(rootfs string) {
			program, err := os.ReadFile(filepath.Join(rootfs, "bin/probe"))
			dir := filepath.Join(rootfs, "proc/self/fd")
			err = errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(rootfs, "bin/trap"), program, 0o755))
			for n := range 40 {
				err = errors.Join(err, os.Link(filepath.Join(rootfs, "bin/trap"), filepath.Join(dir, fmt.Sprint(n))))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		spec: func(spec map[string]any) {
			spec["mounts"] = slices.DeleteFunc(spec["mounts"].([]any), func(m any) bool { return m.(map[string]any)["destination"] == "/proc" })
			linux := spec["linux"].(map[string]any)
			delete(linux, "maskedPaths")
			delete(linux, "readonlyPaths")
		},
	})
	out, err := b.runtime("run", "--bundle", b.dir, b.id)
	if err == nil || !strings.Contains(out, "config.json: mounts: ") {
		t.Errorf("%v: %s", err, out)
	}
	b.nothingRemains()
}

// TestBypass_B57_HooksInside: a hook that would run in the container beside launch,
// as unconfined as its first process before that, is refused by field.
func TestBypass_B57_HooksInside(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{policy: openPolicy, spec: func(spec map[string]any) {
		spec["hooks"] = map[string]any{"startContainer": []any{map[string]any{"path": "/bin/probe", "args": []any{"probe", "write", "/tmp/hooked"}}}}
	}})
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err == nil || !strings.Contains(out, "config.json: hooks.startContainer: ") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(b.rootfs, "tmp/hooked")); err == nil {
		t.Error("it ran")
	}
	b.nothingRemains()
}
