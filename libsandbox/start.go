// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/netns"
)

// Start lets the first process of a created container run. notifySocket is the
// NOTIFY_SOCKET of systemd, or "" without systemd.
func Start(root, id, notifySocket string) error {
	ctr, err := container.Load(root, id)
	if err != nil {
		return err
	}
	st, err := ctr.State()
	if err != nil {
		return err
	}
	// Engines add interfaces between create and start.
	if st.Status == specs.StateCreated && confined(ctr) {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", st.Pid))
		if err != nil {
			return fmt.Errorf("open the container's network namespace: %w", err)
		}
		defer ns.Close()
		// If the process has ended since, the descriptor may be of another process with
		// the same ID.
		if st, err = ctr.State(); err != nil {
			return err
		}
		if st.Status == specs.StateCreated {
			if err := netns.Refresh(ns); err != nil {
				return err
			}
		}
	}
	return ctr.Start(notifySocket)
}
