// SPDX-License-Identifier: Apache-2.0

// Package testenv tells tests what the machine has. A test that needs something which the
// machine lacks is skipped, unless OPENSHELL_TEST_REQUIRE, a comma-separated list, says
// that the machine must have it: then the test fails.
package testenv

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Variable is the environment variable that lists what the machine must have.
const Variable = "OPENSHELL_TEST_REQUIRE"

// The things that a machine may lack.
const (
	// Root is user 0 with the right to create namespaces.
	Root = "root"
	// Cgroups is the right to create cgroups.
	Cgroups = "cgroups"
	// Docker is dockerd, its client and iptables.
	Docker = "docker"
	// Debian is debootstrap, and access to a mirror.
	Debian = "debian"
	// Compiler is gcc.
	Compiler = "compiler"
	// Registries is access to the registries for which the machine's package clients are
	// configured.
	Registries = "registries"
	// Agents is permission to install agents from npm (1.7 GB) and to run them for minutes.
	// Only make test-agents gives it.
	Agents = "agents"
)

// checks holds the requirements that can be checked without a test.
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

// Require skips t if the machine lacks one of needs, or fails t if the machine must have
// it.
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

// Lacks skips t because the machine lacks need, or fails t if the machine must have it.
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

// Eventually pauses between two looks. The pause begins with minPause and doubles up to maxPause,
// so that a short wait ends at once and the looks of a long one do not slow down the machine.
const (
	minPause = time.Millisecond
	maxPause = 32 * time.Millisecond
)

// Eventually calls done again and again until it returns true, for at most timeout, and
// reports whether it did. It is for events that no channel reports. A test that something
// does not happen calls it with what must not happen and with the time to watch for it.
func Eventually(timeout time.Duration, done func() bool) bool {
	late := time.After(timeout)
	for pause := minPause; !done(); pause = min(2*pause, maxPause) {
		select {
		case <-time.After(pause):
		case <-late:
			return done()
		}
	}
	return true
}
