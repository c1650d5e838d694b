// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"io/fs"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/state"
)

// Exec runs one more process in a container, confined in the same way as the first. It
// returns the exit status of the process, or 0 if it does not wait for it. In a container
// that is no sandbox the process is plain runc's.
func Exec(root, id string, o container.ProcessConfig) (int, error) {
	ctr, err := container.Load(root, id)
	if err != nil {
		return -1, err
	}
	st, err := ctr.State()
	if err != nil {
		return -1, err
	}
	switch {
	case st.Status == specs.StateStopped:
		return -1, errors.New("cannot exec in a stopped container")
	case st.Status == container.StatePaused && !o.IgnorePaused:
		return -1, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	kept, err := state.LoadState(root, id)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !confined(ctr):
		return ctr.Run(o)
	case err != nil:
		return -1, err
	}
	if w := kept.Plan.ExecWarning(o.Spec); w != "" {
		container.Warn(w)
	}
	o.Spec = kept.Plan.Process(o.Spec)
	if err := lookUp(st.Pid, o.Spec); err != nil {
		return -1, err
	}
	release, err := wrapWithLaunch(&o, o.Spec, kept.Plan)
	if err != nil {
		return -1, err
	}
	defer release()
	return ctr.Run(o)
}

// confined reports whether the container was made as a sandbox, by an annotation in
// libcontainer's own state. So a sandbox whose state in package state is missing is not
// taken for a plain container, in which a process would not be confined.
func confined(c *container.Container) bool { return c.Annotation(annotationSandbox) != "" }
