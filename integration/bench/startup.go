// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Budgets of design: how much slower than runc a sandbox may be.
const (
	startBudget    = 1.25
	togetherBudget = 3.0
)

// maker is a runtime that is measured.
type maker struct {
	name string
	argv []string
}

// makers are the runtimes that work here, ours first.
func (b *bench) makers() ([]maker, error) {
	if err := b.upstream(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(b.runc); err != nil {
		return nil, fmt.Errorf("runc to compare with: %w", err)
	}
	var err error
	if b.brief, err = b.bundle("brief", "/bin/bench", "true"); err != nil {
		return nil, err
	}
	all := []maker{
		{ours, b.runtime()},
		{"runc", []string{b.runc, "--root", filepath.Join(b.dir, "run/runc")}},
	}
	if crun, err := exec.LookPath("crun"); err == nil {
		m := maker{"crun", []string{crun, "--root", filepath.Join(b.dir, "run/crun")}}
		// It refuses some cgroup setups; then it is left out.
		if _, err := b.once(m, "crun-trial"); err == nil {
			all = append(all, m)
		} else {
			fmt.Fprintf(os.Stderr, "bench: without crun: %v\n", err)
		}
	}
	return all, nil
}

// stages are how long a container's life took, in milliseconds.
type stages struct{ create, start, end float64 }

func (s stages) total() float64 { return s.create + s.start + s.end }

// once makes a container, runs it to its end and removes it.
func (b *bench) once(m maker, id string) (s stages, err error) {
	pidFile := filepath.Join(b.dir, id+".pid")
	defer func() {
		if err != nil {
			_ = m.verb("delete", "--force", id)
		}
	}()
	began := time.Now()
	lap := func() float64 {
		d := time.Since(began)
		began = time.Now()
		return float64(d.Microseconds()) / 1000
	}
	if err := m.verb("create", "--bundle", b.brief, "--pid-file", pidFile, id); err != nil {
		return s, err
	}
	s.create = lap()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return s, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return s, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return s, err
	}
	defer unix.Close(pidfd)
	lap()
	if err := m.verb("start", id); err != nil {
		return s, err
	}
	s.start = lap()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10000)
		if n == 1 {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return s, fmt.Errorf("%s: the container does not end: %w", m.name, err)
		}
	}
	lap()
	err = m.verb("delete", id)
	s.end = lap()
	return s, err
}

// verb runs one command of the runtime.
func (m maker) verb(args ...string) error {
	cmd := exec.Command(m.argv[0], append(m.argv[1:len(m.argv):len(m.argv)], args...)...)
	// Not a pipe: the container keeps its end.
	out, err := os.CreateTemp("", "openshell-bench-out-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s %s: %w: %s", m.name, args[0], err, text)
	}
	return nil
}

// startup measures one container after another, the runtimes in turn.
func startup(b *bench) error {
	all, err := b.makers()
	if err != nil {
		return err
	}
	type times struct{ total, create, start, end []float64 }
	got := map[string]*times{}
	for i := range b.pairs + 2 {
		for k := range all {
			m := all[(i+k)%len(all)]
			s, err := b.once(m, fmt.Sprintf("start-%s-%d", m.name, i))
			if err != nil {
				return err
			}
			t := got[m.name]
			if t == nil {
				t = &times{}
				got[m.name] = t
			}
			if i < 2 { // programs and caches get warm
				continue
			}
			t.total, t.create, t.start, t.end = append(t.total, s.total()), append(t.create, s.create), append(t.start, s.start), append(t.end, s.end)
		}
	}
	r, p50, p99 := got["runc"], 0.5, 0.99
	for _, m := range all {
		row := b.report.add("create + start + delete", m.name, quantile(got[m.name].total, p50), quantile(got[m.name].total, p99), "ms")
		if m.name == ours {
			a, z := row.Median/quantile(r.total, p50), row.P99/quantile(r.total, p99)
			row.within(a <= startBudget && z <= startBudget, "≤ %.2f × runc, is %.2f, p99 %.2f", startBudget, a, z)
		}
	}
	for _, stage := range []struct {
		name string
		of   func(*times) []float64
	}{
		{"create alone", func(t *times) []float64 { return t.create }},
		{"start alone", func(t *times) []float64 { return t.start }},
		{"delete alone", func(t *times) []float64 { return t.end }},
	} {
		for _, m := range all {
			v := stage.of(got[m.name])
			b.report.add(stage.name, m.name, quantile(v, p50), quantile(v, p99), "ms")
		}
	}
	return nil
}

// together starts many containers at the same moment.
func together(b *bench) error {
	all, err := b.makers()
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d at once, each until it ended", b.options.together)
	p99 := map[string]float64{}
	for i := len(all) - 1; i >= 0; i-- { // ours last, to have something to compare with
		m := all[i]
		var wg sync.WaitGroup
		var mu sync.Mutex
		var times []float64
		var failed []error
		began := time.Now()
		for n := range b.options.together {
			wg.Go(func() {
				_, err := b.once(m, fmt.Sprintf("together-%s-%d", m.name, n))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = append(failed, err)
					return
				}
				times = append(times, float64(time.Since(began).Milliseconds()))
			})
		}
		wg.Wait()
		p99[m.name] = quantile(times, 0.99)
		row := b.report.add(what, m.name, quantile(times, 0.5), p99[m.name], "ms")
		if m.name == ours {
			ratio := row.P99 / p99["runc"]
			row.within(len(failed) == 0 && ratio <= togetherBudget, "%d failed; p99 ≤ %.0f × runc, is %.2f", len(failed), togetherBudget, ratio)
		}
		for _, err := range failed[:min(len(failed), 3)] {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		}
	}
	return nil
}
