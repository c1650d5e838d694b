// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/state"
	"openshell.dev/runtime/policy"
)

// Budgets of the design, in microseconds and milliseconds.
const (
	decideBudget = 2.0
	reloadBudget = 10.0
	mostRules    = 10000
)

// rules returns a policy with n rules: half of them at one endpoint, half at hosts of their
// own.
func rules(n int) string {
	var s strings.Builder
	before, _, _ := strings.Cut(policyText, "network_policies:")
	s.WriteString(before)
	s.WriteString("network_policies:\n  api:\n    endpoints:\n      - host: api.test\n        port: 443\n        protocol: rest\n        enforcement: enforce\n        rules:\n")
	for i := range (n + 1) / 2 {
		fmt.Fprintf(&s, "          - allow: {method: GET, path: /repos/r%d/**}\n", i)
	}
	s.WriteString("    binaries: [{path: /bin/bench}]\n")
	for i := range n / 2 {
		fmt.Fprintf(&s, "  h%d:\n    endpoints: [{host: h%d.test, port: 443}]\n    binaries: [{path: /bin/bench}]\n", i, i)
	}
	return s.String()
}

// decide measures one decision.
func decide(b *bench) error {
	for _, n := range []int{1, 100, mostRules} {
		p, err := policy.Parse("bench.yaml", []byte(rules(n)))
		if err != nil {
			return err
		}
		e, err := policy.Compile(p, policy.CompileOptions{})
		if err != nil {
			return err
		}
		r := &policy.Request{Host: "api.test", Port: 443, Binary: "/bin/bench", HTTP: &policy.HTTP{Method: "GET", Path: fmt.Sprintf("/repos/r%d/a", (n-1)/2)}}
		if d := e.Decide(r); d.Verdict != policy.Allow {
			return fmt.Errorf("with %d rules: %s", n, d.Reason)
		}
		res := testing.Benchmark(func(t *testing.B) {
			t.ReportAllocs()
			for t.Loop() {
				e.Decide(r)
			}
		})
		us := float64(res.NsPerOp()) / 1000
		b.report.add(fmt.Sprintf("decision, %d rules", n), ours, us, 0, "µs").
			within(us <= decideBudget && res.AllocsPerOp() == 0, "≤ %.0f, no allocation (%d)", decideBudget, res.AllocsPerOp())
	}
	return nil
}

// reload measures the time from when a policy reaches the proxy until it is enforced, and
// the time of the command that sends it, which is mostly the start of a program.
func reload(b *bench) error {
	_, stop, err := b.sandbox("reload")
	if err != nil {
		return err
	}
	defer stop()
	root := filepath.Join(b.dir, "run/openshell")
	proxy := proxyapi.Dial(filepath.Join(state.Dir(root, "reload"), proxyapi.ControlSocketFile))
	file := filepath.Join(b.dir, "reload.yaml")
	times := func(what string, n int, set func(text []byte) error) (*row, error) {
		var all []float64
		for i := range 11 {
			text := fmt.Appendf(nil, "%s# %d\n", rules(n), i)
			if err := os.WriteFile(file, text, 0o644); err != nil {
				return nil, err
			}
			began := time.Now()
			if err := set(text); err != nil {
				return nil, err
			}
			all = append(all, float64(time.Since(began).Microseconds())/1000)
		}
		return b.report.add(what, ours, quantile(all, 0.5), quantile(all, 0.99), "ms"), nil
	}
	for _, n := range []int{1, 100, mostRules} {
		r, err := times(fmt.Sprintf("policy set to enforced, %d rules", n), n, func(text []byte) error {
			_, err := proxy.SetPolicy(context.Background(), file, text)
			return err
		})
		if err != nil {
			return fmt.Errorf("policy set: %w", err)
		}
		r.within(r.Median <= reloadBudget, "≤ %.0f", reloadBudget)
	}
	_, err = times("openshell policy set, 1 rule", 1, func([]byte) error {
		out, err := exec.Command(filepath.Join(b.bin, "openshell"), "policy", "set", "reload", "--root", root, "--policy", file, "--wait").CombinedOutput()
		if err != nil {
			return fmt.Errorf("openshell policy set: %w: %s", err, out)
		}
		return nil
	})
	return err
}
