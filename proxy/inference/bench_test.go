// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.dev/runtime/policy"
)

// first returns the time to the first part of a streamed answer.
func first(b *testing.B, c *http.Client, url string) time.Duration {
	began := time.Now()
	resp, err := c.Post(url, "application/json", strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	d := time.Since(began)
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return d
}

// BenchmarkFirstByte asks directly and through the router in turn, and reports what
// the router adds.
func BenchmarkFirstByte(b *testing.B) {
	up := newBackend(b, streaming(sseType, chatParts...))
	s := serve(b, Config{Routes: []Route{up.route(b, OpenAI)}})
	direct := &http.Client{Transport: roundTrip(do(b))}
	var without, with []time.Duration
	for range 50 {
		first(b, direct, up.URL+"/v1/chat/completions")
		first(b, s.client, "http://"+policy.RouterHost+"/v1/chat/completions")
	}
	for b.Loop() {
		without = append(without, first(b, direct, up.URL+"/v1/chat/completions"))
		with = append(with, first(b, s.client, "http://"+policy.RouterHost+"/v1/chat/completions"))
	}
	for _, q := range []struct {
		unit string
		at   float64
	}{{"p50-added-µs", 0.5}, {"p99-added-µs", 0.99}} {
		b.ReportMetric(float64(quantile(with, q.at)-quantile(without, q.at))/1000, q.unit)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

// discard takes an answer as a connection does that is read at once.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) FlushError() error           { return nil }

// BenchmarkMemoryPerStream reports what the router itself holds for each of 200 open
// streams, whose requests were 100 kB each.
func BenchmarkMemoryPerStream(b *testing.B) {
	const n = 200
	body := `{"model":"m","stream":true,"x":"` + strings.Repeat("x", 100_000) + `"}`
	base, err := url.Parse("https://backend.example")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		release := make(chan struct{})
		var open, all sync.WaitGroup
		open.Add(n)
		r, err := New(Config{Routes: []Route{{Name: "r", Dialect: OpenAI, BaseURL: base}}, Do: func(req *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, req.Body)
			req.Body.Close()
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {sseType}}, Body: &waiting{release: release, open: &open}}, nil
		}})
		if err != nil {
			b.Fatal(err)
		}
		before := inUse()
		for range n {
			all.Go(func() {
				req, _ := http.NewRequest("POST", "http://"+policy.RouterHost+"/v1/chat/completions", strings.NewReader(body))
				req.RequestURI = "/v1/chat/completions"
				r.ServeHTTP(&discard{http.Header{}}, req)
			})
		}
		open.Wait()
		b.ReportMetric(float64(inUse()-before)/n/1024, "KiB/stream")
		close(release)
		all.Wait()
	}
}

// waiting is a stream that has begun, and waits.
type waiting struct {
	release chan struct{}
	open    *sync.WaitGroup
	at      int
}

func (w *waiting) Read(p []byte) (int, error) {
	w.at++
	if w.at == 2 {
		w.open.Done()
		<-w.release
	}
	if w.at <= len(chatParts) {
		return copy(p, chatParts[w.at-1]), nil
	}
	return 0, io.EOF
}
func (w *waiting) Close() error { return nil }

// inUse is the heap and the stacks after a collection.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func BenchmarkDocument(b *testing.B) {
	raw := []byte(`{"model":"m","messages":[` + strings.Repeat(`{"role":"user","content":"some text of a message, as it is"},`, 10000) + `{}]}`)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := parseDocument(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFollow(b *testing.B) {
	p := bytes.Repeat([]byte(strings.Join(messageParts, "")), 20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		o := newObserver(endMessage)
		s := &sse{o: o, w: o.walker(), atLine: true, atEvent: true}
		s.feed(p)
	}
}
