// SPDX-License-Identifier: Apache-2.0

package features

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/netns"
)

// Probe asks the kernel. A feature whose probe needs root is reported as missing, with the
// reason, if the caller is not root.
func Probe() (Features, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Features{}, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	f := Features{Kernel: unix.ByteSliceToString(u.Release[:]), Cgroup: cgroup("/sys/fs/cgroup"), LandlockABI: Landlock()}
	if err := seccompErrno(); err != nil {
		f.SeccompError = err.Error()
	}
	if err := nfTables(); err != nil {
		f.NFTablesError = err.Error()
	}
	overlay, err := hasFilesystem("/proc/filesystems", "overlay")
	if err != nil {
		return Features{}, err
	}
	f.Overlay = overlay
	return f, nil
}

// Landlock returns the kernel's Landlock ABI, or 0 if Landlock is missing or disabled.
func Landlock() int {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// seccompErrno checks that a filter may answer with an error number (seccomp(2)).
func seccompErrno() error {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(b)), "errno") {
		return fmt.Errorf("filters may not answer with an errno, only with: %s", strings.TrimSpace(string(b)))
	}
	return nil
}

// nfTables captures a network namespace like a sandbox's: a kernel may have nf_tables
// without everything that the rules need.
func nfTables() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Capture(ns)
}

func cgroup(dir string) CgroupMode {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return CgroupNone
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return CgroupUnified
	}
	if err := unix.Statfs(dir+"/unified", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return CgroupHybrid
	}
	if err := unix.Statfs(dir+"/devices", &fs); err == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
		return CgroupLegacy
	}
	return CgroupNone
}

// hasFilesystem looks for a file system type in a file in the format of
// proc_filesystems(5).
func hasFilesystem(file, name string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, fmt.Errorf("list the kernel's filesystems: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 0 && fields[len(fields)-1] == name {
			return true, nil
		}
	}
	return false, lines.Err()
}
