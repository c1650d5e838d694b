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
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/trust"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/launch"
	"openshell.dev/runtime/libsandbox/netns"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/proxyproc"
	"openshell.dev/runtime/libsandbox/seccomp"
	"openshell.dev/runtime/libsandbox/state"
	"openshell.dev/runtime/policy"
)

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
	// Egress is where the proxy's connections start; empty is the container's
	// namespace. UpstreamCAs are files of certificates it verifies with as well.
	Egress      proxyapi.Egress
	UpstreamCAs []string
	// Providers are the names of those whose credentials the workload may use.
	Providers []string
}

// Create makes a container and runs its first process, which for
// container.CreateInit waits for Start. It returns the process's exit status, 0
// if detached.
func Create(o CreateOptions) (status int, err error) {
	c, err := operator.LoadConfig(o.ConfigFile)
	if err != nil {
		return -1, err
	}
	src, err := operator.FindPolicy(o.Policy, o.Container.Spec, c)
	if err != nil {
		return -1, err
	}
	release := func() {}
	if _, annotated := o.Container.Spec.Annotations[AnnotationProviders]; src.None && (annotated || len(o.Providers) > 0) {
		return -1, errors.New("a provider's credentials are put in by the proxy, and the operator's `policy: none` makes containers without one")
	}
	if !src.None {
		if o.Process.Action == container.RestoreInit {
			return -1, fmt.Errorf("restore %s under policy %s: %w", o.Container.ID, src.Name, errCheckpoint)
		}
		if release, err = o.sandbox(c, src); err != nil {
			return -1, err
		}
		defer pruneLogs(c)()
	}
	made := false
	defer func() {
		// A container that could not be made leaves no state of ours either;
		// one that exists already keeps its own.
		if err != nil && !src.None && (made || !errors.Is(err, container.ErrExist)) {
			err = errors.Join(err, forget(o.Container.Root, o.Container.ID))
		}
	}()
	defer release() // first of all: a proxy that got no container is waited for above
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
	return status, errors.Join(ctr.Kill(), forget(o.Container.Root, o.Container.ID))
}

// forgetTries bounds the attempts to remove a folder: one standby can begin as the
// container ends.
const forgetTries = 3

// forget removes what the sandbox keeps of a container that has ended, after its
// proxy has. A standby that had just begun writes its lock while the folder goes;
// then it ends, too.
func forget(root, id string) (err error) {
	dir := state.Dir(root, id)
	unmountStores(dir) // of a create that was cut off
	for range forgetTries {
		err = errors.Join(proxyproc.Stop(dir), os.RemoveAll(dir))
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	return err
}

// sandbox edits o so that what it makes is a sandbox under src, and writes the
// state that an exec needs. The caller calls release when the process runs.
func (o *CreateOptions) sandbox(c *operator.Config, src *operator.Source) (release func(), err error) {
	pol, err := policy.Parse(src.Name, src.Text)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		abi = 0 // the floor decides
	}
	options := c.PlanOptions(abi)
	// Refusals first: nothing is made for what cannot be.
	if _, err := plan.New(o.Container.Spec, pol, options); err != nil {
		return nil, err
	}
	mounts, err := checkMounts(o.Container.Spec, c.Allow, []guardedFolder{
		{o.Container.Root, "--root"}, {c.ProvidersDir, "providers_dir"}, {c.LogDir, "log_dir"},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			mounts.close()
		}
	}()
	if err := accounts(&pol.Process, o.Container.Spec.Root.Path); err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	services, err := middlewares(c, pol)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	dir, err := state.MakeDir(o.Container.Root, o.Container.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	from := &custody{config: c}
	defer func() {
		if err != nil {
			from.release()
		}
	}()
	attached, env, err := providers(o.Providers, o.Container.Spec, c, from)
	if err != nil {
		return nil, err
	}
	if err := pol.CheckBindings(bindings(attached)); err != nil {
		return nil, fmt.Errorf("policy %s: %w", src.Name, err)
	}
	options.Placeholders = env
	router, base, err := inference(c, from)
	if err != nil {
		return nil, err
	}
	if options.NoProxy, err = noProxy(o.Container.Spec); err != nil {
		return nil, err
	}
	options.Env = append(base, gitEnvironment(pol, attached)...)
	stores, err := trustStores(o.Container.Spec, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			stores.release()
		}
	}()
	options.Bundle, options.TrustMounts, options.TrustPaths = stores.bundle, stores.mounts, stores.paths
	pl, err := plan.New(o.Container.Spec, pol, options)
	if err != nil {
		return nil, err
	}
	mounts.acceptedIn(pl)
	for _, w := range pl.Warnings(o.Container.Spec, pol, options) {
		container.Warn("policy " + src.Name + ": " + w)
	}
	for _, w := range append(mounts.warnings, stores.warnings...) {
		container.Warn(w)
	}
	st := &state.State{ID: o.Container.ID, Created: time.Now().UTC(), Policy: src.Name, Plan: pl, Sockets: mounts.sockets, Trust: stores.TrustStores}
	h, err := o.proxyConfig(dir, c, src)
	if err != nil {
		return nil, err
	}
	h.Providers, h.Inference, h.Middlewares, h.Trust = attached, router, services, stores.TrustStores
	h.MayNamePrograms = pl.MayNamePrograms(c.Tracing)
	if err := from.follow(h); err != nil {
		return nil, err
	}
	spec := pl.Spec(o.Container.Spec)
	spec.Annotations = maps.Clone(spec.Annotations)
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	spec.Annotations[annotationSandbox] = src.Name
	n, err := newNetwork(h, spec)
	if err != nil {
		return nil, err
	}
	o.Container.Spec = spec
	o.Container.CreateRuntime = func(s *specs.State) error {
		if err := own(s.Pid, c.Allow); err != nil {
			return err
		}
		return n.enclose(s.Pid)
	}
	launch, err := through(&o.Process, spec.Process, pl)
	if err != nil {
		n.release()
		return nil, err
	}
	found := o.Process.Started
	o.Process.Started = func(pid int) error {
		if err := found(pid); err != nil {
			return err
		}
		if err := mounts.verify(pid, o.Container.Spec); err != nil {
			return err
		}
		missing, err := pin(pid, &st.Plan.Ruleset)
		if err != nil {
			return err
		}
		if pol.Landlock.Hard && len(missing) > 0 {
			container.Warn("policy " + src.Name + ": paths that the container does not have are skipped: " + strings.Join(missing, ", "))
		}
		if err := n.attach(pid); err != nil {
			return err
		}
		st.Trust = h.Trust // with the folders of the layer
		from.release()     // what changes from now on, the guard is told
		stores.release()
		return st.Save(dir)
	}
	return func() {
		launch()
		mounts.close()
		n.release()
		from.release()
		stores.release()
	}, nil
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
	release, err := through(&o, o.Spec, kept.Plan)
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

// through makes process start by way of launch: launch and its instructions
// become descriptors that nobody can write through, its arguments come before the
// process's.
func through(o *container.ProcessConfig, process *specs.Process, pl *plan.Plan) (release func(), err error) {
	if len(process.Args) == 0 {
		return nil, errors.New("args must not be empty")
	}
	program, err := proxyapi.Beside(proxyapi.ProgramLaunch)
	if err != nil {
		return nil, err
	}
	filter, err := seccomp.Compile(seccomp.Options{Tracing: pl.Tracing})
	if err != nil {
		return nil, err
	}
	text, err := launch.Encode(&launch.Instructions{Landlock: pl.Ruleset, Filter: filter, Keep: o.PreserveFDs})
	if err != nil {
		return nil, err
	}
	exe, err := readOnly(program)
	if err != nil {
		return nil, fmt.Errorf("open %s, which belongs beside the runtime: %w", proxyapi.ProgramLaunch, err)
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

// readOnly opens a program on a mount of its own that is read-only and attached
// nowhere: whoever gets hold of it in the container, by /proc/PID/exe or a
// descriptor, cannot write to the host's file (CVE-2019-5736).
func readOnly(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, errors.Join(fmt.Errorf("make the mount of %s read-only (Linux 5.12): %w", path, err), f.Close())
	}
	return f, nil
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
	if errors.Is(err, container.ErrNotExist) && state.ValidID(id) {
		// A create that was cut off leaves folders that nothing else finds.
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

// Pause freezes a container. What its programs have written into the folders of CA stores
// then stands in its layer: engines pause a container to commit it.
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
		// The workload can cause it, and must not keep its container from being paused.
		container.Warn(fmt.Sprintf("the container's layer may lack changes of its CA stores: %v", err))
	}
	return nil
}

// Start runs the first process of a container that was created. notifySocket is
// systemd's, or empty.
func Start(root, id, notifySocket string) error {
	ctr, err := container.Load(root, id)
	if err != nil {
		return err
	}
	st, err := ctr.State()
	if err != nil {
		return err
	}
	// Engines plug interfaces in between create and start.
	if st.Status == specs.StateCreated && confined(ctr) {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", st.Pid))
		if err != nil {
			return fmt.Errorf("open the container's network namespace: %w", err)
		}
		defer ns.Close()
		// If the process ended meanwhile, its id may be another process's.
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
