// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/state"
)

// maxStatus bounds /proc/PID/status and the runtime's state, in bytes.
const maxStatus = 1 << 20

// inspection is what was applied to a sandbox and what the kernel says of its
// first process now.
type inspection struct {
	ID      string               `json:"id"`
	Root    string               `json:"root"`
	Created time.Time            `json:"created"`
	Status  specs.ContainerState `json:"status"`
	Pid     int                  `json:"pid,omitempty"`
	// Policy is what the sandbox was created with: its static sections hold for
	// the sandbox's life.
	Policy   string           `json:"policy"`
	Landlock landlock.Ruleset `json:"landlock"`
	User     *uint32          `json:"user,omitempty"`
	Group    *uint32          `json:"group,omitempty"`
	// Process is nil when none runs.
	Process *process `json:"process,omitempty"`
	// Network is what the proxy says, NetworkError why it says nothing.
	Network      *proxyapi.Status `json:"network,omitempty"`
	NetworkError string           `json:"network_error,omitempty"`
	// The next fields are those of plan.Plan.
	Tracing           bool     `json:"tracing"`
	MaskedPaths       []string `json:"masked_paths,omitempty"`
	ReadonlyPaths     []string `json:"readonly_paths,omitempty"`
	TakenCapabilities []string `json:"taken_capabilities,omitempty"`
	Accepted          []string `json:"accepted,omitempty"`
	// Sockets are those of state.State.
	Sockets []string `json:"sockets,omitempty"`
	// Providers are those it has, and those that are gone.
	Providers []proxyapi.Attached `json:"providers,omitempty"`
}

// process is what /proc says of one.
type process struct {
	NoNewPrivs bool `json:"no_new_privs"`
	// SeccompFilters are the engine's and ours; fewer than one is no sandbox.
	SeccompFilters int      `json:"seccomp_filters"`
	Capabilities   []string `json:"capabilities"`
}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "say what was applied to a sandbox and how it is", ArgsUsage: "CONTAINER",
		Description: containerUsage + searched(),
		Flags:       sandboxFlags(outputFlag(), runtimeFlag()),
		Action:      onSandbox(inspectAction),
	}
}

func inspectAction(c *cli.Context, s sandbox) error {
	st, err := state.LoadState(s.root, s.id)
	if err != nil {
		return err
	}
	in := &inspection{
		ID: s.id, Root: s.root, Created: st.Created, Policy: st.Policy, Landlock: st.Plan.Ruleset, User: st.Plan.User, Group: st.Plan.Group,
		Sockets: st.Sockets, Tracing: st.Plan.Tracing, MaskedPaths: st.Plan.MaskedPaths, ReadonlyPaths: st.Plan.ReadonlyPaths,
		TakenCapabilities: st.Plan.TakenCapabilities, Accepted: st.Plan.Accepted,
	}
	if err := in.look(func() (*specs.State, error) { return ociState(c, s) }); err != nil {
		return err
	}
	in.Network, err = s.proxy().Status(c.Context)
	if in.Status == specs.StateStopped {
		in.NetworkError = "the sandbox has ended"
	} else if err != nil {
		in.NetworkError = s.explain(c, err).Error()
	} else if in.Providers, err = attached.Providers(c.Context, s.dir()); err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c, in)
	}
	return in.print(c.App.Writer)
}

// look fills in the container's first process. It asks for the state again after it has
// read the process: if the process has ended by then, its id may belong to another
// process, and look shows neither.
func (in *inspection) look(state func() (*specs.State, error)) error {
	before, err := state()
	if err != nil {
		return err
	}
	in.Status, in.Pid = before.Status, before.Pid
	if in.Pid == 0 {
		return nil
	}
	var unread error
	in.Process, unread = readProcess(fmt.Sprintf("/proc/%d/status", in.Pid))
	after, err := state()
	if err != nil {
		return err
	}
	in.Status = after.Status
	if after.Pid != in.Pid {
		in.Pid, in.Process = 0, nil
		return nil
	}
	return unread
}

// ociState asks the runtime, which alone knows whether the process is still the
// container's.
func ociState(c *cli.Context, s sandbox) (*specs.State, error) {
	bin, err := runtimePath(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(c.Context, bin, "--root", s.root, "state", "--", s.id)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if _, gone := os.Stat(s.dir()); err != nil && errors.Is(gone, fs.ErrNotExist) {
		return nil, endedError(c, s.id)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for the state of %s: %w: %s", bin, s.id, err, strings.TrimSpace(errs.String()))
	}
	var st specs.State
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", s.id, err)
	}
	return &st, nil
}

// processFields reads a file of proc_pid_status(5)'s format.
func processFields(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("look at the sandbox's process: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("look at the sandbox's process: %w", err)
	}
	field := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		k, v, _ := strings.Cut(line, ":")
		field[k] = strings.TrimSpace(v)
	}
	return field, nil
}

// readProcess reads what a file of proc_pid_status(5)'s format says of confinement. A
// field that is not there is an error: its absence must not look like a fact.
func readProcess(file string) (*process, error) {
	field, err := processFields(file)
	if err != nil {
		return nil, err
	}
	filters, err := strconv.Atoi(field["Seccomp_filters"])
	if err != nil {
		return nil, fmt.Errorf("%s: Seccomp_filters: %w", file, err)
	}
	bits, err := strconv.ParseUint(field["CapBnd"], 16, 64)
	if err != nil {
		return nil, fmt.Errorf("%s: CapBnd: %w", file, err)
	}
	p := &process{NoNewPrivs: field["NoNewPrivs"] == "1", SeccompFilters: filters, Capabilities: []string{}}
	for i := range 64 {
		if bits&(1<<i) != 0 {
			p.Capabilities = append(p.Capabilities, "CAP_"+strings.ToUpper(capability.Cap(i).String()))
		}
	}
	return p, nil
}

func (in *inspection) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 1, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("id", "%s", in.ID)
	row("root", "%s", in.Root)
	row("created", "%s", in.Created.Format(time.RFC3339))
	if in.Pid == 0 {
		row("status", "%s", in.Status)
	} else {
		row("status", "%s, pid %d", in.Status, in.Pid)
	}
	row("policy", "%s (at creation)", clean(in.Policy))
	if n := in.Network; n != nil {
		row("network", "revision %d from %s, since %s; %d connections, proxy pid %d", n.Revision, clean(n.Policy), n.Since.Format(time.RFC3339), n.Connections, n.Pid)
		if n.Closed != "" {
			row("", "%s", n.Closed)
		}
	} else {
		row("network", "closed: %s", in.NetworkError)
	}
	if in.Tracing {
		row("tracing", "programs can trace each other")
	} else {
		row("tracing", "refused, and /proc is read-only")
	}
	list := func(name string, paths []string) {
		if len(paths) > 0 {
			row(name, "%s, which config.json lacks", clean(strings.Join(paths, " ")))
		}
	}
	list("masked", in.MaskedPaths)
	list("read-only", in.ReadonlyPaths)
	for _, a := range in.Accepted {
		row("accepted", "%s, by the operator's allow", clean(a))
	}
	for _, s := range in.Sockets {
		row("socket", "%s, of a program of the host", clean(s))
	}
	for _, p := range in.Providers {
		use := ""
		switch {
		case p.Gone != "":
			use = ", " + string(p.Gone)
		case len(p.Routes) > 0:
			use = ", for routes " + strings.Join(p.Routes, " ")
		}
		row("provider", "%s, revision %d%s", p.Name, p.Revision, use)
	}
	if l := in.Landlock; l.ABI == 0 {
		row("landlock", "none: the kernel has none and the operator accepts that")
	} else {
		row("landlock", "ABI %d", l.ABI)
		for _, r := range l.Rules {
			access := "read-only "
			if r.Access&^landlock.ReadOnly != 0 {
				access = "read-write"
			}
			row("", "%s %s", access, clean(r.Path))
		}
		if l.Scoped&landlock.ScopeSignals != 0 {
			row("", "signals stay inside: the PID namespace may be shared")
		}
		if l.Scoped&landlock.ScopeAbstractSockets != 0 {
			row("", "abstract sockets stay inside: the network namespace may be shared")
		}
	}
	if in.User != nil {
		row("user", "%d, by policy", *in.User)
	}
	if in.Group != nil {
		row("group", "%d, by policy", *in.Group)
	}
	if p := in.Process; p != nil {
		row("no_new_privs", "%t", p.NoNewPrivs)
		row("seccomp", "%d filters", p.SeccompFilters)
		row("capabilities", "%s", orNone(p.Capabilities))
	}
	if len(in.TakenCapabilities) > 0 {
		row("taken away", "%s, which config.json gives", clean(strings.Join(in.TakenCapabilities, " ")))
	}
	return w.Flush()
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}
