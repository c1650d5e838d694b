// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of a job.
const (
	kindHTTP1 = "h1"
	kindHTTP2 = "h2"
	// kindBulk reads from the raw port until the job ends.
	kindBulk = "bulk"
	// kindHold makes one request on each connection and keeps the connections until the
	// next job.
	kindHold = "hold"
)

// job is an instruction for an agent, one per line of its standard input.
type job struct {
	Kind string
	// Proxy is the proxy to which the agent sends CONNECT; empty connects directly.
	Proxy string
	// Name and Port are the target's name and port.
	Name, Port string
	// Direct is the target's address for use without a proxy.
	Direct  string
	Conns   int
	Seconds float64
}

// result is an agent's answer to a job.
type result struct {
	Err string `json:",omitempty"`
	// Issuer is the issuer of the certificate that the agent received.
	Issuer string
	// Count is the number of requests or bytes in Seconds. P50 and P99 are in microseconds.
	Count    int64
	Seconds  float64
	P50, P99 float64
	// First50 and First99 are the times until a stream's first part.
	First50, First99 float64
}

// agent executes jobs until its input ends.
func agent(in io.Reader, out io.Writer) error {
	var held []net.Conn
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j job
		if err := dec.Decode(&j); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		for _, c := range held {
			_ = c.Close()
		}
		held = held[:0]
		r, err := j.run(&held)
		if err != nil {
			r.Err = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// dial connects to the target, without TLS for the kind raw.
func (j *job) dial(alpn string) (net.Conn, string, error) {
	address := net.JoinHostPort(j.Direct, j.Port)
	if j.Proxy != "" {
		address = j.Proxy
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, "", err
	}
	if j.Proxy != "" {
		fmt.Fprintf(c, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", net.JoinHostPort(j.Name, j.Port))
		// The head is read byte by byte, because the bytes after it belong to the
		// connection.
		var head []byte
		for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b[0]) {
			if _, err := c.Read(b); err != nil {
				return nil, "", fmt.Errorf("CONNECT: %w after %q", err, head)
			}
		}
		if !bytes.Contains(head[:min(len(head), 13)], []byte(" 200")) {
			rest, _ := io.ReadAll(io.LimitReader(c, 1000))
			return nil, "", fmt.Errorf("CONNECT: %q %q", head, rest)
		}
	}
	if alpn == "" {
		return c, "", nil
	}
	// The certificate is not verified: the caller looks at the issuer.
	t := tls.Client(c, &tls.Config{ServerName: j.Name, NextProtos: []string{alpn}, InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		return nil, "", fmt.Errorf("TLS: %w", err)
	}
	st := t.ConnectionState()
	if alpn == "h2" && st.NegotiatedProtocol != "h2" {
		return nil, "", errors.New("no HTTP/2")
	}
	return t, st.PeerCertificates[0].Issuer.CommonName, nil
}

// run executes the job on Conns connections at once.
func (j *job) run(held *[]net.Conn) (r result, err error) {
	if j.Kind == kindStream {
		return j.stream()
	}
	alpn := map[string]string{kindHTTP1: "http/1.1", kindHold: "http/1.1", kindHTTP2: "h2"}[j.Kind]
	conns := make([]net.Conn, j.Conns)
	for i := range conns {
		if conns[i], r.Issuer, err = j.dial(alpn); err != nil {
			return r, err
		}
		if j.Kind == kindHold {
			*held = append(*held, conns[i])
			if err := j.requester(conns[i])(); err != nil {
				return r, err
			}
		} else {
			defer conns[i].Close()
		}
	}
	if j.Kind == kindHold {
		return r, nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []float64
	var total atomic.Int64
	begin := time.Now()
	end := begin.Add(time.Duration(j.Seconds * float64(time.Second)))
	for _, c := range conns {
		wg.Go(func() {
			if j.Kind == kindBulk {
				_ = c.SetDeadline(end)
				b := make([]byte, 256<<10)
				for {
					n, e := c.Read(b)
					total.Add(int64(n))
					if e != nil {
						return
					}
				}
			}
			ask := j.requester(c)
			times := make([]float64, 0, 1<<16)
			for {
				t := time.Now()
				if t.After(end) {
					break
				}
				if e := ask(); e != nil {
					mu.Lock()
					err = errors.Join(err, e)
					mu.Unlock()
					return
				}
				times = append(times, float64(time.Since(t).Nanoseconds())/1000)
			}
			mu.Lock()
			all = append(all, times...)
			mu.Unlock()
			total.Add(int64(len(times)))
		})
	}
	wg.Wait()
	r.Seconds, r.Count = time.Since(begin).Seconds(), total.Load()
	r.P50, r.P99 = quantile(all, 0.5), quantile(all, 0.99)
	return r, err
}

// requester returns a function that sends one request on c and reads the response.
func (j *job) requester(c net.Conn) func() error {
	if j.Kind == kindHTTP2 {
		return askHTTP2(c, j.Name)
	}
	request := []byte("GET /repos/a/b?page=1 HTTP/1.1\r\nHost: " + j.Name + "\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n")
	br := bufio.NewReaderSize(c, 1<<10)
	return func() error {
		if _, err := c.Write(request); err != nil {
			return err
		}
		length, first := -1, true
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return err
			}
			if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
				rest, _ := br.Peek(br.Buffered())
				return fmt.Errorf("answered %q %q", slices.Clone(line), rest)
			}
			first = false
			if len(line) == 2 {
				break
			}
			if k, v, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(k, []byte("content-length")) {
				if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
					return err
				}
			}
		}
		if length != len(body) {
			return fmt.Errorf("an answer of %d bytes", length)
		}
		_, err := br.Discard(length)
		return err
	}
}
