// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Budgets of the design.
const (
	squidBudget, mitmBudget   = 1.4, 12.0
	addedP50, addedP99        = 150.0, 1000.0 // microseconds
	http2Budget, spliceBudget = 0.8, 0.9
)

const many = 32

// sandboxID is the ID of the sandbox whose proxy is measured.
const sandboxID = "proxies"

// peer is a path to the upstream.
type peer struct {
	name string
	w    *worker
	// proxy is the address that accepts CONNECT; empty means no proxy.
	proxy string
	// pids are the proxy's processes, whose CPU time is counted.
	pids []int
}

// scenario is one kind of load.
type scenario struct {
	what  string
	j     job
	peers []string
	// ended is true if the proxy must terminate TLS; otherwise it must not.
	ended bool
}

var scenarios = []scenario{
	{"HTTPS h1 intercepted, 32 connections", job{Kind: kindHTTP1, Name: inspectedName, Port: tlsPort, Conns: many}, []string{direct, ours, squid, mitm}, true},
	{"HTTPS h1 intercepted, 1 connection", job{Kind: kindHTTP1, Name: inspectedName, Port: tlsPort, Conns: 1}, []string{direct, ours, squid, mitm}, true},
	{"HTTPS h2 intercepted, 32 connections", job{Kind: kindHTTP2, Name: inspectedName, Port: tlsPort, Conns: many}, []string{direct, ours, mitm}, true},
	{"TLS spliced, h1 inside, 32 connections", job{Kind: kindHTTP1, Name: splicedName, Port: tlsPort, Conns: many}, []string{direct, ours, bare}, false},
	{"TCP spliced, 1 connection", job{Kind: kindBulk, Name: rawName, Port: rawPort, Conns: 1}, []string{direct, ours, bare}, false},
	{"TCP spliced, 32 connections", job{Kind: kindBulk, Name: rawName, Port: rawPort, Conns: many}, []string{direct, ours, bare}, false},
}

// The names of the peers in the table.
const (
	direct = "direct"
	bare   = "bare Go relay"
	squid  = "squid ssl-bump"
	mitm   = "mitmproxy"
)

// measured holds the values of one peer in one scenario, one per turn.
type measured struct{ rate, p50, p99, cpu []float64 }

// proxies measures the cost of a request through each proxy. Ours runs in its real form:
// the client is in a sandbox.
func proxies(b *bench) error {
	peers, stop, err := b.peers()
	if err != nil {
		return err
	}
	defer stop()
	for _, s := range scenarios {
		if !strings.Contains(s.what, b.scenario) {
			continue
		}
		got := map[string]*measured{}
		for n := range b.rounds + 1 {
			for i := range s.peers {
				name := s.peers[(i+n)%len(s.peers)]
				p := peers[name]
				if p == nil {
					continue
				}
				m, err := p.turn(s, b.seconds)
				if err != nil {
					log, _ := os.ReadFile(filepath.Join(b.dir, "log", sandboxID, "proxy.log"))
					return fmt.Errorf("%s: %s: %w\n%s", s.what, name, err, log)
				}
				if n == 0 {
					got[name] = &measured{}
					continue // warm-up
				}
				g := got[name]
				g.rate, g.p50, g.p99, g.cpu = append(g.rate, m.rate...), append(g.p50, m.p50...), append(g.p99, m.p99...), append(g.cpu, m.cpu...)
			}
		}
		b.tell(s, got)
	}
	return nil
}

func median(v []float64) float64 { return quantile(slices.Clone(v), 0.5) }

// tell adds the rows of a scenario.
func (b *bench) tell(s scenario, got map[string]*measured) {
	rate := map[string]float64{}
	unit := "requests/s"
	if s.j.Kind == kindBulk {
		unit = "MB/s"
	}
	for name, m := range got {
		rate[name] = median(m.rate)
	}
	for _, name := range s.peers {
		if got[name] == nil {
			continue
		}
		row := b.report.add(s.what, name, rate[name], 0, unit)
		if name != ours {
			continue
		}
		switch {
		case s.j.Kind == kindHTTP1 && s.ended && s.j.Conns > 1:
			b.http1 = rate[ours]
			if rate[squid] > 0 && rate[mitm] > 0 {
				q, m := rate[ours]/rate[squid], rate[ours]/rate[mitm]
				row.within(q >= squidBudget && m >= mitmBudget, "≥ %.1f × squid, is %.2f; ≥ %.0f × mitmproxy, is %.1f", squidBudget, q, mitmBudget, m)
			}
		case s.j.Kind == kindHTTP2 && b.http1 > 0:
			row.within(rate[ours]/b.http1 >= http2Budget, "≥ %.1f × own h1, is %.2f (direct %.2f)", http2Budget, rate[ours]/b.http1, rate[direct]/b.direct1)
		case !s.ended:
			row.within(rate[ours]/rate[bare] >= spliceBudget, "≥ %.1f × bare relay, is %.2f", spliceBudget, rate[ours]/rate[bare])
		}
	}
	if s.j.Kind == kindHTTP1 && s.ended && s.j.Conns > 1 {
		b.direct1 = rate[direct]
	}
	if s.j.Kind == kindBulk {
		return
	}
	base := got[direct]
	for _, name := range s.peers {
		m := got[name]
		if m == nil || name == direct {
			continue
		}
		row := b.report.add(s.what+": added latency", name, median(m.p50)-median(base.p50), median(m.p99)-median(base.p99), "µs")
		if name == ours && s.j.Conns == 1 && s.ended {
			row.within(row.Median <= addedP50 && row.P99 <= addedP99, "≤ %.0f, p99 ≤ %.0f", addedP50, addedP99)
		}
	}
	for _, name := range s.peers {
		if m := got[name]; m != nil && name != direct {
			b.report.add(s.what+": CPU of the proxy", name, median(m.cpu), 0, "µs/request")
		}
	}
}

// turn runs one load through one peer.
func (p *peer) turn(s scenario, seconds float64) (m measured, err error) {
	j := s.j
	j.Seconds, j.Proxy = seconds, p.proxy
	if p.proxy == "" {
		j.Direct = serverAddress
	}
	before := cpuTime(p.pids)
	r, err := p.w.do(j)
	if err != nil {
		return m, err
	}
	used := cpuTime(p.pids) - before
	if want := s.ended && p.proxy != ""; s.j.Kind != kindBulk && want != (r.Issuer != upstreamCA) {
		return m, fmt.Errorf("the certificate is signed by %q", r.Issuer)
	}
	if r.Count == 0 {
		return m, errors.New("nothing came through")
	}
	rate := float64(r.Count) / r.Seconds
	if j.Kind == kindBulk {
		rate /= 1e6
	}
	return measured{[]float64{rate}, []float64{r.P50}, []float64{r.P99}, []float64{used * 1e6 / float64(r.Count)}}, nil
}

// cpuTime returns the CPU time of processes in seconds.
func cpuTime(pids []int) (sum float64) {
	const ticks = 100 // sysconf(_SC_CLK_TCK) of every Linux that Go runs on
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return math.NaN()
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseFloat(f, 64)
			sum += n / ticks
		}
	}
	return sum
}
