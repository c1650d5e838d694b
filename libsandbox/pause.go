// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"os"
	"path/filepath"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/trust"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/state"
)

// Pause freezes a container. It then writes the changes that programs have made in the
// folders of CA stores into the container's layer, because engines pause a container to
// commit it.
func Pause(root, id string) error {
	ctr, err := container.Load(root, id)
	if err != nil {
		return err
	}
	if err := ctr.Pause(); err != nil || !confined(ctr) {
		return err
	}
	kept, err := state.LoadState(root, id)
	if err != nil {
		return err
	}
	st, err := ctr.State()
	if err != nil {
		return err
	}
	own, err := os.ReadFile(filepath.Join(state.Dir(root, id), proxyapi.CACertFile))
	if err == nil {
		err = trust.Sync(&kept.Trust, own, st.Pid)
	}
	if err != nil {
		// The workload can cause this error, so it must not stop the engine from pausing.
		container.Warn(fmt.Sprintf("the container's layer may lack changes of its CA stores: %v", err))
	}
	return nil
}
