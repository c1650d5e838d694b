// SPDX-License-Identifier: Apache-2.0

// Package libsandbox makes a container a sandbox. Create finds the policy, makes
// the plan, closes the network namespace and starts the container's process
// through openshell-launch, which applies Landlock and seccomp inside; Exec takes
// every further process the same way; Delete leaves nothing behind.
//
// Any error on the way ends in no container. With `policy: none` in the
// operator's configuration all of it is plain runc.
package libsandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/netns"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/seccomp"
	"openshell.dev/runtime/policy"
)

// launchName is the program beside the runtime that runs inside the container.
const launchName = "openshell-launch"

// CreateOptions say which container to make and how its process runs.
type CreateOptions struct {
	// Container is filled by the caller but for Spec's edits and CreateRuntime.
	Container container.Config
	// Process is filled by the caller but for Spec, Files and Started.
	Process container.ProcessConfig
	// Policy is the --policy flag; ConfigFile the --config flag.
	Policy, ConfigFile string
	// Keep leaves a container that ran to its end for Delete.
	Keep bool
}

// Create makes a container and runs its first process, which for
// container.CreateInit waits for Start. It returns the process's exit status, 0
// if detached.
func Create(o CreateOptions) (status int, err error) {
	c, err := LoadConfig(o.ConfigFile)
	if err != nil {
		return -1, err
	}
	src, err := FindPolicy(o.Policy, o.Container.Spec, c)
	if err != nil {
		return -1, err
	}
	if !src.None {
		release, err := o.sandbox(c, src)
		if err != nil {
			return -1, err
		}
		defer release()
	}
	made := false
	defer func() {
		// A container that could not be made leaves no state of ours either;
		// one that exists already keeps its own.
		if err != nil && !src.None && (made || !errors.Is(err, container.ErrExist)) {
			err = errors.Join(err, os.RemoveAll(Dir(o.Container.Root, o.Container.ID)))
		}
	}()
	ctr, err := container.Create(o.Container)
	if err != nil {
		return -1, err
	}
	made = true
	o.Process.Spec = o.Container.Spec.Process
	status, err = ctr.Run(o.Process)
	if err != nil {
		return -1, errors.Join(err, ctr.Kill())
	}
	detached := o.Process.Action == container.CreateInit || o.Process.Detach
	if detached || o.Keep {
		return status, nil
	}
	return status, errors.Join(ctr.Kill(), os.RemoveAll(Dir(o.Container.Root, o.Container.ID)))
}

// sandbox edits o so that what it makes is a sandbox under src, and writes the
// state that an exec needs. The caller calls release when the process runs.
func (o *CreateOptions) sandbox(c *Config, src *Source) (release func(), err error) {
	pol, err := policy.Parse(src.Name, src.Text)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		abi = 0 // the floor decides
	}
	pl, err := plan.New(o.Container.Spec, pol, plan.Options{LandlockABI: abi, Floor: *c.Landlock.Floor, Allow: c.Allow})
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(o.Container.Root, o.Container.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	state := &State{ID: o.Container.ID, Created: time.Now().UTC(), Policy: src.Name, Plan: pl}
	if err := state.save(dir); err != nil {
		return nil, err
	}
	o.Container.Spec = pl.Spec(o.Container.Spec)
	o.Container.Spec.Annotations = maps.Clone(o.Container.Spec.Annotations)
	if o.Container.Spec.Annotations == nil {
		o.Container.Spec.Annotations = map[string]string{}
	}
	o.Container.Spec.Annotations[annotationSandbox] = src.Name
	o.Container.CreateRuntime = func(s *specs.State) error {
		if err := own(s.Pid, c.Allow); err != nil {
			return err
		}
		return closeNetwork(s)
	}
	release, err = through(&o.Process, o.Container.Spec.Process, pl)
	if err != nil {
		return nil, err
	}
	found := o.Process.Started
	o.Process.Started = func(pid int) error {
		if err := found(pid); err != nil {
			return err
		}
		if err := pin(pid, &state.Plan.Ruleset); err != nil {
			return err
		}
		return state.save(dir)
	}
	return release, nil
}

// own fails if the container's process pid shares a namespace with the runtime:
// config.json can name the host's by path, which only the live process shows.
func own(pid int, allow []string) error {
	for name, file := range map[string]string{"pid": "pid", "ipc": "ipc", "mount": "mnt"} {
		field := "linux.namespaces." + name
		if slices.Contains(allow, field) {
			continue
		}
		theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, file))
		if err != nil {
			return fmt.Errorf("look at the container's %s namespace: %w", name, err)
		}
		ours, err := os.Stat("/proc/thread-self/ns/" + file)
		if err != nil {
			return fmt.Errorf("look at the runtime's %s namespace: %w", name, err)
		}
		if os.SameFile(theirs, ours) {
			return &plan.Refusal{Field: field, Reason: "its path names the host's " + name + " namespace"}
		}
	}
	return nil
}

// closeNetwork is the createRuntime step: the namespace gets its rules before
// anything of the image runs.
func closeNetwork(s *specs.State) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.Pid))
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	defer ns.Close()
	if err := netns.Close(ns); err != nil {
		return fmt.Errorf("config.json: linux.namespaces.network: %w", err)
	}
	return nil
}

// Exec runs one more process in a container, as confined as the first.
func Exec(root, id string, o container.ProcessConfig) (int, error) {
	ctr, err := container.Load(root, id)
	if err != nil {
		return -1, err
	}
	st, err := ctr.State()
	if err != nil {
		return -1, err
	}
	if st.Status == specs.StateStopped {
		return -1, errors.New("cannot exec in a stopped container")
	}
	state, err := LoadState(root, id)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !confined(ctr):
		return ctr.Run(o)
	case err != nil:
		return -1, err
	}
	o.Spec = state.Plan.Process(o.Spec)
	if err := lookUp(st.Pid, o.Spec); err != nil {
		return -1, err
	}
	release, err := through(&o, o.Spec, state.Plan)
	if err != nil {
		return -1, err
	}
	defer release()
	return ctr.Run(o)
}

// confined says whether the container was made as a sandbox, from what
// libcontainer remembers: state of ours that vanished must not open a way in.
func confined(c *container.Container) bool { return c.Annotation(annotationSandbox) != "" }

// annotationSandbox marks a sandbox in libcontainer's own state.
const annotationSandbox = "openshell.dev/sandbox"

// Instructions are what launch reads; its own package has the same shape.
type Instructions struct {
	Landlock landlock.Ruleset `json:"landlock"`
	Filter   []byte           `json:"filter"`
	Keep     int              `json:"keep"`
}

// through makes process start by way of launch: launch and its instructions
// become sealed descriptors, its arguments come before the process's.
func through(o *container.ProcessConfig, process *specs.Process, pl *plan.Plan) (release func(), err error) {
	if len(process.Args) == 0 {
		return nil, errors.New("args must not be empty")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", launchName, err)
	}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(self), launchName))
	if err != nil {
		return nil, fmt.Errorf("read %s, which belongs beside the runtime: %w", launchName, err)
	}
	filter, err := seccomp.Compile()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(Instructions{Landlock: pl.Ruleset, Filter: filter, Keep: o.PreserveFDs})
	if err != nil {
		return nil, fmt.Errorf("encode launch's instructions: %w", err)
	}
	exe, err := sealed(launchName, program)
	if err != nil {
		return nil, err
	}
	in, err := sealed("instructions", text)
	if err != nil {
		return nil, errors.Join(err, exe.Close())
	}
	user := *process
	first := container.FirstFile(o.PreserveFDs) + len(o.Files)
	o.Files = append(o.Files, exe, in)
	process.Args = append([]string{"/proc/self/fd/" + strconv.Itoa(first), strconv.Itoa(first + 1)}, process.Args...)
	if o.Action != container.RunExec {
		o.Started = func(pid int) error { return lookUp(pid, &user) }
	}
	return func() {
		_ = exe.Close()
		_ = in.Close()
	}, nil
}

// sealed is a file in memory that nobody, inside or outside, can change.
func sealed(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("create memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("seal memfd %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Delete removes a container and what the sandbox keeps of it.
func Delete(root, id string, force bool) error {
	ctr, err := container.Load(root, id)
	if errors.Is(err, container.ErrNotExist) {
		// A create that was cut off leaves folders that nothing else finds.
		if e := os.RemoveAll(Dir(root, id)); e != nil {
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
	return os.RemoveAll(Dir(root, id))
}
