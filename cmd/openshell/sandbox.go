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

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/controlapi"
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

// sandbox is one that exists, by the folder the runtime keeps of it.
type sandbox struct{ root, id string }

func (s sandbox) dir() string { return state.Dir(s.root, s.id) }

// proxy is a client of the sandbox's proxy, if there is one.
func (s sandbox) proxy() (*controlapi.Client, error) {
	socket := controlapi.Socket(s.dir())
	if _, err := os.Lstat(socket); err != nil {
		return nil, fmt.Errorf("sandbox %s has no proxy: %w", s.id, err)
	}
	return controlapi.Dial(socket), nil
}

// findSandbox is the sandbox called name: its ID or the start of it.
func findSandbox(c *cli.Context, name string) (sandbox, error) {
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
		return sandbox{}, fmt.Errorf("no sandbox has the ID %q or one that starts with it (an engine's names are not known here); searched: %s", name, strings.Join(roots, " "))
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
