// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxSurprises is the number of unexpected results of each kind of traffic that a soak
	// prints.
	maxSurprises = 5
	// soakTimeout limits one action in a soak.
	soakTimeout = 20 * time.Second
)

// traffic is one usual action of a workload. It returns an error if the action did not end
// as expected.
type traffic func(ctx context.Context, n int) error

// usual returns what workloads do, for a policy that allows /ok/ at api.test.
func usual() map[string]traffic {
	by := http.ProxyFromEnvironment
	return map[string]traffic{
		"kept-alive":               get(by, false, true, "https://api.test/ok/%d"),
		"kept-alive, led there":    get(nil, false, true, "https://api.test/ok/%d"),
		"HTTP/2":                   get(by, true, true, "https://api.test/ok/%d"),
		"HTTP/2, led there":        get(nil, true, true, "https://api.test/ok/%d"),
		"new connection":           get(by, false, false, "https://api.test/ok/%d"),
		"new connection, HTTP/2":   get(by, true, false, "https://api.test/ok/%d"),
		"new connection, led":      get(nil, false, false, "https://api.test/ok/%d"),
		"without TLS":              get(by, false, false, "http://api.test/ok/%d"),
		"without TLS, led there":   get(nil, false, false, "http://api.test/ok/%d"),
		"not inspected":            get(by, true, false, "https://plain.test/ok/%d"),
		"not inspected, led there": get(nil, false, false, "https://plain.test/ok/%d"),
		"IPv6":                     get(nil, false, false, "https://six.test/ok/%d"),
		"refused method":           refused(by, http.MethodPost, "https://api.test/ok/%d", true),
		"refused path, led there":  refused(nil, http.MethodGet, "https://api.test/not/%d", false),
		"refused host":             refused(by, http.MethodGet, "http://denied.test/%d", false),
		"echo":                     echo,
		"program":                  program,
	}
}

// soak repeats all actions of some kinds concurrently until the time is up. It prints their
// number and the unexpected results.
func soak(text string, kinds map[string]traffic) {
	length, err := time.ParseDuration(text)
	if err != nil {
		report("", err)
	}
	var (
		wait      sync.WaitGroup
		mu        sync.Mutex
		count     = map[string]int{}
		surprises = map[string][]string{}
	)
	end := time.Now().Add(length)
	for name, do := range kinds {
		wait.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				ctx, cancel := context.WithTimeout(context.Background(), soakTimeout)
				err := do(ctx, n)
				cancel()
				mu.Lock()
				count[name]++
				if err != nil && len(surprises[name]) < maxSurprises {
					surprises[name] = append(surprises[name], fmt.Sprintf("%s the %dth time: %v", time.Now().UTC().Format(time.StampMilli), n, err))
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	wait.Wait()
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Printf("%d\t%s\n", count[name], name)
		for _, s := range surprises[name] {
			fmt.Printf("surprise\t%s: %s\n", name, s)
		}
	}
}

// exchange makes a request and returns the status and body of the response.
type exchange func(ctx context.Context, method, target, body string, fields ...string) (int, string, error)

// exchanger returns an exchange with connections of its own. fields are alternating names
// and values.
func exchanger(by func(*http.Request) (*url.URL, error), h2, keep bool) exchange {
	tr := &http.Transport{Proxy: by, ForceAttemptHTTP2: h2, DisableKeepAlives: !keep, TLSClientConfig: &tls.Config{}}
	return func(ctx context.Context, method, target, body string, fields ...string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		for f := range slices.Chunk(fields, 2) {
			req.Header.Set(f[0], f[1])
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if !keep {
			tr.CloseIdleConnections() // HTTP/2 keeps connections open regardless
		}
		return resp.StatusCode, strings.TrimSpace(string(b)), err
	}
}

func get(by func(*http.Request) (*url.URL, error), h2, keep bool, target string) traffic {
	send := exchanger(by, h2, keep)
	return func(ctx context.Context, n int) error {
		to := fmt.Sprintf(target, n)
		status, body, err := send(ctx, http.MethodGet, to, "")
		if want := fmt.Sprintf("upstream saw GET /ok/%d", n); err == nil && (status != http.StatusOK || body != want) {
			err = fmt.Errorf("GET %s: %d %q", to, status, body)
		}
		return err
	}
}

func refused(by func(*http.Request) (*url.URL, error), method, target string, keep bool) traffic {
	send := exchanger(by, false, keep)
	return func(ctx context.Context, n int) error {
		to := fmt.Sprintf(target, n)
		status, body, err := send(ctx, method, to, "")
		if err == nil && (status != http.StatusForbidden || !strings.Contains(body, "policy_denied")) {
			err = fmt.Errorf("%s %s: %d %q", method, to, status, body)
		}
		return err
	}
}

// echo sends some bytes to an echo and closes its half of the connection.
func echo(ctx context.Context, n int) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", "raw.test:7000")
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	sent := bytes.Repeat([]byte("echo"), 1+n*n%65536)
	got, err := make(chan []byte, 1), c.SetDeadline(deadline)
	if err != nil {
		return err
	}
	go func() {
		b, _ := io.ReadAll(c)
		got <- b
	}()
	if _, err := c.Write(sent); err != nil {
		return fmt.Errorf("write %d bytes: %w", len(sent), err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if b := <-got; !bytes.Equal(b, sent) {
		return fmt.Errorf("%d bytes came back of %d", len(b), len(sent))
	}
	return nil
}

// program makes one request in a process of its own, which the proxy can identify only
// while it runs.
func program(ctx context.Context, n int) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, exe, "http", http.MethodGet, fmt.Sprintf("https://api.test/ok/%d", n)).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "upstream saw") {
		err = errors.New("unlike an answer")
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
}
