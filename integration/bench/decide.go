// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/policy"
)

// Budgets of design: microseconds and milliseconds.
const (
	decideBudget = 2.0
	reloadBudget = 10.0
	mostRules    = 10000
)

// rules is a policy of n rules, half of them on one endpoint, half on hosts of
// their own.
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

// reload measures from `openshell policy set` to its return, when the policy is
// enforced.
func reload(b *bench) error {
	_, stop, err := b.sandbox("reload")
	if err != nil {
		return err
	}
	defer stop()
	for _, n := range []int{1, 100, mostRules} {
		var times []float64
		for i := range 11 {
			file := filepath.Join(b.dir, "reload.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, "%s# %d\n", rules(n), i), 0o644); err != nil {
				return err
			}
			began := time.Now()
			out, err := exec.Command(filepath.Join(b.bin, "openshell"), "policy", "set", "reload", "--root", filepath.Join(b.dir, "run/openshell"), "--policy", file, "--wait").CombinedOutput()
			if err != nil {
				return fmt.Errorf("policy set: %w: %s", err, out)
			}
			times = append(times, float64(time.Since(began).Microseconds())/1000)
		}
		row := b.report.add(fmt.Sprintf("policy set to enforced, %d rules", n), ours, quantile(times, 0.5), quantile(times, 0.99), "ms")
		row.within(row.Median <= reloadBudget, "≤ %.0f", reloadBudget)
	}
	return nil
}
