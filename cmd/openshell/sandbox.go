// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/state"
)

// roots are where runtimes are told to keep containers' states, as patterns:
// `openshell run`'s own, Docker's (execution root, runtime, namespace),
// containerd's (nerdctl, Kubernetes; one folder per namespace) and CRI-O's.
var roots = []string{"/run/openshell", "/run/docker/runtime-*/*", "/run/containerd/runc/*", "/run/runc"}

const containerUsage = "CONTAINER is an ID or the start of one that no other sandbox has. An engine's\n" +
	"names are not known here: take the ID from the engine (docker ps). Without --root these\n" +
	"are searched: "

func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "root", Usage: "state `DIR` of the runtime (default: search all known ones)"}
}

// sandboxFlags are the flags of a command about one sandbox. The configuration tells
// where the logs of sandboxes are that have ended.
func sandboxFlags(more ...cli.Flag) []cli.Flag { return append(more, rootFlag(), operatorFlag()) }

// sandbox is one that exists, by the folder the runtime keeps of it.
type sandbox struct{ root, id string }

func (s sandbox) dir() string { return state.Dir(s.root, s.id) }

// proxy is a client of the sandbox's proxy.
func (s sandbox) proxy() *proxyapi.Client { return proxyapi.Dial(proxyapi.ControlSocket(s.dir())) }

// onSandbox is the action of a command about the sandbox that its one argument names.
func onSandbox(do func(*cli.Context, sandbox) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		s, err := sandboxArgument(c)
		if err != nil {
			return err
		}
		return s.explain(c, do(c, s))
	}
}

// explain returns err, or the reason for it if nobody listens at the sandbox's socket
// or the sandbox's state is gone.
func (s sandbox) explain(c *cli.Context, err error) error {
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if !refused && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, gone := os.Stat(s.dir()); errors.Is(gone, fs.ErrNotExist) {
		return endedError(c, s.id)
	}
	st, unknown := ociState(c, s)
	switch {
	case unknown == nil && st.Status == specs.StateStopped:
		return s.stoppedError()
	case unknown == nil && refused:
		return fmt.Errorf("the proxy of sandbox %s was killed, so that nothing leaves the sandbox any more; stop it and create it again: %w", s.id, err)
	}
	return err
}

// stoppedError is the error of a command that needs a running sandbox, if the sandbox has
// ended and the runtime still has its state.
func (s sandbox) stoppedError() error {
	return fmt.Errorf("sandbox %s has ended; delete its remaining files with: %s --root %s delete %s", s.id, proxyapi.ProgramRuntime, s.root, s.id)
}

// dockerContainers has a folder for each of Docker's containers, as long as it is not removed.
var dockerContainers = "/var/lib/docker/containers"

// endedError is the error of a command about a sandbox that has ended and whose state is
// gone.
func endedError(c *cli.Context, id string) error {
	err := fmt.Errorf("sandbox %s has ended", id)
	if _, missing := os.Stat(filepath.Join(dockerContainers, id)); missing == nil {
		err = fmt.Errorf("%w; start it again: docker start %s", err, id)
	}
	if dir, ok := loggedSandbox(c, id); ok {
		err = fmt.Errorf("%w; its records: openshell logs %s", err, filepath.Base(dir))
		if file := c.String("config"); file != "" {
			err = fmt.Errorf("%w --config %s", err, file)
		}
	}
	return err
}

// loggedSandbox returns the folder of the log of a sandbox that no known root has.
func loggedSandbox(c *cli.Context, name string) (dir string, ok bool) {
	top, err := logDir(c)
	if err == nil {
		dir, err = findLog(top, name)
	}
	return dir, err == nil
}

// findSandbox is the sandbox called name: its ID or the start of it. The error says if
// there was one and it has ended.
func findSandbox(c *cli.Context, name string) (sandbox, error) {
	s, err := searchRoots(c, name)
	if !errors.Is(err, errNoSandbox) {
		return s, err
	}
	dir, ok := loggedSandbox(c, name)
	switch {
	case ok && decisionlog.Held(dir):
		return s, fmt.Errorf("sandbox %s runs, but its state is elsewhere: give the runtime's --root; %w", filepath.Base(dir), err)
	case ok:
		return s, endedError(c, filepath.Base(dir))
	}
	return s, err
}

func searchRoots(c *cli.Context, name string) (sandbox, error) {
	if r := c.String("root"); r != "" {
		abs, err := filepath.Abs(r)
		if err != nil {
			return sandbox{}, fmt.Errorf("resolve --root: %w", err)
		}
		return pick([]string{abs}, name)
	}
	var found []string
	for _, p := range roots {
		dirs, err := filepath.Glob(p)
		if err != nil {
			return sandbox{}, fmt.Errorf("search %s: %w", p, err)
		}
		found = append(found, dirs...)
	}
	return pick(found, name)
}

// errNoSandbox is the beginning of the error for an ID that no root has.
var errNoSandbox = errors.New("no sandbox has the ID")

func pick(roots []string, name string) (sandbox, error) {
	var exact, prefixed []sandbox
	var refused []error
	for _, root := range roots {
		entries, err := os.ReadDir(filepath.Dir(state.Dir(root, "id")))
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				refused = append(refused, err)
			}
			continue
		}
		for _, e := range entries {
			s := sandbox{root, e.Name()}
			switch {
			case e.Name() == name:
				exact = append(exact, s)
			case name != "" && strings.HasPrefix(e.Name(), name):
				prefixed = append(prefixed, s)
			}
		}
	}
	if len(exact) == 0 {
		exact = prefixed
	}
	switch len(exact) {
	case 1:
		return exact[0], nil
	case 0:
		if err := errors.Join(refused...); err != nil {
			return sandbox{}, fmt.Errorf("no sandbox %q is seen, and some folders could not be read: %w", name, err)
		}
		return sandbox{}, fmt.Errorf("%w %q or one that starts with it (an engine's names are not known here: docker ps shows IDs); searched: %s", errNoSandbox, name, strings.Join(roots, " "))
	}
	var ids []string
	for _, s := range exact {
		ids = append(ids, s.dir())
	}
	slices.Sort(ids)
	return sandbox{}, fmt.Errorf("%q means more than one sandbox; write more of the ID, or --root: %s", name, strings.Join(ids, " "))
}

// sandboxArgument is the sandbox that a command's one argument names.
func sandboxArgument(c *cli.Context) (sandbox, error) {
	name, err := oneArgument(c, "CONTAINER")
	if err != nil {
		return sandbox{}, err
	}
	return findSandbox(c, name)
}

// searched names roots for help texts.
func searched() string { return strings.Join(roots, " ") }
