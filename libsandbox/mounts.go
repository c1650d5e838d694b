// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
)

// sources refuses bind mounts by what is there: plan judges them by name, and a
// link or a path below the bundle has another name. A socket of the host's is a way
// past the proxy, whoever listens at it. A container needs the kernel's own /proc:
// launch is started from it, and an image's /proc/self/fd would be started instead.
func sources(spec *specs.Spec, allow []string) error {
	const field = "mounts"
	if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return filepath.Clean(m.Destination) == "/proc" && (m.Type == "proc" || filepath.Clean(m.Source) == "/proc")
	}) {
		return errors.New("config.json: mounts: none is a proc at /proc, and a sandbox cannot be confined without: add it")
	}
	if slices.Contains(allow, field) {
		return nil
	}
	for i, m := range spec.Mounts {
		if !plan.IsBind(m) {
			continue
		}
		source, err := bindSource(m)
		if err != nil {
			continue // libcontainer says so, in runc's words
		}
		if plan.LeadsOut(source) {
			return &plan.Refusal{Field: field, Reason: fmt.Sprintf("mounts[%d] gives the sandbox %s, which is %s and leads out of it", i, m.Source, source)}
		}
		if st, err := os.Stat(source); err == nil && st.Mode()&os.ModeSocket != 0 {
			return &plan.Refusal{Field: field, Reason: fmt.Sprintf("mounts[%d] gives the sandbox the socket %s, which leads out of it", i, m.Source)}
		}
	}
	return nil
}

// bindSource is where a bind mount's source leads. libcontainer takes a relative path
// from the bundle, too, where the runtime is by now.
func bindSource(m specs.Mount) (string, error) {
	source, err := filepath.Abs(m.Source)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(source)
}
