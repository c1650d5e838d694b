// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Budgets of the design, in MiB, for guard, worker and standby together.
const (
	idleBudget, heldBudget = 16.0, 64.0
	held                   = 1000
)

// settle is the time in which a proxy can return memory to the system before it is
// measured.
const settle = 7 * time.Second

// memory measures the memory of one sandbox's proxy.
func memory(b *bench) error {
	p, stop, err := b.sandbox("memory")
	if err != nil {
		return err
	}
	defer stop()
	if err := b.size(p, "idle", 0, idleBudget); err != nil {
		return err
	}
	return b.size(p, fmt.Sprintf("%d kept-alive intercepted connections", held), held, heldBudget)
}

func (b *bench) size(p *peer, what string, conns int, budget float64) error {
	if _, err := p.w.do(job{Kind: kindHold, Name: inspectedName, Port: tlsPort, Proxy: p.proxy, Conns: conns}); err != nil {
		return err
	}
	time.Sleep(settle)
	var rss, private float64
	for _, pid := range p.pids {
		r, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
		if err != nil {
			return err
		}
		pss, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return err
		}
		rss, private = rss+r, private+pss
	}
	b.report.add("proxy memory, "+what+": RSS", ours, rss, 0, "MiB").within(rss <= budget, "≤ %.0f", budget)
	b.report.add("proxy memory, "+what+": PSS", ours, private, 0, "MiB")
	return nil
}

// field returns a number of kilobytes in a file of /proc, in MiB.
func field(file, name string) (float64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), name)
	var kb float64
	if _, err := fmt.Sscanf(after, "%f kB", &kb); err != nil {
		return 0, fmt.Errorf("%s has no %s", file, name)
	}
	return kb / 1024, nil
}
