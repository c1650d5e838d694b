// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// masked are the parts of proc and sysfs that show the machine's memory, keys and
// firmware. Every engine masks them by itself; that they are not masked is
// somebody's wish.
var masked = map[string][]string{
	"proc":  {"kcore", "keys", "timer_list"},
	"sysfs": {"firmware"},
}

// readonly are the parts of proc through which the container's root would change
// the machine: sys/kernel/core_pattern names a program that the kernel runs outside.
var readonly = []string{"sys", "sysrq-trigger", "irq", "bus", "fs"}

// kernelFolders are where the host's own are; a bind mount brings them in unmasked.
var kernelFolders = []string{"/proc", "/sys"}

// unmasked finds a kernel file system that is mounted without its masks: the field
// that lacks them and why, or nothing.
func unmasked(spec *specs.Spec) (refusals []Refusal) {
	covered := func(list []string, file string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return within(file, path.Clean(p)) })
	}
	for i, m := range spec.Mounts {
		at := path.Clean("/" + m.Destination)
		for _, name := range masked[m.Type] {
			if file := path.Join(at, name); !covered(spec.Linux.MaskedPaths, file) {
				refusals = append(refusals, Refusal{"linux.maskedPaths", "it lacks " + file})
			}
		}
		if readOnly(m) {
			continue
		}
		switch m.Type {
		case "proc":
			for _, name := range readonly {
				file := path.Join(at, name)
				if !covered(spec.Linux.ReadonlyPaths, file) && !covered(spec.Linux.MaskedPaths, file) {
					refusals = append(refusals, Refusal{"linux.readonlyPaths", "it lacks " + file})
				}
			}
		case "sysfs":
			refusals = append(refusals, Refusal{"mounts", fmt.Sprintf("mounts[%d] is a sysfs without the option ro", i)})
		}
	}
	return refusals
}

// within says whether file is folder or below it.
func within(file, folder string) bool {
	return file == folder || folder == "/" || strings.HasPrefix(file, folder+"/")
}
