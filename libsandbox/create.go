// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"time"

	"openshell.dev/runtime/internal/cleanup"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/attach"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/state"
)

// annotationSandbox marks a sandbox in libcontainer's own state. Its value is the name of
// the policy.
const annotationSandbox = "openshell.dev/sandbox"

// CreateOptions are the inputs of [Create]: which container to make, under which policy,
// and how its first process runs.
type CreateOptions struct {
	// Container describes the container. Root, ID and Spec are required; Create sets
	// CreateRuntime and edits a copy of Spec. The working directory of the caller must be
	// the bundle, because relative paths in Spec begin there.
	Container container.Config
	// Process describes the first process. Action is required; Create sets Spec and
	// Started, and appends to Files. RestoreInit is an error unless the operator's
	// configuration says `policy: none`.
	Process container.ProcessConfig
	// Policy is a name in the operator's policies_dir or the path of a file, as in the
	// flag --policy. The zero value leaves the choice to the annotations and to the
	// operator's configuration, see operator.FindPolicy. `none` and a policy that cannot
	// be read are errors.
	Policy string
	// ConfigFile is the path of the operator's configuration. The zero value is
	// operator.DefaultConfigFile, which may be missing; a named file that is missing is an
	// error.
	ConfigFile string
	// Keep leaves a container whose process has ended for [Delete]. The zero value removes
	// it. It has no meaning for a process that Create does not wait for.
	Keep bool
	// Egress is where the proxy's own connections start. The zero value is the container's
	// network namespace.
	Egress proxyapi.Egress
	// UpstreamCAs are files of certificates (PEM) by which the proxy verifies upstreams, in
	// addition to the certificates of the machine and of the operator. A file without a
	// certificate is an error. The zero value adds none.
	UpstreamCAs []string
	// Providers are names of providers whose credentials the workload may use. A provider
	// that does not exist or has no usable credential is an error, and so is any provider
	// under `policy: none`. The zero value attaches none.
	Providers []string
}

// Create makes a container and runs its first process. For container.CreateInit that
// process waits for [Start]. Create returns the exit status of the process, or 0 if it
// does not wait for it (CreateInit, Detach).
func Create(o CreateOptions) (status int, err error) {
	r, err := resolve(&o)
	if err != nil {
		return -1, err
	}
	if r.policy == nil {
		status, _, err = runContainer(&o)
		return status, err
	}
	return createSandbox(&o, r)
}

// createSandbox makes a container under r.policy: the steps of the package comment after
// resolve. undo gives back what the steps take, also after a success.
func createSandbox(o *CreateOptions, r *resolved) (status int, err error) {
	var undo cleanup.Stack
	defer undo.Clean()
	sources, err := check(r, o.Container.Spec, o.Container.Root)
	if err != nil {
		return -1, err
	}
	undo.Add(sources.close)
	dir, err := state.MakeDir(o.Container.Root, o.Container.ID)
	if err != nil {
		return -1, err
	}
	kept := false
	undo.Add(func() {
		if !kept {
			err = errors.Join(err, forget(o.Container.Root, o.Container.ID))
		}
	})
	in, err := prepare(o, r, sources, dir, &undo)
	if err != nil {
		return -1, err
	}
	o.Container.Spec, o.Container.CreateRuntime, o.Process.Started = in.spec, in.createRuntime, in.started
	wait := pruneLogs(r.config)
	status, kept, err = runContainer(o)
	undo.Clean() // while the logs are pruned
	wait()
	return status, err
}

// prepare takes the steps attach, plan and network, and wraps the process with launch. dir
// is the sandbox's folder. It adds to undo what the caller gives back when the container
// runs or could not be made.
func prepare(o *CreateOptions, r *resolved, sources *mountSources, dir string, undo *cleanup.Stack) (*insideRun, error) {
	given := o.Container.Spec
	attached, err := attach.Attach(attachOptions(o, r, dir))
	if err != nil {
		return nil, err
	}
	undo.Add(attached.Release)
	stores, err := trustStores(given, dir)
	if err != nil {
		return nil, err
	}
	undo.Add(stores.release)
	pl, err := makePlan(r, given, attached, stores)
	if err != nil {
		return nil, err
	}
	sources.addAccepted(pl)
	warn(r, given, pl, sources.warnings, stores.warnings)
	completeDocument(attached.Config, r, pl, stores)
	spec := sandboxSpec(pl, given, r.source.Name)
	n, err := newNetwork(attached.Config, spec)
	if err != nil {
		return nil, err
	}
	undo.Add(n.release)
	program := *spec.Process
	release, err := wrapWithLaunch(&o.Process, spec.Process, pl)
	if err != nil {
		return nil, err
	}
	undo.Add(release)
	if err := stores.makeMountpoints(); err != nil {
		return nil, err
	}
	return &insideRun{
		resolved: r, spec: spec, program: &program, sources: sources, network: n, dir: dir,
		state: &state.State{ID: o.Container.ID, Created: time.Now().UTC(), Policy: r.source.Name, Plan: pl, Sockets: sources.sockets},
		release: func() {
			attached.Release()
			stores.release()
		},
	}, nil
}

// runContainer makes the container and runs its first process. kept says that the
// container exists when runContainer returns: its process was not waited for, or
// o.Keep is set.
func runContainer(o *CreateOptions) (status int, kept bool, err error) {
	c, err := container.Create(o.Container)
	if err != nil {
		return -1, false, err
	}
	o.Process.Spec = o.Container.Spec.Process
	status, err = c.Run(o.Process)
	if err != nil {
		return -1, false, errors.Join(err, c.Kill())
	}
	if o.Process.Action == container.CreateInit || o.Process.Detach || o.Keep {
		return status, true, nil
	}
	return status, false, c.Kill()
}
