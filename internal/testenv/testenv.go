// SPDX-License-Identifier: Apache-2.0

// Package testenv says what tests may expect of the machine they run on. A test
// skips for want of something only where nobody said that the machine has it:
// OPENSHELL_TEST_REQUIRE lists, by commas, what must be there.
package testenv

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Variable is the environment variable that lists what the machine must have.
const Variable = "OPENSHELL_TEST_REQUIRE"

// What a machine may lack.
const (
	// Root is user 0 with the right to make namespaces.
	Root = "root"
	// Cgroups is the right to make cgroups.
	Cgroups = "cgroups"
	// Docker is dockerd, its client and iptables.
	Docker = "docker"
	// Debian is debootstrap, and a mirror for it.
	Debian = "debian"
	// Compiler is gcc.
	Compiler = "compiler"
	// Registries is a way to the registries that the machine's package clients are
	// configured for.
	Registries = "registries"
	// Agents is the leave to install agents by npm, 1.7 GB, and the minutes to run
	// them: only who asks for them has that.
	Agents = "agents"
)

// checks are for what can be looked at without trying it.
var checks = map[string]func() error{
	Root: func() error {
		if os.Geteuid() != 0 {
			return errors.New("not root")
		}
		return nil
	},
	Docker:   func() error { return programs("dockerd", "docker", "iptables") },
	Debian:   func() error { return programs("debootstrap") },
	Compiler: func() error { return programs("gcc") },
	Agents: func() error {
		if !must(Agents) {
			return errors.New("make test-agents runs it")
		}
		return programs("npm")
	},
}

func programs(names ...string) error {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			return errors.New(n + " is not installed: make setup installs it")
		}
	}
	return nil
}

// Require skips t if the machine lacks one of needs, or fails it if the machine
// must have that.
func Require(t testing.TB, needs ...string) {
	t.Helper()
	for _, need := range needs {
		check, ok := checks[need]
		if !ok {
			t.Fatalf("testenv: %q can only be tried: call Lacks where it fails", need)
		}
		if err := check(); err != nil {
			Lacks(t, need, err)
		}
	}
}

// Lacks skips t because the machine lacks need, or fails it if the machine must
// have that.
func Lacks(t testing.TB, need string, why error) {
	t.Helper()
	if must(need) {
		t.Fatalf("%s is required (%s): %v", need, Variable, why)
	}
	t.Skipf("needs %s: %v", need, why)
}

func must(need string) bool {
	return slices.Contains(strings.Split(os.Getenv(Variable), ","), need)
}
