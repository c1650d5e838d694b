// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP/2 that is as cheap as HTTP/1 is here: x/net's client and server cost more than the
// proxies between them.

// wide is a window that is never used up in a run.
const wide = 1 << 30

// block returns a head that needs no table, so that it is always the same bytes.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// halves are the two directions of a connection's frames.
type halves struct {
	*http2.Framer
	w *bufio.Writer
}

func framed(c net.Conn) halves {
	w := bufio.NewWriterSize(c, 1<<10)
	f := http2.NewFramer(w, bufio.NewReaderSize(c, 1<<10))
	f.SetReuseFrames()
	return halves{f, w}
}

// next returns the next frame of a stream. It answers the other frames itself.
func (h halves) next() (http2.Frame, error) {
	for {
		f, err := h.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			err = h.WriteSettingsAck()
		case *http2.PingFrame:
			if f.IsAck() {
				continue
			}
			err = h.WritePing(true, f.Data)
		case *http2.WindowUpdateFrame:
			continue
		case *http2.GoAwayFrame:
			return nil, fmt.Errorf("GOAWAY: %s %q", f.ErrCode, f.DebugData())
		default:
			return f, nil
		}
		if err = errors.Join(err, h.w.Flush()); err != nil {
			return nil, err
		}
	}
}

// askHTTP2 returns a function that sends one request on c and reads the response.
func askHTTP2(c net.Conn, name string) func() error {
	h := framed(c)
	_, _ = h.w.WriteString(http2.ClientPreface)
	err := errors.Join(
		h.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: wide}),
		h.WriteWindowUpdate(0, wide))
	head := block(":method", "GET", ":scheme", "https", ":authority", name, ":path", "/repos/a/b?page=1",
		"user-agent", "bench/1", "accept", "*/*", "authorization", "Bearer 0123456789abcdef")
	status := ""
	decoder := hpack.NewDecoder(4<<10, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	stream := uint32(1)
	return func() error {
		if err != nil {
			return err
		}
		if err := errors.Join(h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head, EndStream: true, EndHeaders: true}), h.w.Flush()); err != nil {
			return err
		}
		stream += 2
		for length, ended := 0, false; !ended; {
			f, err := h.next()
			if err != nil {
				return err
			}
			switch f := f.(type) {
			case *http2.HeadersFrame:
				if _, err := decoder.Write(f.HeaderBlockFragment()); err != nil {
					return err
				}
				ended = f.StreamEnded()
			case *http2.DataFrame:
				length += len(f.Data())
				ended = f.StreamEnded()
			default:
				return fmt.Errorf("a frame of type %s", f.Header().Type)
			}
			if ended && (length != len(body) || status != "200") {
				return fmt.Errorf("status %s, %d bytes", status, length)
			}
		}
		return nil
	}
}

// serveHTTP2 sends the same response to every request.
func serveHTTP2(c net.Conn) error {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	h := framed(c)
	if err := errors.Join(h.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000}), h.w.Flush()); err != nil {
		return err
	}
	head := block(":status", "200", "content-type", "text/plain", "content-length", "128", "date", "Mon, 01 Jan 2024 00:00:00 GMT", "server", "bench")
	for {
		f, err := h.next()
		if err != nil {
			return err
		}
		// The requests of this benchmark have no body.
		if f, ok := f.(*http2.HeadersFrame); ok {
			if err := errors.Join(
				h.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: head, EndHeaders: true}),
				h.WriteData(f.StreamID, true, body), h.w.Flush()); err != nil {
				return err
			}
		}
	}
}
