// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"path/filepath"

	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/boundedfile"
)

// cdiFolders are the folders in which the operator keeps specifications of the Container
// Device Interface, which list the mounts that an engine adds to a container for a device.
var cdiFolders = []string{"/etc/cdi", "/var/run/cdi"}

// maxCDI bounds one specification, in bytes: a machine with many GPUs has some
// hundred KiB.
const maxCDI = 4 << 20

// cdiEdits is the part of a specification that names mounts. JSON is YAML, too.
type cdiEdits struct {
	ContainerEdits struct {
		Mounts []struct {
			HostPath string `yaml:"hostPath"`
		} `yaml:"mounts"`
	} `yaml:"containerEdits"`
}

// cdiNames reports whether a specification mounts the folder l. A specification that cannot
// be read mounts nothing.
func cdiNames(l *located) bool {
	for _, dir := range cdiFolders {
		for _, kind := range []string{"*.json", "*.yaml"} {
			files, _ := filepath.Glob(filepath.Join(dir, kind)) // the only error is a wrong pattern
			for _, f := range files {
				if specNames(f, l) {
					return true
				}
			}
		}
	}
	return false
}

// specNames reports whether the specification in a file mounts the folder l.
func specNames(file string, l *located) bool {
	text, err := boundedfile.Read(file, maxCDI)
	if err != nil {
		return false
	}
	var spec struct {
		cdiEdits `yaml:",inline"`
		Devices  []cdiEdits `yaml:"devices"`
	}
	if yaml.Unmarshal(text, &spec) != nil {
		return false
	}
	for _, e := range append(spec.Devices, spec.cdiEdits) {
		for _, m := range e.ContainerEdits.Mounts {
			// Only the folder itself: the folders above it are not mounted.
			if real, err := filepath.EvalSymlinks(m.HostPath); err == nil && filepath.IsAbs(real) && real == l.path {
				return true
			}
		}
	}
	return false
}
