// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/state"
)

// insideRun has the functions of a create that are called in the middle of container.Run.
// Both are called in this process, and an error of either ends the container before any
// program of the image has run:
//
//  1. libcontainer makes the namespaces and the cgroup.
//  2. createRuntime: the namespaces are the container's own, and the network namespace is
//     captured.
//  3. libcontainer runs the hooks of config.json, in which engines connect the network,
//     and sets up the mounts and the root. The init process waits.
//  4. started: the mounts are the judged ones, the paths of the policy are pinned, the
//     proxy serves.
//  5. The init process executes openshell-launch, at once or after Start.
type insideRun struct {
	resolved *resolved
	// spec is the container's own: with the plan's changes, and with launch before the
	// program. program is the process without launch.
	spec    *specs.Spec
	program *specs.Process
	sources *mountSources
	network *network
	// release gives back what is only needed until the proxy serves: the locks of the
	// providers and the mounts of the certificate stores on the host.
	release func()
	// state is written to dir, the sandbox's folder.
	state *state.State
	dir   string
}

// createRuntime is the container's createRuntime step, see container.Config.
func (in *insideRun) createRuntime(s *specs.State) error {
	if err := refuseHostNamespaces(s.Pid, in.resolved.config.Allow); err != nil {
		return err
	}
	return in.network.waitCaptured(s.Pid)
}

// started is called once the container's root is set up, see container.ProcessConfig. pid
// is the init process.
func (in *insideRun) started(pid int) error {
	if err := lookUp(pid, in.program); err != nil {
		return err
	}
	if err := in.sources.verify(pid, in.spec); err != nil {
		return err
	}
	missing, err := pinPaths(pid, &in.state.Plan.Ruleset)
	if err != nil {
		return err
	}
	if in.resolved.policy.Landlock.Hard && len(missing) > 0 {
		container.Warn("policy " + in.resolved.source.Name + ": paths that the container does not have are skipped: " + strings.Join(missing, ", "))
	}
	if err := in.network.serve(pid); err != nil {
		return err
	}
	in.state.Trust = in.network.config.Trust // now with the folders of the container's layer
	in.release()                             // the guard takes updates of the providers itself
	return in.state.Save(in.dir)
}

// refuseHostNamespaces returns an error if the container's process pid shares a namespace
// with the runtime. config.json can name the host's namespace by a path, which only the
// live process shows. allow are the fields that the operator accepts.
func refuseHostNamespaces(pid int, allow []string) error {
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
