// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

//go:embed commands.yaml
var commandsText []byte

//go:embed programs.known
var knownText string

// Networks that a command may ask for.
const (
	networkTest       = "test"       // the servers of peer.sh, by names that end in .test
	networkNone       = "none"       // only lo
	networkRegistries = "registries" // the registries of this machine's package clients
)

// defaultTimeout bounds one side of a command that names no timeout. A command takes
// a few seconds; a busy machine of two cores gets ten times as much.
const defaultTimeout = 60 * time.Second

// command is one entry of commands.yaml.
type command struct {
	// Name identifies the command in the report and in programs.known.
	Name string `yaml:"name"`
	// Run is the script of the container's first process, for sh -c.
	Run string `yaml:"run"`
	// Exec are scripts that run one after another by the runtime's exec, while the
	// first process runs. If there are any, their statuses and output are compared,
	// and those of Run are not.
	Exec []string `yaml:"exec"`
	// RuncExec replaces Exec under runc, whose exec does less than people expect of
	// `openshell exec`.
	RuncExec []string `yaml:"runc_exec"`
	// Prints is a regular expression that the standard output under runc matches.
	Prints string `yaml:"prints"`
	// Status is the exit status under runc, of the last script if there are several.
	Status int `yaml:"status"`
	// Network is one of the networks above (default: test).
	Network string `yaml:"network"`
	// Small runs the command in the Debian of scripts/rootfs.sh, in which the
	// servers and tools of scripts/programs.sh are not installed.
	Small bool `yaml:"small"`
	// Prepare is a script that changes the root filesystem by chroot before the
	// container is made.
	Prepare string `yaml:"prepare"`
	// Policy replaces the whole default policy (policy.yaml).
	Policy string `yaml:"policy"`
	// User is the process's numeric user and group (default: 0).
	User uint32 `yaml:"user"`
	// Capabilities are added to Docker's default ones.
	Capabilities []string `yaml:"capabilities"`
	// CLI runs the sandbox by `openshell run`, and `openshell exec` where there is
	// Exec, instead of by the runtime's verbs. `openshell run` needs Network none.
	CLI bool `yaml:"cli"`
	// TTY gives the process a terminal. runc gets a controlling terminal for it; `openshell
	// run -t` has none.
	TTY bool `yaml:"tty"`
	// Umask is the runtime's own umask, as in the shell's umask.
	Umask string `yaml:"umask"`
	// Layer adds the files that the container has left in its layer to the output.
	Layer bool `yaml:"layer"`
	// Unmasked leaves maskedPaths and readonlyPaths out of config.json.
	Unmasked bool `yaml:"unmasked"`
	// Timeout bounds each side, in seconds (default: 60).
	Timeout int `yaml:"timeout"`

	prints *regexp.Regexp
}

func (c *command) timeout() time.Duration {
	if c.Timeout == 0 {
		return defaultTimeout
	}
	return time.Duration(c.Timeout) * time.Second
}

// parseCommands reads commands.yaml.
func parseCommands(text []byte) ([]*command, error) {
	var all []*command
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("commands.yaml: %w", err)
	}
	seen := map[string]bool{}
	for _, c := range all {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("commands.yaml: %q: %w", c.Name, err)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("commands.yaml: %q is there twice", c.Name)
		}
		seen[c.Name] = true
	}
	return all, nil
}

// check sets the defaults of the entry, and returns an error if the entry is not valid.
func (c *command) check() (err error) {
	if c.Network == "" {
		c.Network = networkTest
	}
	switch {
	case c.Name == "" || strings.ContainsAny(c.Name, "\t\n"):
		return errors.New("want a name of one line")
	case c.Run == "" && len(c.Exec) == 0:
		return errors.New("want run or exec")
	case len(c.RuncExec) > 0 && len(c.RuncExec) != len(c.Exec):
		return errors.New("want as many runc_exec as exec")
	case c.Prints == "":
		return errors.New("want prints: a command without output proves little")
	case !slices.Contains([]string{networkTest, networkNone, networkRegistries}, c.Network):
		return fmt.Errorf("network %q: want test, none or registries", c.Network)
	case c.CLI && len(c.Exec) == 0 && c.Network != networkNone:
		return errors.New("openshell run has no test network: want network: none")
	case c.TTY && (!c.CLI || len(c.Exec) > 0):
		return errors.New("tty is for openshell run: want cli and run")
	}
	if c.Run == "" {
		c.Run = "exec sleep infinity"
	}
	if c.prints, err = regexp.Compile(c.Prints); err != nil {
		return fmt.Errorf("prints: %w", err)
	}
	return nil
}

// parseKnown reads programs.known: a command's name, a tab, the reason. Empty lines
// and lines that start with # are comments.
func parseKnown(text string, all []*command) (map[string]string, error) {
	known := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, "\t")
		switch {
		case reason == "":
			return nil, fmt.Errorf("programs.known: no reason for %q", name)
		case known[name] != "":
			return nil, fmt.Errorf("programs.known: %q is there twice", name)
		case !slices.ContainsFunc(all, func(c *command) bool { return c.Name == name }):
			return nil, fmt.Errorf("programs.known: commands.yaml has no command %q", name)
		}
		known[name] = reason
	}
	return known, nil
}
