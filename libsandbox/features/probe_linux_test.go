// SPDX-License-Identifier: Apache-2.0

package features

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHasFilesystem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "filesystems")
	if err := os.WriteFile(file, []byte("nodev\tsysfs\n\text4\nnodev\toverlayfs2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"sysfs": true, "ext4": true, "overlay": false, "nodev": false} {
		if got, err := hasFilesystem(file, name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestCgroupOfAnOrdinaryFolder(t *testing.T) {
	if got := cgroup(t.TempDir()); got != CgroupNone {
		t.Errorf("mode %s", got)
	}
}

// Probe's results agree with other information from the kernel.
func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || f.Kernel != strings.TrimSpace(string(release)) {
		t.Errorf("kernel %q, /proc says %q, %v", f.Kernel, release, err)
	}
	if lsm, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil && strings.Contains(string(lsm), "landlock") != (f.LandlockABI > 0) {
		t.Errorf("ABI %d, security modules %s", f.LandlockABI, lsm)
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil && strings.Contains(string(status), "Seccomp:") != (f.SeccompError == "") {
		t.Errorf("seccomp %q", f.SeccompError)
	}
}
