// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// leaving is an HTTP/2 server that processes a few requests of each connection and leaves
// the others unprocessed.
type leaving struct {
	w *world
	// perConnection is how many requests a connection processes before it sends GOAWAY, and
	// refusals how many requests are refused first with REFUSED_STREAM.
	perConnection, refusals int
	// late says that it refuses only requests with a body, and reads the body first.
	late bool

	mu sync.Mutex
	// bodies are those of requests that were processed, refused the number of the others.
	bodies  []string
	refused int
}

// framed begins HTTP/2 over TLS as api.example.com.
func (w *world) framed(c net.Conn) (*tls.Conn, *http2.Framer) {
	leaf, err := w.upstream.Leaf("api.example.com")
	if err != nil {
		w.t.Error(err)
		return nil, nil
	}
	t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: []string{"h2"}})
	_, _ = io.ReadFull(t, make([]byte, len(http2.ClientPreface))) // an error repeats itself
	fr := http2.NewFramer(t, t)
	_ = fr.WriteSettings()
	return t, fr
}

func (l *leaving) serve(c net.Conn) {
	_, fr := l.w.framed(c)
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	bodies, processed, last := map[uint32]*strings.Builder{}, 0, uint32(0)
	refusing := map[uint32]bool{}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		var ended bool
		stream := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			l.mu.Lock()
			refuse := l.refused < l.refusals && !(l.late && f.StreamEnded())
			if refuse || processed == l.perConnection {
				l.refused++
			}
			l.mu.Unlock()
			if refuse && l.late {
				refusing[stream] = true
				continue
			}
			if refuse {
				_ = fr.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				continue
			}
			if processed == l.perConnection {
				_ = fr.WriteGoAway(last, http2.ErrCodeNo, nil)
				continue
			}
			processed, last = processed+1, stream
			bodies[stream], ended = &strings.Builder{}, f.StreamEnded()
		case *http2.DataFrame:
			// The data of refused requests counts for the connection's window, too: the proxy
			// may have sent it before it read the refusal (RFC 9113, section 5.1).
			_ = fr.WriteWindowUpdate(0, max(1, uint32(len(f.Data()))))
			if refusing[stream] && f.StreamEnded() {
				_ = fr.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			}
			if b := bodies[stream]; b != nil {
				b.Write(f.Data())
				ended = f.StreamEnded()
			}
		}
		if ended {
			l.mu.Lock()
			l.bodies = append(l.bodies, bodies[stream].String())
			l.mu.Unlock()
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		}
	}
}

// TestUnprocessedRequests (issue 11, point 8): requests that the server's GOAWAY or
// REFUSED_STREAM leaves unprocessed are sent again, and processed once.
func TestUnprocessedRequests(t *testing.T) {
	for how, l := range map[string]*leaving{
		"GOAWAY": {perConnection: 3}, "REFUSED_STREAM": {perConnection: 100, refusals: 4},
		"REFUSED_STREAM after the body": {perConnection: 100, refusals: 4, late: true},
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			l.w = w
			w.raw("api.example.com", 443, l.serve)
			c := w.client(w.byConnect, "h2")
			const requests = 12
			var tasks sync.WaitGroup
			errs := make(chan error, requests)
			for i := range requests {
				tasks.Go(func() {
					var body io.Reader
					if i%3 > 0 { // of a known length, and of an unknown one
						body = strings.NewReader(fmt.Sprint(i, strings.Repeat("x", 20000)))
					}
					if i%3 == 2 {
						body = struct{ io.Reader }{body}
					}
					resp, err := c.Post("https://api.example.com/a", "text/plain", body)
					if err == nil && resp.StatusCode != 200 {
						err = errors.New(resp.Status)
					}
					errs <- err
				})
			}
			tasks.Wait()
			close(errs)
			for err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			seen := map[string]int{}
			for _, b := range l.bodies {
				seen[b]++
				if n, _ := fmt.Sscan(b, new(int)); b != "" && (n != 1 || len(b) < 20000 || seen[b] > 1) {
					t.Errorf("%d bytes arrived %d times", len(b), seen[b])
				}
			}
			if len(l.bodies) != requests || l.refused == 0 {
				t.Errorf("%d requests were processed, %d left", len(l.bodies), l.refused)
			}
		})
	}
}

// TestUnprocessedForEver (issue 11, point 8): a request that is never processed is answered
// 503, and one that may have been is not sent again.
func TestUnprocessedForEver(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	l := &leaving{w: w, perConnection: 100, refusals: 100}
	w.raw("api.example.com", 443, l.serve)
	resp, body := get(t, w.client(w.byConnect, "h2"), "POST", "https://api.example.com/a", strings.NewReader("body"))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, errUnprocessed.Error()) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if l.mu.Lock(); l.refused != maxRepeats+1 || len(l.bodies) > 0 {
		t.Errorf("it was refused %d times and processed %d times", l.refused, len(l.bodies))
	}
	l.mu.Unlock()
	if r := w.recorded(0); r.Verdict != "allow" || r.Ended != "upstream" || r.Status != 503 || !strings.Contains(r.Reason, "REFUSED_STREAM") {
		t.Errorf("recorded %+v", r)
	}
}

// TestLongUploadsAreNotKept (issue 11, point 8): of a long body only what was kept can be
// sent again; the client is told.
func TestLongUploadsAreNotKept(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	l := &leaving{w: w}
	w.raw("api.example.com", 443, l.serve)
	resp, body := get(t, w.client(w.byConnect, "h2"), "POST", "https://api.example.com/a", strings.NewReader(strings.Repeat("x", keptUpload+1)))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"error":"upstream_unprocessed"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if l.mu.Lock(); l.refused != 1 {
		t.Errorf("it was sent %d times", l.refused)
	}
	l.mu.Unlock()
}
