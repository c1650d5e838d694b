// SPDX-License-Identifier: Apache-2.0

// Package container makes containers with runc's libcontainer. It turns an OCI spec into a
// container, starts processes in it, and reports on it. It is the only package that imports
// libcontainer, so that a change of runc's API is a change here.
//
//	c, err := container.Create(container.Config{Root: root, ID: id, Spec: spec})
//	…
//	status, err := c.Run(container.ProcessConfig{Action: container.RunInit, Spec: spec.Process})
//	…
//	err = c.Destroy()
//
// A later process of the runtime finds the container with [Load]. Package libsandbox edits
// the spec before, passes files to the process ([ProcessConfig].Files), and is called back
// when the namespaces exist ([Config].CreateRuntime) and when the root is set up
// ([ProcessConfig].Started).
//
// The package does not know policies or proxies, and adds no confinement to that of the
// spec. Errors keep runc's texts, because engines match them.
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

// Config describes a container, for [Create].
type Config struct {
	// Root is the folder with the states of all containers, ID the container's name in it.
	// Both are required. An ID that exists already or has other characters than
	// state.ValidID allows is an error.
	Root, ID string
	// Spec is config.json. It is required. Relative paths in it begin at the working
	// directory. With a NotifySocket, Create adds a mount and a variable to it.
	Spec *specs.Spec
	// NoPivot changes the root with MS_MOVE instead of pivot_root, as --no-pivot does. The
	// zero value uses pivot_root.
	NoPivot bool
	// NoNewKeyring leaves the container the caller's session keyring, as --no-new-keyring
	// does. The zero value makes a new one.
	NoNewKeyring bool
	// SystemdCgroup makes cgroups through systemd. The zero value writes the file system.
	SystemdCgroup bool
	// Rootless says whether errors of permission on cgroups are ignored, as --rootless does:
	// "true", "false" or "auto". The zero value means auto. Any other value is an error.
	Rootless string
	// NotifySocket is the NOTIFY_SOCKET of the manager that waits until the container is
	// ready. The zero value means that none waits.
	NotifySocket string
	// CreateRuntime is called in this process when the container's namespaces and cgroup
	// exist, before the hooks of Spec and before any program of the image runs. If it
	// returns an error, the container is not made. The zero value is not called.
	CreateRuntime func(*specs.State) error
}

// Container is one container.
type Container struct {
	c         *libcontainer.Container
	notifyDir string
}

// Create makes the container's state. No process runs yet.
//
// Preconditions: the working directory is the bundle.
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

// before returns list with f before the first hook. Prestart hooks are the first ones that
// run; Docker connects its network in one of them. f is part of the first hook instead of
// one of its own, because errors count the hooks of config.json from 0.
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

// Load finds an existing container. The error wraps ErrNotExist if there is none.
func Load(root, id string) (*Container, error) {
	c, err := libcontainer.Load(root, id)
	if err != nil {
		return nil, err
	}
	return &Container{c, notifyDir(root, id)}, nil
}

// Start lets the process run that CreateInit left waiting. With a notifySocket, Start returns
// when the container is ready.
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

// Destroy removes the cgroups and the state of a stopped container.
func (c *Container) Destroy() error { return c.c.Destroy() }

// Kill kills every process of the container, waits for them, and destroys it.
func (c *Container) Kill() error {
	// A stopped container may still have processes in its cgroup.
	if err := c.c.Signal(unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return fmt.Errorf("kill container: %w", err)
	}
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(killPoll) {
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

const (
	// killTimeout bounds the time until a killed process has ended.
	killTimeout = 10 * time.Second
	// killPoll is the interval in which Kill looks for the end: the kernel reports it only
	// to the process's parent.
	killPoll = 5 * time.Millisecond
)

// Pids returns the container's processes, by their IDs in this PID namespace.
func (c *Container) Pids() ([]int, error) { return c.c.Processes() }

// Pause freezes the container.
func (c *Container) Pause() error { return c.c.Pause() }

// Resume thaws a paused container.
func (c *Container) Resume() error { return c.c.Resume() }

// Annotation returns an annotation with which the container was made, or "".
func (c *Container) Annotation(key string) string {
	_, annotations := utils.Annotations(c.c.Config().Labels)
	return annotations[key]
}

// Bundle returns the folder from which the container was made.
func (c *Container) Bundle() (string, error) {
	bundle, ok := utils.SearchLabels(c.c.Config().Labels, "bundle")
	if !ok {
		return "", errors.New("bundle not found in labels")
	}
	return bundle, nil
}
