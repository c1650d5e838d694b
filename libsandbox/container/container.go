// SPDX-License-Identifier: Apache-2.0

// Package container is the only door to runc's libcontainer: it turns an OCI
// spec into a container, starts processes in it and reports on it. It knows
// nothing of policies or proxies; a caller edits the spec before, gives it files
// to pass in, and is called back once the container's namespaces exist.
//
// It does not protect anything by itself: what it runs is what the spec says.
package container

import (
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/opencontainers/cgroups/devices" // lets the cgroup manager set device rules
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Errors of libcontainer, for errors.Is. Engines match their texts.
var (
	ErrNotExist   = libcontainer.ErrNotExist
	ErrNotRunning = libcontainer.ErrNotRunning
	ErrExist      = libcontainer.ErrExist
)

// Config says how to make a container.
type Config struct {
	// Root is the directory of all containers' states; ID names this one.
	Root, ID string
	Spec     *specs.Spec

	NoPivot, NoNewKeyring, SystemdCgroup bool
	// Rootless is `--rootless`: "true", "false", or "auto" (also if empty).
	Rootless string

	// NotifySocket is the NOTIFY_SOCKET of the manager that waits for the
	// container to be ready, or "".
	NotifySocket string

	// CreateRuntime is called in this process once the container's namespaces
	// and cgroup exist, before the spec's own hooks and before anything of the
	// image runs. An error fails the create.
	CreateRuntime func(*specs.State) error
}

// Container is one container.
type Container struct {
	c         *libcontainer.Container
	notifyDir string
}

// Create makes the container's state; nothing runs yet. The working directory
// must be the bundle, as relative paths in the spec are relative to it.
func Create(o Config) (*Container, error) {
	rootless, err := rootlessCgroups(o.Rootless, o.SystemdCgroup)
	if err != nil {
		return nil, err
	}
	if o.NotifySocket != "" {
		mountNotify(o.Spec, o.Root, o.ID)
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       o.ID,
		UseSystemdCgroup: o.SystemdCgroup,
		NoPivotRoot:      o.NoPivot,
		NoNewKeyring:     o.NoNewKeyring,
		Spec:             o.Spec,
		RootlessEUID:     os.Geteuid() != 0,
		RootlessCgroups:  rootless,
	})
	if err != nil {
		return nil, err
	}
	if o.CreateRuntime != nil {
		if config.Hooks == nil {
			config.Hooks = configs.Hooks{}
		}
		config.Hooks[configs.Prestart] = before(o.CreateRuntime, config.Hooks[configs.Prestart])
	}
	c, err := libcontainer.Create(o.Root, o.ID, config)
	if err != nil {
		return nil, err
	}
	if o.NotifySocket != "" {
		if err := os.Mkdir(notifyDir(o.Root, o.ID), 0o755); err != nil {
			return nil, errors.Join(err, c.Destroy())
		}
	}
	return &Container{c, notifyDir(o.Root, o.ID)}, nil
}

// before makes f run before all of list. Prestart hooks run first of all; Docker
// plugs its network in there. f becomes part of the first one, because errors
// count the hooks of config.json from 0.
func before(f func(*specs.State) error, list configs.HookList) configs.HookList {
	if len(list) == 0 {
		return configs.HookList{configs.NewFunctionHook(f)}
	}
	both := func(s *specs.State) error {
		if err := f(s); err != nil {
			return err
		}
		return list[0].Run(s)
	}
	return append(configs.HookList{configs.NewFunctionHook(both)}, list[1:]...)
}

// Load finds an existing container; the error wraps ErrNotExist if there is none.
func Load(root, id string) (*Container, error) {
	c, err := libcontainer.Load(root, id)
	if err != nil {
		return nil, err
	}
	return &Container{c, notifyDir(root, id)}, nil
}

// Start runs what a create left waiting. With notifySocket it then stays until
// the container is ready.
func (c *Container) Start(notifySocket string) error {
	status, err := c.c.Status()
	if err != nil {
		return err
	}
	switch status {
	case libcontainer.Created:
	case libcontainer.Stopped:
		return errors.New("cannot start a container that has stopped")
	case libcontainer.Running:
		return errors.New("cannot start an already running container")
	default:
		return fmt.Errorf("cannot start a container in the %s state", status)
	}
	st, err := c.c.State()
	if err != nil {
		return err
	}
	n, err := c.listen(notifySocket)
	if err != nil {
		return err
	}
	if err := c.c.Exec(); err != nil || n == nil {
		return err
	}
	return n.pass(st.InitProcessPid, st.InitProcessPid)
}

// Signal sends sig to the container's first process.
func (c *Container) Signal(sig unix.Signal) error { return c.c.Signal(sig) }

// Destroy removes a stopped container's cgroups and state.
func (c *Container) Destroy() error { return c.c.Destroy() }

// Kill kills every process of the container, waits for them, and destroys it.
func (c *Container) Kill() error {
	// An already stopped container may still have processes in its cgroup.
	if err := c.c.Signal(unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return fmt.Errorf("kill container: %w", err)
	}
	for deadline := time.Now().Add(killPatience); ; time.Sleep(killPoll) {
		status, err := c.c.Status()
		switch {
		case err != nil:
			return err
		case status == libcontainer.Stopped:
			return c.c.Destroy()
		case time.Now().After(deadline):
			return errors.New("container init still running")
		}
	}
}

// How long a killed process may take to be gone, and how often that is looked
// at: the kernel tells nobody but its parent.
const (
	killPatience = 10 * time.Second
	killPoll     = 5 * time.Millisecond
)

// Pids are the container's processes, in this PID namespace.
func (c *Container) Pids() ([]int, error) { return c.c.Processes() }

// Pause freezes the container; Resume thaws it.
func (c *Container) Pause() error { return c.c.Pause() }

// Resume thaws a paused container.
func (c *Container) Resume() error { return c.c.Resume() }

// Annotation is one of the annotations the container was made with, or "".
func (c *Container) Annotation(key string) string {
	_, annotations := utils.Annotations(c.c.Config().Labels)
	return annotations[key]
}

// Bundle is the directory the container was made from.
func (c *Container) Bundle() (string, error) {
	bundle, ok := utils.SearchLabels(c.c.Config().Labels, "bundle")
	if !ok {
		return "", errors.New("bundle not found in labels")
	}
	return bundle, nil
}
