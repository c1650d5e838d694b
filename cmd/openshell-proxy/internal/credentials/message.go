// SPDX-License-Identifier: Apache-2.0

package credentials

import "io"

var (
	inMessage     = &place{"message", 0, appendRaw, checkUTF8}
	inJSONMessage = &place{"message", unicode, jsonEscape, checkUTF8}
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
