// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBypass_B93_InspectWhileTheSandboxEnds: of a process that ends while it is looked
// at nothing is shown, and it is no error.
func TestBypass_B93_InspectWhileTheSandboxEnds(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		pid   int
		after specs.State
		want  bool // a process is shown
	}{
		"runs":                 {os.Getpid(), specs.State{Status: specs.StateRunning, Pid: os.Getpid()}, true},
		"ended":                {ended.Process.Pid, specs.State{Status: specs.StateStopped}, false},
		"its id is another's":  {os.Getpid(), specs.State{Status: specs.StateStopped}, false},
		"started by a restart": {os.Getpid(), specs.State{Status: specs.StateRunning, Pid: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			states := []specs.State{{Status: specs.StateRunning, Pid: tc.pid}, tc.after}
			in := &inspection{}
			err := in.look(func() (*specs.State, error) {
				st := states[0]
				states = states[1:]
				return &st, nil
			})
			if err != nil || (in.Process != nil) != tc.want || (in.Pid != 0) != tc.want || in.Status != tc.after.Status {
				t.Errorf("%+v, %v", in, err)
			}
		})
	}
}
