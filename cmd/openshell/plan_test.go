// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/features"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
)

func TestMakePlan(t *testing.T) {
	floor := 1
	config := &operator.Config{Landlock: operator.LandlockConfig{Floor: &floor}}
	src := &operator.Source{Name: "p.yaml", Text: []byte("version: 1\nfilesystem_policy: {read_only: [/usr]}\n")}
	spec := &specs.Spec{
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Cwd: "/", Args: []string{"sh"}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_NET_RAW"}}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "network"}, {Type: "pid"}, {Type: "ipc"}, {Type: "mount"}}},
	}
	got, err := makePlan(spec, src, config, features.Features{LandlockABI: 7})
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Process.Capabilities.Bounding; !slices.Equal(c, []string{"CAP_CHOWN"}) || !got.Process.NoNewPrivileges || !got.Sandbox || got.Plan.Ruleset.ABI != 7 {
		t.Errorf("plan %+v, process %+v", got.Plan, got.Process)
	}
	if _, err := makePlan(spec, src, config, features.Features{}); err == nil || !strings.Contains(err.Error(), "landlock.floor is 1") {
		t.Errorf("without Landlock: %v", err)
	}
	spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
	var refused *plan.Refusal
	if _, err := makePlan(spec, src, config, features.Features{LandlockABI: 7}); !errors.As(err, &refused) || refused.Field != "linux.namespaces.network" {
		t.Errorf("host network: %v", err)
	}
}
