// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"openshell.dev/runtime/policy"
)

// Budgets of the privacy router, in microseconds and KiB.
const (
	routerP50, routerP99 = 500.0, 3000.0
	streamBudget         = 64.0
)

const (
	// kindStream requests streamed completions from a model until the job ends.
	kindStream = "stream"
	routerName = policy.RouterHost
	modelPort  = "8443"
	// A completion has this many parts, with a pause before each: a fast model.
	parts     = 40
	pause     = 25 * time.Millisecond
	streams   = 200
	routerID  = "router"
	completed = "[DONE]"
)

// model responds like a backend that streams: each part contains the time when it was sent.
func model(cert tls.Certificate) error {
	l, err := net.Listen("tcp", net.JoinHostPort(serverAddress, modelPort))
	if err != nil {
		return err
	}
	s := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			flush := http.NewResponseController(w).Flush
			for i := range parts {
				if i > 0 {
					time.Sleep(pause)
				}
				fmt.Fprintf(w, "data: {\"sent\":%d,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"token \"}}]}\n\n", time.Now().UnixNano())
				if flush() != nil {
					return
				}
			}
			fmt.Fprintf(w, "data: %s\n\n", completed)
		}),
	}
	return s.ServeTLS(l, "", "")
}

// router measures the time that the privacy router adds to a streamed completion, with one
// stream and with many, and the memory per stream.
func router(b *bench) error {
	usual := b.config
	defer func() { b.config = usual }()
	b.config = filepath.Join(b.dir, "router.yaml")
	routes := filepath.Join(b.dir, "inference.yaml")
	for file, text := range map[string]string{
		b.config: "log_dir: " + filepath.Join(b.dir, "log") + "\ninference_file: " + routes + "\n",
		routes:   "routes: [{name: model, dialect: openai, base_url: \"https://" + net.JoinHostPort(inspectedName, modelPort) + "/v1\"}]\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	p, stop, err := b.sandbox(routerID)
	if err != nil {
		return err
	}
	defer stop()
	host, err := b.worker("/proc/self/exe", "agent")
	if err != nil {
		return err
	}
	defer host.stop()
	base := &peer{name: direct, w: host}
	// Memory comes first: what a load leaves behind would count as the proxy's memory at
	// rest.
	if err := b.streamMemory(p); err != nil {
		return err
	}
	for _, n := range []int{1, streams} {
		if err := b.streamed(p, base, n); err != nil {
			return err
		}
	}
	return nil
}

// streamed measures both in turn, with n streams at once.
func (b *bench) streamed(p, base *peer, n int) error {
	what := fmt.Sprintf("router, %d streams at once: ", n)
	if n == 1 {
		what = "router, 1 stream: "
	}
	if !strings.Contains(what, b.scenario) {
		return nil
	}
	type sample struct{ first50, first99, part50, part99 []float64 }
	got := map[string]*sample{direct: {}, ours: {}}
	for turn := range b.rounds + 1 {
		for _, who := range []*peer{base, p} {
			r, err := who.completions(n, max(b.seconds, 2*parts*pause.Seconds()))
			if err != nil {
				return fmt.Errorf("%s: %w", who.name, err)
			}
			if turn == 0 {
				continue // warm-up
			}
			s := got[who.name]
			s.first50, s.first99 = append(s.first50, r.First50), append(s.first99, r.First99)
			s.part50, s.part99 = append(s.part50, r.P50), append(s.part99, r.P99)
		}
	}
	d, o := got[direct], got[ours]
	for _, row := range []struct {
		what               string
		d50, d99, o50, o99 []float64
	}{
		{"to the first byte", d.first50, d.first99, o.first50, o.first99},
		{"to each next part", d.part50, d.part99, o.part50, o.part99},
	} {
		b.report.add(what+row.what, direct, median(row.d50), median(row.d99), "µs")
		p50, p99 := median(row.o50)-median(row.d50), median(row.o99)-median(row.d99)
		r := b.report.add(what+row.what+": added", ours, p50, p99, "µs")
		if n == 1 {
			r.within(p50 <= routerP50 && p99 <= routerP99, "≤ %.0f, p99 ≤ %.0f", routerP50, routerP99)
		}
	}
	return nil
}

func (p *peer) completions(n int, seconds float64) (result, error) {
	j := job{Kind: kindStream, Name: routerName, Port: tlsPort, Proxy: p.proxy, Conns: n, Seconds: seconds}
	if p.proxy == "" {
		j.Name, j.Port, j.Direct = inspectedName, modelPort, serverAddress
	}
	return p.w.do(j)
}

// streamMemory compares the proxy's memory at rest, after its first request, and with many
// streams.
func (b *bench) streamMemory(p *peer) error {
	if _, err := p.completions(1, pause.Seconds()); err != nil {
		return err
	}
	time.Sleep(settle)
	rest, err := resident(p.pids)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := p.completions(streams, settle.Seconds()+2)
		done <- err
	}()
	time.Sleep(settle)
	busy, err := resident(p.pids)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	each := (busy - rest) * 1024 / streams
	b.report.add("router: memory of each of "+strconv.Itoa(streams)+" streams", ours, each, 0, "KiB").within(each <= streamBudget, "≤ %.0f", streamBudget)
	return nil
}

// resident returns the memory of processes in MiB.
func resident(pids []int) (sum float64, err error) {
	for _, pid := range pids {
		rss, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
		if err != nil {
			return 0, err
		}
		sum += rss
	}
	return sum, nil
}

// stream requests completions on Conns connections until the job ends. P50 and P99 are the
// times from the sending of a part to its arrival; First50 and First99 are the times from
// the request to the first part.
func (j *job) stream() (r result, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first, next []float64
	begin := time.Now()
	end := begin.Add(time.Duration(j.Seconds * float64(time.Second)))
	for i := range j.Conns {
		c, _, e := j.dial("http/1.1")
		if e != nil {
			return r, errors.Join(err, e)
		}
		defer c.Close()
		wg.Go(func() {
			// The requests do not start at the same moment, like those of people.
			time.Sleep(time.Duration(i) * pause / time.Duration(j.Conns))
			br := bufio.NewReaderSize(c, 4<<10)
			for time.Now().Before(end) {
				f, n, e := j.complete(c, br)
				mu.Lock()
				first, next, err = append(first, f), append(next, n...), errors.Join(err, e)
				mu.Unlock()
				if e != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	r.Seconds, r.Count = time.Since(begin).Seconds(), int64(len(first))
	r.First50, r.First99 = quantile(first, 0.5), quantile(first, 0.99)
	r.P50, r.P99 = quantile(next, 0.5), quantile(next, 0.99)
	return r, err
}

// complete requests one completion and returns the times of its parts in microseconds.
func (j *job) complete(c net.Conn, br *bufio.Reader) (first float64, next []float64, err error) {
	const question = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}`
	begin := time.Now()
	if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		net.JoinHostPort(j.Name, j.Port), len(question), question); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, nil, fmt.Errorf("%s: %s", resp.Status, text)
	}
	ended := false
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadSlice('\n')
		now := time.Now()
		if errors.Is(err, io.EOF) && ended && len(next) == parts-1 {
			return first, next, nil
		}
		if err != nil {
			return 0, nil, fmt.Errorf("after %d parts: %w", len(next), err)
		}
		switch digits, ok := bytes.CutPrefix(line, []byte(`data: {"sent":`)); {
		case ok:
			text, _, _ := strings.Cut(string(digits), ",")
			sent, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return 0, nil, err
			}
			if first == 0 {
				first = float64(now.Sub(begin).Nanoseconds()) / 1000
			} else {
				next = append(next, float64(now.UnixNano()-sent)/1000)
			}
		case bytes.Contains(line, []byte(completed)):
			ended = true
		}
	}
}
