// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// config is a config.json as engines write it, without what the examples do not need.
func config() *specs.Spec {
	return &specs.Spec{
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Cwd: "/work", Args: []string{"agent"}, Env: []string{"PATH=/usr/bin", "GITHUB_TOKEN=my-own"},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_NET_RAW"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.NetworkNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.MountNamespace},
		}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
	}
}

// A plan is made from values, and the changed copy of config.json shows its effect.
func ExampleNew() {
	pol, err := policy.Parse("policy.yaml", []byte("version: 1\nfilesystem_policy: {read_only: [/usr], read_write: [/work]}\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	spec := config()
	pl, err := plan.New(spec, pol, plan.Options{LandlockABI: 7, Placeholders: []string{"GITHUB_TOKEN=openshell:resolve:env:GITHUB_TOKEN"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range pl.Ruleset.Rules[:2] {
		fmt.Println("rule:", r.Path)
	}
	process := pl.Spec(spec).Process
	fmt.Println("capabilities:", process.Capabilities.Bounding)
	for _, e := range process.Env {
		if strings.HasPrefix(e, "GITHUB_TOKEN=") || strings.HasPrefix(e, "HTTPS_PROXY=") {
			fmt.Println("environment:", e)
		}
	}
	fmt.Println("config.json still has:", spec.Process.Capabilities.Bounding)
	// Output:
	// rule: /usr
	// rule: /work
	// capabilities: [CAP_CHOWN]
	// environment: GITHUB_TOKEN=openshell:resolve:env:GITHUB_TOKEN
	// environment: HTTPS_PROXY=http://127.0.0.1:15001
	// config.json still has: [CAP_CHOWN CAP_NET_RAW]
}

// A refusal names its field, and the operator can accept it under that name.
func ExampleCheck() {
	spec := config()
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/docker.sock", Type: "bind", Source: "/run/docker.sock"})

	err := plan.Check(spec, &policy.Policy{}, plan.Options{LandlockABI: 7})
	var refusal *plan.Refusal
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Field+":", refusal.Reason)
	}
	fmt.Println(plan.Check(spec, &policy.Policy{}, plan.Options{LandlockABI: 7, Allow: []string{refusal.Field}}))
	// Output:
	// mounts: mounts[1] gives the sandbox /run/docker.sock (the socket of an engine or an agent), which leads out of it
	// <nil>
}
