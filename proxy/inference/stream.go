// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"mime"
	"net/http"
)

// stream follows the framing of a streamed answer as it passes.
type stream interface {
	feed(p []byte)
	// whole reports whether the answer may end here.
	whole() bool
	// cut is what to send in the place of an end that does not come, so that the
	// caller's SDK raises an error; nil where the dialect has no such thing.
	cut(message string) []byte
}

// follow returns what follows an answer's stream, nil if it is not streamed.
func follow(c *call, resp *http.Response, o *observer) stream {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	switch kind {
	case "text/event-stream":
		return &sse{o: o, w: o.walker(), dialect: c.dialect, atLine: true, atEvent: true}
	case "application/x-ndjson":
		return &lines{o: o, w: o.walker(), atLine: true}
	case "application/vnd.amazon.eventstream":
		return &frames{o: o, w: o.walker()}
	case "application/json":
		if c.stream && c.dialect == Gemini {
			return &array{o: o, w: o.walker()}
		}
	}
	return nil
}

// sse follows server-sent events.
type sse struct {
	o       *observer
	w       *walker
	dialect Dialect
	atLine  bool // a line begins
	atEvent bool // an event begins
	cr      bool // the last byte was a carriage return
	data    bool // the line's field is data
	prefix  []byte
	word    []byte // the begin of the data, for a sentinel
}

const (
	dataField = "data:"
	sentinel  = "[DONE]"
)

func (s *sse) feed(p []byte) {
	for len(p) > 0 {
		if s.cr && p[0] == '\n' {
			p, s.cr = p[1:], false
			continue
		}
		s.cr = false
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			s.text(p)
			return
		}
		if end > 0 {
			s.text(p[:end])
		}
		s.cr = p[end] == '\r'
		s.endLine()
		p = p[end+1:]
	}
}

func (s *sse) text(p []byte) {
	s.atLine, s.atEvent = false, false
	for len(p) > 0 && !s.data && len(s.prefix) < len(dataField) {
		s.prefix, p = append(s.prefix, p[0]), p[1:]
		s.data = string(s.prefix) == dataField
	}
	if s.data {
		if n := min(len(p), len(sentinel)+2-len(s.word)); n > 0 {
			s.word = append(s.word, p[:n]...)
		}
		s.w.feed(p)
	}
}

func (s *sse) endLine() {
	if s.atLine { // an empty line ends the event
		s.atEvent = true
		s.o.nextDocument(s.w)
	}
	if s.data {
		s.o.parts++
		s.o.ended = s.o.ended || s.atSentinel()
		s.w.feed([]byte{'\n'})
	}
	s.atLine, s.data, s.prefix, s.word = true, false, s.prefix[:0], s.word[:0]
}

func (s *sse) atSentinel() bool {
	return s.o.ending == endSentinel && string(bytes.TrimSpace(s.word)) == sentinel
}

func (s *sse) whole() bool { return s.o.ended && s.atLine || s.atSentinel() }

func (s *sse) cut(message string) []byte {
	var out []byte
	if !s.atEvent {
		out = []byte("\n\n")
	}
	return append(out, errorEvent(s.dialect, s.o.ending, message)...)
}

// lines follows documents that end with their line.
type lines struct {
	o      *observer
	w      *walker
	atLine bool
}

func (l *lines) feed(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			l.w.feed(p)
			l.atLine = false
			return
		}
		l.w.feed(p[:end+1])
		l.o.parts++
		l.o.nextDocument(l.w)
		l.atLine = true
		p = p[end+1:]
	}
}

func (l *lines) whole() bool { return l.o.ended && (l.atLine || l.w.closed) }

func (l *lines) cut(message string) []byte {
	out := append(ollamaError(message), '\n')
	if !l.atLine {
		return append([]byte{'\n'}, out...)
	}
	return out
}

// array follows one array of documents. It has no way to tell an error but to break.
type array struct {
	o *observer
	w *walker
}

func (a *array) feed(p []byte) {
	a.w.feed(p)
	a.o.parts++
}
func (a *array) whole() bool       { return a.o.ended && a.w.closed }
func (a *array) cut(string) []byte { return nil }
