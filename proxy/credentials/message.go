// SPDX-License-Identifier: Apache-2.0

package credentials

import "io"

var (
	inMessage     = &place{"message", 0, appendRaw, checkUTF8, nil}
	inJSONMessage = &place{"message", unicode, jsonEscape, checkUTF8, nil}
)

// Text is one text message of the WebSocket that the request began, with its
// placeholders resolved where the endpoint wants that and refused where not.
func (r *Rewritten) Text(o Options, msg []byte) ([]byte, error) {
	switch {
	case !o.MessageRewrite && o.AllowUninspected, !scan(msg):
		return msg, nil
	case !o.MessageRewrite:
		return nil, r.r.refuse("message", "websocket_credential_rewrite is off here")
	case looksJSON(msg):
		return r.r.resolveAll(msg, inJSONMessage)
	}
	return r.r.resolveAll(msg, inMessage)
}

// Search is a binary message as it comes. It ends with a Refusal before the last
// byte of a placeholder.
func (r *Rewritten) Search(o Options, src io.Reader) io.Reader {
	if o.AllowUninspected {
		return src
	}
	return &scanner{src: src, refuse: func() error { return r.r.refuse("message", "binary messages are not rewritten") }}
}

// Scrub masks echoed values in b, a part of a message. What lies before safe is
// done; with final it is all.
func (r *Rewritten) Scrub(b []byte, final bool) (safe int) {
	if r.scrub == nil || r.unsearched {
		return len(b)
	}
	return r.scrub.scrub(b, final)
}

// Message searches one message that the server sends, and its expansion if the message
// begins like compressed content. Close has to be called.
type Message struct {
	r    *Rewritten
	open *opener // nil if the message is not searched
	base int64   // the place in the message of the bytes that wait
	done int     // how many of them are masked
}

// Message returns the search of the next message.
func (r *Rewritten) Message() *Message {
	m := &Message{r: r}
	if r.scrub != nil && !r.unsearched {
		m.open = &opener{s: r.scrub, strict: r.strict, layers: MaxLayers, hold: r.r.hold}
	}
	return m
}

// Scrub masks echoed values in b: the bytes that wait, and fresh new ones. The bytes
// before safe may pass; with final these are all. The error is an EchoError, after which
// no more of the message may pass.
func (m *Message) Scrub(b []byte, fresh int, final bool) (safe int, err error) {
	if m.open == nil {
		return len(b), nil
	}
	limit, err := m.open.push(b[len(b)-fresh:], final)
	if err != nil {
		return 0, err
	}
	m.done += m.r.Scrub(b[m.done:], final)
	safe = min(m.done, int(limit-m.base))
	m.base, m.done = m.base+int64(safe), m.done-safe
	return safe, nil
}

// Close ends the search.
func (m *Message) Close() {
	if m.open != nil {
		m.open.close()
	}
}
