// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// State is the output of the verbs state and list: runtime-spec's State with the further
// fields of runc, in runc's order.
type State struct {
	Version string `json:"ociVersion"`
	ID      string `json:"id"`
	// Pid is the first process, 0 if the container has stopped.
	Pid     int                  `json:"pid"`
	Status  specs.ContainerState `json:"status"`
	Bundle  string               `json:"bundle"`
	Rootfs  string               `json:"rootfs"`
	Created time.Time            `json:"created"`
	// Annotations are those of the spec.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Owner is the user who owns the state. Only List sets it, as in runc.
	Owner string `json:"owner"`
}

// StatePaused is runc's status of a frozen container. runtime-spec has none.
const StatePaused specs.ContainerState = "paused"

// State returns the container's present state.
func (c *Container) State() (*State, error) {
	status, err := c.c.Status()
	if err != nil {
		return nil, err
	}
	st, err := c.c.State()
	if err != nil {
		return nil, err
	}
	bundle, annotations := utils.Annotations(st.Config.Labels)
	s := &State{
		Version: st.Config.Version, ID: st.ID, Pid: st.InitProcessPid, Status: specs.ContainerState(status.String()),
		Bundle: bundle, Rootfs: st.Config.Rootfs, Created: st.Created, Annotations: annotations,
	}
	if status == libcontainer.Stopped {
		s.Pid = 0
	}
	return s, nil
}

// List returns the states of all containers under root. A container that cannot be read is
// an error in broken, and does not hide the others.
func List(root string) (states []*State, broken []error, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '@' { // a folder of the runtime, see state.ValidID
			continue
		}
		s, err := look(root, e)
		switch {
		case errors.Is(err, os.ErrNotExist): // deleted meanwhile
		case err != nil:
			broken = append(broken, fmt.Errorf("read state of container %s: %w", e.Name(), err))
		default:
			states = append(states, s)
		}
	}
	return states, broken, nil
}

// look returns the state of the container whose folder is e.
func look(root string, e os.DirEntry) (*State, error) {
	info, err := os.Stat(filepath.Join(root, e.Name()))
	if err != nil {
		return nil, err
	}
	c, err := Load(root, e.Name())
	if err != nil {
		return nil, err
	}
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		uid := strconv.Itoa(int(st.Uid))
		s.Owner = "#" + uid
		if u, err := user.LookupId(uid); err == nil {
			s.Owner = u.Username
		}
	}
	return s, nil
}
