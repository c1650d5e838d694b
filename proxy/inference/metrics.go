// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Metrics are written out here and not by Prometheus' client, whose generated
// messages each of the proxy's processes would pay for: docs/design/0004-middleware.md.

// buckets are the upper bounds of the times that are counted, in seconds. A model
// thinks for minutes; the router's own part is below the first.
var buckets = [...]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}

// maxSeries bounds the routes and kinds of outcomes that are counted apart, whatever
// routes come and go while a sandbox runs; more are counted as the route "other".
const maxSeries = 4 * MaxRoutes

// series is what is counted of the calls of one route with one outcome.
type series struct{ route, outcome string }

// counts are the counters of a series.
type counts struct {
	calls, tokensIn, tokensOut, estimated int64
	firstByte, duration                   histogram
}

type histogram struct {
	counts [len(buckets) + 1]int64
	sum    float64
}

func (h *histogram) observe(d time.Duration) {
	s := d.Seconds()
	i := 0
	for i < len(buckets) && s > buckets[i] {
		i++
	}
	h.counts[i]++
	h.sum += s
}

// observe counts a call that has ended.
func (m *Meter) observe(u *Usage, cut bool) {
	s := series{u.Route, outcome(u, cut)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active--
	if m.series == nil {
		m.series = map[series]*counts{}
	}
	c := m.series[s]
	if c == nil {
		if len(m.series) >= maxSeries {
			s.route = "other"
		}
		if c = m.series[s]; c == nil {
			c = &counts{}
			m.series[s] = c
		}
	}
	c.calls++
	c.tokensIn += u.TokensIn
	c.tokensOut += u.TokensOut
	if u.Estimated {
		c.estimated += u.TokensIn + u.TokensOut
	}
	if u.FirstByte > 0 {
		c.firstByte.observe(u.FirstByte)
	}
	c.duration.observe(u.Duration)
}

// outcome is how a call ended: a few words, so that there are few series.
func outcome(u *Usage, cut bool) string {
	switch {
	case u.Status == statusGone:
		return "gone"
	case cut:
		return "cut_off"
	case u.Tried == 0 && u.Status == http.StatusTooManyRequests:
		return "limited"
	case u.Tried == 0:
		return "refused"
	case u.Status >= http.StatusBadRequest:
		return "failed"
	}
	return "answered"
}

// WriteMetrics writes the counters in Prometheus' text format.
func (m *Meter) WriteMetrics(to *bytes.Buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.SortedFunc(maps.Keys(m.series), func(a, b series) int {
		return bytes.Compare([]byte(a.route+"\x00"+a.outcome), []byte(b.route+"\x00"+b.outcome))
	})
	fmt.Fprintf(to, "# TYPE openshell_inference_active gauge\nopenshell_inference_active %d\n", m.active)
	fmt.Fprintf(to, "# TYPE openshell_inference_fallbacks_total counter\nopenshell_inference_fallbacks_total %d\n", m.fallbacks)
	counter := func(name, more string, value func(*counts) int64) {
		for _, s := range all {
			fmt.Fprintf(to, "openshell_inference_%s{route=%q,outcome=%q%s} %d\n", name, s.route, s.outcome, more, value(m.series[s]))
		}
	}
	fmt.Fprintln(to, "# TYPE openshell_inference_requests_total counter")
	counter("requests_total", "", func(c *counts) int64 { return c.calls })
	fmt.Fprintln(to, "# TYPE openshell_inference_tokens_total counter")
	counter("tokens_total", `,direction="in"`, func(c *counts) int64 { return c.tokensIn })
	counter("tokens_total", `,direction="out"`, func(c *counts) int64 { return c.tokensOut })
	fmt.Fprintln(to, "# HELP openshell_inference_tokens_estimated_total Those of tokens_total that the backend did not count.")
	fmt.Fprintln(to, "# TYPE openshell_inference_tokens_estimated_total counter")
	counter("tokens_estimated_total", "", func(c *counts) int64 { return c.estimated })
	times := func(name string, of func(*counts) *histogram) {
		fmt.Fprintf(to, "# TYPE openshell_inference_%s histogram\n", name)
		for _, s := range all {
			of(m.series[s]).write(to, "openshell_inference_"+name, fmt.Sprintf("route=%q,outcome=%q", s.route, s.outcome))
		}
	}
	times("first_byte_seconds", func(c *counts) *histogram { return &c.firstByte })
	times("duration_seconds", func(c *counts) *histogram { return &c.duration })
}

func (h *histogram) write(to *bytes.Buffer, name, labels string) {
	var n int64
	for i, bound := range buckets {
		n += h.counts[i]
		fmt.Fprintf(to, "%s_bucket{%s,le=\"%g\"} %d\n", name, labels, bound, n)
	}
	n += h.counts[len(buckets)]
	fmt.Fprintf(to, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %g\n%s_count{%s} %d\n", name, labels, n, name, labels, h.sum, name, labels, n)
}
