// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/pathname"
)

// Fields of config.json that name paths of kernel file systems.
const (
	fieldMasked   = "linux.maskedPaths"
	fieldReadonly = "linux.readonlyPaths"
)

// masked are the parts of proc and sysfs that show the memory, the keys and the firmware of
// the machine, or control its hardware. Docker, Podman and CRI mask all of them.
var masked = map[string][]string{
	"proc":  {"acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"},
	"sysfs": {"firmware"},
}

// readonly are the parts of proc through which root in the container could change the
// machine. For example, sys/kernel/core_pattern names a program that the kernel runs
// outside of the container.
var readonly = []string{"sys", "sysrq-trigger", "irq", "bus", "fs"}

// kernelFolders are the host's mounts of proc and sysfs. A bind mount of one of them is not
// masked.
var kernelFolders = []string{"/proc", "/sys"}

// unmasked returns the paths that a sandbox masks, and the paths that it makes read-only,
// because config.json does not. libcontainer skips paths that do not exist.
func unmasked(spec *specs.Spec) (mask, protect []string) {
	for _, m := range spec.Mounts {
		at := path.Clean("/" + m.Destination)
		for _, name := range masked[m.Type] {
			if file := path.Join(at, name); !coveredBy(spec.Linux.MaskedPaths, file) {
				mask = append(mask, file)
			}
		}
		if m.Type != "proc" || readOnly(m) {
			continue
		}
		for _, name := range readonly {
			file := path.Join(at, name)
			if !coveredBy(spec.Linux.ReadonlyPaths, file) && !coveredBy(spec.Linux.MaskedPaths, file) {
				protect = append(protect, file)
			}
		}
	}
	return mask, protect
}

// refusedKernelMounts returns the refusals of mounts of proc and sysfs that masks do not
// make safe.
func refusedKernelMounts(mounts []specs.Mount) (refusals []Refusal) {
	for i, m := range mounts {
		switch {
		case masked[m.Type] == nil:
		case slices.Contains(strings.Split(m.Destination, "/"), ".."):
			// The masks name the cleaned path. In the container, the destination can be
			// another path.
			refusals = append(refusals, Refusal{fieldMounts, fmt.Sprintf("mounts[%d] is a %s whose destination %s has the element ..", i, m.Type, m.Destination)})
		case m.Type == "sysfs" && !readOnly(m):
			refusals = append(refusals, Refusal{fieldMounts, fmt.Sprintf("mounts[%d] is a sysfs without the option ro", i)})
		}
	}
	return refusals
}

// coveredBy reports whether file is one of the paths or lies below one.
func coveredBy(paths []string, file string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return pathname.Below(file, path.Clean(p)) })
}
