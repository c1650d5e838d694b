// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer"
)

// CriuOptions are the options of checkpoint and restore, which are libcontainer's.
type CriuOptions = libcontainer.CriuOpts

// CriuPageServer is the server that memory pages are sent to.
type CriuPageServer = libcontainer.CriuPageServerInfo

// Checkpoint saves the container with criu. It then destroys the container, unless the
// options leave it running.
func (c *Container) Checkpoint(o *CriuOptions) error {
	status, err := c.c.Status()
	if err != nil {
		return err
	}
	if status == libcontainer.Created || status == libcontainer.Stopped {
		return fmt.Errorf("Container cannot be checkpointed in %s state", status)
	}
	if err := c.c.Checkpoint(o); err != nil {
		return err
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	return c.c.Destroy()
}
