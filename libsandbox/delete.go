// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/proxyproc"
	"openshell.dev/runtime/libsandbox/state"
)

// Delete removes a container that has stopped or was only created, and the sandbox's state.
// With force it kills the container first, and a container that does not exist is no
// error.
func Delete(root, id string, force bool) error {
	ctr, err := container.Load(root, id)
	if errors.Is(err, container.ErrNotExist) && state.ValidID(id) {
		// A create that was killed leaves folders that no other verb removes.
		if e := errors.Join(forget(root, id), os.RemoveAll(filepath.Join(root, id))); e != nil {
			return errors.Join(err, e)
		}
		if force {
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	st, err := ctr.State()
	if err != nil {
		return err
	}
	switch {
	case force, st.Status == specs.StateCreated:
		err = ctr.Kill()
	case st.Status == specs.StateStopped:
		err = ctr.Destroy()
	default:
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, st.Status)
	}
	if err != nil {
		return err
	}
	return forget(root, id)
}

// forgetTries bounds the attempts to remove a sandbox's folder: one standby of the proxy
// can start while the container ends.
const forgetTries = 3

// forget waits for the proxy of a container that has ended, and removes the sandbox's state.
// A standby that has just started can write its lock while the folder is removed; then
// forget waits for the standby as well.
func forget(root, id string) (err error) {
	dir := state.Dir(root, id)
	unmountStores(dir) // a create that was killed leaves them mounted
	for range forgetTries {
		err = errors.Join(proxyproc.Stop(dir), os.RemoveAll(dir))
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	return err
}
