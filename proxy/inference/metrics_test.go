// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// counted is how many calls ended so, and all the tokens that they cost.
func counted(m *Meter, outcome string) (calls, in, out int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s, c := range m.series {
		if s.outcome == outcome {
			calls, in, out = calls+c.calls, in+c.tokensIn, out+c.tokensOut
		}
	}
	return calls, in, out
}

// What is written is what Prometheus reads: a type before each name, buckets that add
// up, and the tokens of each route.
func TestMetrics(t *testing.T) {
	m := &Meter{}
	for _, u := range []Usage{
		{Route: "main", Tried: 1, Status: 200, TokensIn: 3, TokensOut: 5, FirstByte: 30 * time.Millisecond, Duration: 2 * time.Second},
		{Route: "main", Tried: 1, Status: 200, TokensIn: 10, TokensOut: 20, Estimated: true, FirstByte: time.Hour, Duration: time.Hour},
		{Route: "main", Tried: 1, Status: 503, Duration: time.Millisecond},
		{Status: 403},
		{Status: 429},
		{Route: "main", Tried: 1, Status: statusGone},
	} {
		m.begin()
		m.observe(&u, false)
	}
	m.begin()
	m.observe(&Usage{Route: "main", Tried: 1, Status: 200}, true)
	var b bytes.Buffer
	m.WriteMetrics(&b)
	text := b.String()
	for _, want := range []string{
		`openshell_inference_requests_total{route="main",outcome="answered"} 2`,
		`openshell_inference_requests_total{route="main",outcome="failed"} 1`,
		`openshell_inference_requests_total{route="main",outcome="gone"} 1`,
		`openshell_inference_requests_total{route="main",outcome="cut_off"} 1`,
		`openshell_inference_requests_total{route="",outcome="refused"} 1`,
		`openshell_inference_requests_total{route="",outcome="limited"} 1`,
		`openshell_inference_tokens_total{route="main",outcome="answered",direction="in"} 13`,
		`openshell_inference_tokens_total{route="main",outcome="answered",direction="out"} 25`,
		`openshell_inference_tokens_estimated_total{route="main",outcome="answered"} 30`,
		`openshell_inference_first_byte_seconds_bucket{route="main",outcome="answered",le="0.025"} 0`,
		`openshell_inference_first_byte_seconds_bucket{route="main",outcome="answered",le="0.1"} 1`,
		`openshell_inference_first_byte_seconds_bucket{route="main",outcome="answered",le="120"} 1`,
		`openshell_inference_first_byte_seconds_bucket{route="main",outcome="answered",le="+Inf"} 2`,
		`openshell_inference_first_byte_seconds_sum{route="main",outcome="answered"} 3600.03`,
		`openshell_inference_duration_seconds_count{route="main",outcome="answered"} 2`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	typed := map[string]bool{}
	sample := regexp.MustCompile(`^([a-z_]+?)(_bucket|_sum|_count)?(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+]+$`)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			typed[strings.Fields(name)[0]] = true
		} else if f := sample.FindStringSubmatch(line); !strings.HasPrefix(line, "# HELP ") && (f == nil || !typed[f[1]]) {
			t.Errorf("%q is no sample of a type that was told", line)
		}
	}
	for i := range 2 * maxSeries {
		m.observe(&Usage{Route: fmt.Sprint("r", i)}, false)
	}
	if n := len(m.series); n > maxSeries+1 {
		t.Errorf("%d series are kept", n)
	}
}
