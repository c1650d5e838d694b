// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/binary"
	"hash/crc32"
)

// frames follows Amazon's event stream: frames of a prelude (length of all, length of
// the headers, checksum of both), headers, a payload and a checksum.
type frames struct {
	o *observer
	w *walker

	head    []byte // prelude, then headers, as far as they are kept
	at      int    // bytes of the frame that have passed
	total   int    // of the frame; 0 until the prelude is read
	headers int
	broken  bool
}

const (
	preludeSize = 12
	trailerSize = 4
	// maxFrame and maxFrameHeaders are the format's own limits.
	maxFrame        = 24 << 20
	maxFrameHeaders = 128 << 10
	// keptHeaders is what is read of a frame's headers, in bytes.
	keptHeaders = 1024
)

func (f *frames) feed(p []byte) {
	for len(p) > 0 && !f.broken {
		switch {
		case f.at < preludeSize:
			n := min(len(p), preludeSize-f.at)
			f.head = append(f.head, p[:n]...)
			f.at, p = f.at+n, p[n:]
			if f.at == preludeSize {
				f.prelude()
			}
		case f.at < preludeSize+f.headers:
			n := min(len(p), preludeSize+f.headers-f.at)
			if room := preludeSize + keptHeaders - len(f.head); room > 0 {
				f.head = append(f.head, p[:min(n, room)]...)
			}
			f.at, p = f.at+n, p[n:]
		case f.at < f.total-trailerSize:
			n := min(len(p), f.total-trailerSize-f.at)
			f.w.feed(p[:n])
			f.at, p = f.at+n, p[n:]
		default:
			n := min(len(p), f.total-f.at)
			f.at, p = f.at+n, p[n:]
			if f.at == f.total {
				f.end()
			}
		}
	}
}

func (f *frames) prelude() {
	total, headers := binary.BigEndian.Uint32(f.head), binary.BigEndian.Uint32(f.head[4:])
	if crc32.ChecksumIEEE(f.head[:8]) != binary.BigEndian.Uint32(f.head[8:]) ||
		total > maxFrame || headers > maxFrameHeaders || total < preludeSize+headers+trailerSize {
		f.broken = true
		return
	}
	f.total, f.headers = int(total), int(headers)
}

func (f *frames) end() {
	kind, event := frameKind(f.head[preludeSize:])
	if kind == "exception" || kind == "error" || (f.o.ending == endConverse && event == "metadata") {
		f.o.ended = true
	}
	f.o.parts++
	f.o.nextDocument(f.w)
	f.head, f.at, f.total, f.headers = f.head[:0], 0, 0, 0
}

func (f *frames) whole() bool { return f.o.ended && f.at == 0 && !f.broken }

// cut cannot end a frame that is cut off: the caller sees the break alone.
func (f *frames) cut(message string) []byte {
	if f.at != 0 || f.broken {
		return nil
	}
	return frame(map[string]string{
		":message-type": "exception", ":exception-type": "modelStreamErrorException", ":content-type": "application/json",
	}, bedrockError(message))
}

// stringHeader is the type of a frame's header that is a string.
const stringHeader = 7

// frameKind reads a frame's :message-type and :event-type.
func frameKind(h []byte) (kind, event string) {
	for len(h) > 0 {
		n := int(h[0])
		if len(h) < 1+n+3 || h[1+n] != stringHeader {
			return kind, event
		}
		name, rest := string(h[1:1+n]), h[1+n+1:]
		size := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+size {
			return kind, event
		}
		switch name {
		case ":message-type":
			kind = string(rest[2 : 2+size])
		case ":event-type":
			event = string(rest[2 : 2+size])
		}
		h = rest[2+size:]
	}
	return kind, event
}

// frame makes one frame.
func frame(headers map[string]string, payload []byte) []byte {
	var h []byte
	for k, v := range headers {
		h = append(append(h, byte(len(k))), k...)
		h = append(h, stringHeader)
		h = append(binary.BigEndian.AppendUint16(h, uint16(len(v))), v...)
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(preludeSize+len(h)+len(payload)+trailerSize))
	out = binary.BigEndian.AppendUint32(out, uint32(len(h)))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out))
	out = append(append(out, h...), payload...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out))
}
