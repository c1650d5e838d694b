// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fieldMounts is the field of config.json that lists mounts.
const fieldMounts = "mounts"

// mountTypes are the file systems that the kernel makes for a container. Every other type
// gives access to a part of the host: a disk or a server (ext4, nfs, fuse), folders that
// the options name (overlay: lowerdir=/run), the host's devices (devtmpfs), or the kernel
// itself (debugfs, tracefs, securityfs, configfs, bpf).
var mountTypes = []string{"proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2"}

// refusedMounts returns the refusals of mounts, by their options, their type and the text
// of their source.
func refusedMounts(mounts []specs.Mount) (refusals []Refusal) {
	add := func(format string, args ...any) {
		refusals = append(refusals, Refusal{fieldMounts, fmt.Sprintf(format, args...)})
	}
	for i, m := range mounts {
		switch {
		case slices.Contains(m.Options, "remount"):
			// With remount, mount(2) ignores type and source and changes the mount at the
			// destination: a remounted /sys is writable.
			add("mounts[%d] has the option remount, which changes another mount", i)
		case slices.Contains(m.Options, "shared") || slices.Contains(m.Options, "rshared"):
			add("mounts[%d] is shared with the host: mounts below it would appear on both sides", i)
		case IsBind(m):
			if why := LeadsOut(m.Source); why != "" && strings.HasPrefix(m.Source, "/") {
				add("mounts[%d] gives the sandbox %s (%s), which leads out of it", i, m.Source, why)
			}
		case !slices.Contains(mountTypes, m.Type):
			add("mounts[%d] has the type %q, which reaches the host; a sandbox has bind mounts and the types %v", i, m.Type, mountTypes)
		}
	}
	return refusals
}

// readOnly reports whether m is mounted read-only. The last one of the options ro and rw
// counts, and rrw makes the finished mount writable.
func readOnly(m specs.Mount) bool {
	for _, o := range slices.Backward(m.Options) {
		if o == "ro" || o == "rw" {
			return o == "ro" && !slices.Contains(m.Options, "rrw")
		}
	}
	return false
}
