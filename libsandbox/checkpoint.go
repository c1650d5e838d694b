// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"io/fs"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/state"
)

// errCheckpoint is the reason why a sandbox is neither saved nor restored.
var errCheckpoint = errors.New("a sandbox cannot be checkpointed or restored: criu does not restore Landlock domains, so the restored processes would not be confined; " +
	"only a container under the operator's `policy: none` can be checkpointed")

// Checkpoint saves a container. A sandbox is an error.
func Checkpoint(root, id string, o *container.CriuOptions) error {
	ctr, err := container.Load(root, id)
	if err != nil {
		return err
	}
	_, err = state.LoadState(root, id)
	if confined(ctr) || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint %s: %w", id, errCheckpoint)
	}
	return ctr.Checkpoint(o)
}
