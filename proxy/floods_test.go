// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"openshell.dev/runtime/proxy/memory"
)

// floodTime is how long a client of these tests sends frames.
const floodTime = 300 * time.Millisecond

// TestBypass_B86_FrameFloods: clients that send frames without content and read nothing
// take no memory beyond the budget, and another connection is answered meanwhile.
func TestBypass_B86_FrameFloods(t *testing.T) {
	for name, frame := range map[string]func(fr *http2.Framer) error{
		"SETTINGS": func(fr *http2.Framer) error {
			return fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		},
		"WINDOW_UPDATE":           func(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, 1) },
		"WINDOW_UPDATE of stream": func(fr *http2.Framer) error { return fr.WriteWindowUpdate(1, 1) },
		"PRIORITY":                func(fr *http2.Framer) error { return fr.WritePriority(1, http2.PriorityParam{Weight: 1}) },
		"empty DATA":              func(fr *http2.Framer) error { return fr.WriteData(1, false, nil) },
		"DATA of no stream":       func(fr *http2.Framer) error { return fr.WriteData(1<<31-1, false, make([]byte, 100)) },
		"PING":                    func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{}) },
		"unknown frames":          func(fr *http2.Framer) error { return fr.WriteRawFrame(0xfa, 0, 1, make([]byte, 100)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), memory.Min)
			w.site("api.example.com", 443, nil, "h2")
			grown := peak()
			var sending sync.WaitGroup
			for range 8 {
				f := newFramer(t, w)
				sending.Go(func() {
					_ = f.conn.SetWriteDeadline(time.Now().Add(floodTime))
					_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: blockOf("/a"), EndHeaders: true})
					for frame(f.fr) == nil {
					}
				})
			}
			w.serves()
			sending.Wait()
			if got := grown(); got > maxPeak {
				t.Errorf("memory grew by %d MiB", got>>20)
			} else {
				t.Logf("memory grew by %d MiB", got>>20)
			}
		})
	}
}

// TestBypass_B86_ServerFloods: a server that sends frames or interim answers without end
// takes no memory beyond the budget, and its request ends.
func TestBypass_B86_ServerFloods(t *testing.T) {
	var early, ok bytes.Buffer
	_ = hpack.NewEncoder(&early).WriteField(hpack.HeaderField{Name: ":status", Value: "103", Sensitive: true})
	for range 100 {
		_ = hpack.NewEncoder(&early).WriteField(hpack.HeaderField{Name: "link", Value: "</a>; rel=preload", Sensitive: true})
	}
	_ = hpack.NewEncoder(&ok).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	end := func(fr *http2.Framer, stream uint32) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: ok.Bytes(), EndHeaders: true, EndStream: true})
	}
	flood := func(frame func(fr *http2.Framer) error) func(fr *http2.Framer, stream uint32) {
		return func(fr *http2.Framer, stream uint32) {
			for until := time.Now().Add(floodTime); time.Now().Before(until); {
				if frame(fr) != nil {
					return
				}
			}
			end(fr, stream)
		}
	}
	for _, tc := range []struct {
		name   string
		want   int
		answer func(fr *http2.Framer, stream uint32)
	}{
		{"interim answers", 502, func(fr *http2.Framer, stream uint32) {
			for range 100 * maxInterim {
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: early.Bytes(), EndHeaders: true})
			}
			end(fr, stream)
		}},
		{"SETTINGS", 200, flood(func(fr *http2.Framer) error { return fr.WriteSettings() })},
		{"PING", 200, flood(func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{}) })},
		{"WINDOW_UPDATE", 200, flood(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, 1) })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), memory.Min)
			w.frames(tc.answer)
			grown := peak()
			if got := newFramer(t, w).get(); got != tc.want {
				t.Errorf("answered %d, want %d", got, tc.want)
			}
			if got := grown(); got > maxPeak {
				t.Errorf("memory grew by %d MiB", got>>20)
			} else {
				t.Logf("memory grew by %d MiB", got>>20)
			}
		})
	}
}

// TestBypass_B86_UpstreamWindow: a server whose window is as large as the protocol allows,
// and which reads nothing, does not make the proxy keep what clients send.
func TestBypass_B86_UpstreamWindow(t *testing.T) {
	w := newWorldOf(t, endpoints("host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"), memory.Min)
	leaf, err := w.upstream.Leaf("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.raw("api.example.com", 443, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: []string{"h2"}})
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(s, s)
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1})
		_ = fr.WriteSettingsAck()
		_ = fr.WriteWindowUpdate(0, 1<<31-1-(1<<16-1))
		<-t.Context().Done()
	})
	grown := peak()
	var sending sync.WaitGroup
	var sent atomic.Int64
	for range 8 {
		c := w.client(func(string) (net.Conn, error) { return w.tunnel("api.example.com:443"), nil }, "h2")
		sending.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*floodTime)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", "https://api.example.com/a", io.TeeReader(endless{}, counter{&sent}))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := c.Do(req); err == nil {
				resp.Body.Close()
				t.Errorf("answered %d", resp.StatusCode)
			}
		})
	}
	sending.Wait()
	if got := grown(); got > maxPeak {
		t.Errorf("memory grew by %d MiB of %d sent", got>>20, sent.Load()>>20)
	} else {
		t.Logf("memory grew by %d MiB of %d sent", got>>20, sent.Load()>>20)
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// counter adds up the bytes that are written.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
