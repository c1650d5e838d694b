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

// Budgets of the design: how much slower than runc a sandbox may be.
const (
	startBudget    = 1.25
	togetherBudget = 3.0
)

// maker is a runtime that is measured.
type maker struct {
	name string
	argv []string
}

// makers returns the runtimes that work on this machine, ours first.
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
		// crun refuses some cgroup configurations; then it is left out.
		if _, err := b.once(m, "crun-trial"); err == nil {
			all = append(all, m)
		} else {
			fmt.Fprintf(os.Stderr, "bench: without crun: %v\n", err)
		}
	}
	return all, nil
}

// stages holds the durations of a container's stages in milliseconds, and the processor
// time of all processes that took part.
type stages struct{ create, start, end, cpu float64 }

func (s stages) total() float64 { return s.create + s.start + s.end }

// once creates a container, runs it until it ends, and removes it.
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

// used returns the processor time of all processes that were started and have ended, when
// no more than kept are left.
//
// Preconditions: this process is the reaper of everything it starts.
func used(kept int) (time.Duration, error) {
	for ; ; time.Sleep(time.Millisecond) {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		n, err := children()
		if err != nil {
			return 0, err
		}
		if n <= kept {
			break
		}
	}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		return 0, fmt.Errorf("ask for the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// children returns the number of processes whose parent is this one.
func children() (n int, err error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // ErrNotExist: the thread has ended
			return 0, fmt.Errorf("count children: %w", err)
		}
		n += len(strings.Fields(string(text)))
	}
	return n, nil
}

// verb runs one command of the runtime.
func (m maker) verb(args ...string) error {
	cmd := exec.Command(m.argv[0], append(m.argv[1:len(m.argv):len(m.argv)], args...)...)
	// Not a pipe: the container keeps its end open.
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

// startup measures one container after another, with the runtimes in turn.
func startup(b *bench) error {
	all, err := b.makers()
	if err != nil {
		return err
	}
	kept, err := children()
	if err != nil {
		return err
	}
	// Proxies and containers outlive the command that started them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper: %w", err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	type times struct{ total, create, start, end, cpu []float64 }
	got := map[string]*times{}
	for i := range b.pairs + 2 {
		for k := range all {
			m := all[(i+k)%len(all)]
			before, err := used(kept)
			if err != nil {
				return err
			}
			s, err := b.once(m, fmt.Sprintf("start-%s-%d", m.name, i))
			if err != nil {
				return err
			}
			after, err := used(kept)
			if err != nil {
				return err
			}
			s.cpu = float64((after - before).Microseconds()) / 1000
			t := got[m.name]
			if t == nil {
				t = &times{}
				got[m.name] = t
			}
			if i < 2 { // warm-up of programs and caches
				continue
			}
			t.total, t.create, t.start = append(t.total, s.total()), append(t.create, s.create), append(t.start, s.start)
			t.end, t.cpu = append(t.end, s.end), append(t.cpu, s.cpu)
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
		{"processor time of all three", func(t *times) []float64 { return t.cpu }},
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
	for i := len(all) - 1; i >= 0; i-- { // ours last, because it is compared with the others
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
