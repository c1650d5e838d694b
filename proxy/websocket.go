// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/sha1" // the protocol's choice; nothing is trusted for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
)

// handshake says whether a request begins a WebSocket (RFC 6455, 4.2.1).
func handshake(req *http.Request) bool {
	if upgrade(req) == "" || req.Header.Get("Sec-Websocket-Version") != "13" || len(req.Header["Sec-Websocket-Key"]) != 1 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(req.Header.Get("Sec-Websocket-Key"))
	return err == nil && len(key) == 16
}

// looksAtMessages says whether the messages of the WebSocket that a request becomes
// are judged or searched. Otherwise nobody looks at it any more.
func (j *request) looksAtMessages() bool {
	says := &j.dec.Credentials
	return j.dec.Protocol == policy.ProtocolWebSocket || j.injected != nil && (says.MessageRewrite || !says.AllowUninspected)
}

// upgradeTo is the protocol that a judged request may go on with.
func upgradeTo(req *http.Request, j *request) string {
	protocol := upgrade(req)
	switch {
	case protocol == "" || !j.dec.CarriesWebSocket() || mustSee(j.chain) != "": // no middleware sees messages
		return ""
	case !j.looksAtMessages():
		return protocol
	case !handshake(req):
		return ""
	}
	delete(req.Header, "Sec-Websocket-Extensions") // compression hides what is searched for
	return protocol
}

// notUpgraded refuses a request for a WebSocket that would be forwarded as a plain GET, so
// that the client learns why it gets no WebSocket. It returns nil if the request may be
// forwarded.
func (j *request) notUpgraded(req *http.Request) *answer {
	if upgrade(req) == "" {
		return nil
	}
	m := mustSee(j.chain)
	var reason string
	switch {
	case !j.dec.CarriesWebSocket():
		reason = policy.NoWebSocket
	case m != "":
		reason = unseen(m)
	case j.dec.Protocol == policy.ProtocolWebSocket || j.dec.Credentials.MessageRewrite:
		if handshake(req) {
			return nil
		}
		reason = "the WebSocket handshake is not version 13 with a key of 16 bytes, and the messages are looked at"
	default:
		return nil
	}
	j.dec = denied(j.dec, reason)
	a := refusedConnection("WebSocket", j.to, reason)
	return &a
}

// accepted is what is wrong with the answer to a WebSocket's handshake.
func accepted(req *http.Request, resp *http.Response) error {
	if len(resp.Header["Sec-Websocket-Extensions"]) > 0 {
		return errors.New("the other side chose an extension that nobody offered")
	}
	if got := resp.Header.Get("Sec-Websocket-Accept"); got != acceptOf(req.Header.Get("Sec-Websocket-Key")) {
		return errors.New("the other side's Sec-WebSocket-Accept is not for this request's key")
	}
	return nil
}

// webSocketInspector is the inspector of WebSockets: requests, and each text message. As in
// OpenShell the policy has no rules for binary messages.
type webSocketInspector struct{ restInspector }

// Message implements [Inspector].
func (webSocketInspector) Message(asked *policy.HTTP, text bool) *policy.HTTP {
	if !text {
		return nil
	}
	message := *asked
	message.Method = policy.MethodText
	return &message
}

// webSocket is a WebSocket whose messages are looked at: the client's are judged,
// searched and rewritten, the server's freed of what they echo.
type webSocket struct {
	c *connection
	j *request
	// client and up are written to a frame at a time.
	client, up frameWriter
	// ending says that a message was refused, of which the client is being told.
	ending atomic.Bool
}

// frameWriter writes frames, whole ones.
type frameWriter struct {
	mu   sync.Mutex
	conn net.Conn
	// mask says that this is the server's end.
	mask bool
	n    int64
}

func (f *frameWriter) write(op ws.OpCode, fin bool, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := ws.Header{Fin: fin, OpCode: op, Length: int64(len(payload)), Masked: f.mask}
	if f.mask {
		h.Mask = ws.NewMask()
		ws.Cipher(payload, h.Mask, 0)
	}
	w := takeWriter(f.conn)
	defer giveWriter(w)
	err := ws.WriteHeader(w, h)
	if err == nil {
		_, err = w.Write(payload)
	}
	f.n += int64(ws.HeaderSize(h) + len(payload))
	return errors.Join(err, w.Flush())
}

// socketEnd ends a WebSocket with a code that both sides are told.
type socketEnd struct {
	code ws.StatusCode
	err  error
	// torn says that the server was sent half of something.
	torn bool
}

func (e *socketEnd) Error() string { return e.err.Error() }
func (e *socketEnd) Unwrap() error { return e.err }

// errClosed says that a side has ended after saying so.
var errClosed = errors.New("closed")

// carry carries messages both ways until both sides have ended, or one has failed.
func (s *webSocket) carry(ctx context.Context, client, up *bufio.Reader) error {
	sent := make(chan error, 1)
	go func() { sent <- s.fromClient(client) }()
	err := s.fromServer(up)
	var refused *socketEnd
	switch {
	case s.ending.Load():
	case errors.As(err, &refused):
		s.end(refused)
		closeWrite(s.client.conn)
		_ = s.client.conn.SetReadDeadline(time.Now().Add(drainTime))
		<-sent
		return failure(ctx, err)
	case errors.Is(err, errClosed), errors.Is(err, io.EOF):
		closeWrite(s.client.conn)
	default:
		reset(s.client.conn) // what was cut off must not look whole
		reset(s.up.conn)
	}
	if out := <-sent; !errors.Is(out, errClosed) && !errors.Is(out, io.EOF) {
		return failure(ctx, out) // it ends the other way as well
	}
	if errors.Is(err, errClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return failure(ctx, err)
}

// fromClient carries the client's messages until it ends or one may not pass.
func (s *webSocket) fromClient(br *bufio.Reader) error {
	err := s.eachFromClient(br)
	var c *socketEnd
	var p ws.ProtocolError
	switch {
	case errors.Is(err, errClosed), errors.Is(err, io.EOF):
		closeWrite(s.up.conn)
		return err
	case s.ending.Load():
		return err // a message of the server was refused
	case errors.As(err, &c):
	case errors.As(err, &p):
		c = &socketEnd{code: ws.StatusProtocolError, err: err}
	default:
		reset(s.client.conn)
		reset(s.up.conn)
		return err
	}
	s.end(c)
	drain(s.client.conn, br)
	return err
}

// end tells both sides that the WebSocket ends.
func (s *webSocket) end(c *socketEnd) {
	s.ending.Store(true)
	_ = s.client.conn.SetWriteDeadline(time.Now().Add(drainTime))
	_ = s.client.write(ws.OpClose, true, ws.NewCloseFrameBody(c.code, ""))
	if c.torn {
		reset(s.up.conn)
	} else {
		_ = s.up.conn.SetWriteDeadline(time.Now().Add(drainTime))
		_ = s.up.write(ws.OpClose, true, ws.NewCloseFrameBody(c.code, ""))
		_ = s.up.conn.Close()
	}
}

func (s *webSocket) eachFromClient(br *bufio.Reader) error {
	m := &messageReader{br: br, state: ws.StateServerSide, control: func(op ws.OpCode, payload []byte) error {
		if op == ws.OpClose && len(payload) > 0 {
			if err := ws.CheckCloseFrameData(ws.ParseCloseFrameData(payload)); err != nil {
				return err
			}
		}
		says := s.j.dec.Credentials
		says.MessageRewrite = false
		payload, err := s.text(&says, payload)
		if err != nil {
			return err
		}
		return s.up.write(op, true, payload)
	}}
	for {
		op, err := m.next()
		if err != nil {
			return err
		}
		if op == ws.OpText {
			err = s.textFromClient(m)
		} else {
			err = s.binaryFromClient(m)
		}
		if err != nil {
			return err
		}
	}
}

// textFromClient reads a text message, has it judged and sends it on.
func (s *webSocket) textFromClient(m *messageReader) error {
	_ = s.client.conn.SetReadDeadline(time.Now().Add(TextTimeout))
	msg, err := s.assemble(m)
	defer func() { s.j.hold.Shrink(textCopies * int64(cap(msg))) }()
	if err != nil {
		return err
	}
	_ = s.client.conn.SetReadDeadline(time.Time{})
	if !utf8.Valid(msg) {
		return &socketEnd{code: ws.StatusInvalidFramePayloadData, err: errors.New("a text message is not UTF-8")}
	}
	dec, err := s.judge(true)
	if err != nil {
		return err
	}
	if msg, err = s.text(&dec.Credentials, msg); err != nil {
		return err
	}
	return s.up.write(ws.OpText, true, msg)
}

// assemble reads a whole message. It takes textCopies times the capacity of msg from the
// request's memory, which the caller gives back, also after an error.
func (s *webSocket) assemble(m *messageReader) (msg []byte, err error) {
	for {
		if len(msg) == cap(msg) {
			size := max(2*len(msg), upstreamBuffer)
			if err := s.j.hold.Grow(s.c.ctx, textCopies*int64(size-cap(msg))); err != nil {
				s.refused(denied(s.j.dec, err.Error()))
				return msg, &socketEnd{code: ws.StatusCode(1013), err: err}
			}
			msg = append(make([]byte, 0, size), msg...)
		}
		n, err := m.Read(msg[len(msg):cap(msg)])
		msg = msg[:len(msg)+n]
		switch {
		case len(msg) > MaxText:
			return msg, &socketEnd{code: ws.StatusMessageTooBig, err: fmt.Errorf("a text message is longer than %d bytes", MaxText)}
		case errors.Is(err, io.EOF):
			return msg, nil
		case timedOut(err):
			return msg, &socketEnd{code: ws.StatusPolicyViolation, err: errors.New("a text message took too long")}
		case err != nil:
			return msg, err
		}
	}
}

// text puts credentials into a message, as far as the policy says.
func (s *webSocket) text(says *policy.Credentials, msg []byte) ([]byte, error) {
	if s.j.injected == nil {
		return msg, nil
	}
	out, err := s.j.injected.Text(options(says), msg)
	if err != nil {
		s.refused(denied(s.j.dec, err.Error()))
		return nil, &socketEnd{code: ws.StatusPolicyViolation, err: err}
	}
	return out, nil
}

// binaryFromClient sends a binary message on as it comes.
func (s *webSocket) binaryFromClient(m *messageReader) error {
	dec, err := s.judge(false)
	if err != nil {
		return err
	}
	var src io.Reader = m
	if s.j.injected != nil {
		src = s.j.injected.Search(options(&dec.Credentials), m)
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for op := ws.OpBinary; ; op = ws.OpContinuation {
		n, err := src.Read(*buf)
		end := errors.Is(err, io.EOF)
		var r credentials.Refusal
		if errors.As(err, &r) {
			s.refused(denied(s.j.dec, err.Error()))
			return &socketEnd{code: ws.StatusPolicyViolation, err: err, torn: true}
		}
		if err != nil && !end {
			return err
		}
		if err := s.up.write(op, end, (*buf)[:n]); err != nil || end {
			return err
		}
	}
}

// judge asks the policy in force about a message. Binary ones are not judged by
// rules, as in OpenShell, only by whether the WebSocket may be.
func (s *webSocket) judge(text bool) (policy.Decision, error) {
	if err := s.c.identify(); err != nil {
		return policy.Decision{}, s.deny(denied(s.j.dec, err.Error()), s.j.asked)
	}
	asked := s.j.asked
	dec := s.ask(asked)
	if dec.Verdict != policy.Deny {
		if message := inspectorOf(dec.Protocol).Message(asked, text); message != nil {
			asked = message
			dec = s.ask(asked)
		}
	}
	switch {
	case dec.Verdict == policy.Deny:
		return dec, s.deny(dec, asked)
	case !dec.CarriesWebSocket():
		return dec, s.deny(denied(dec, errReloaded.Error()), asked)
	case dec.Verdict == policy.Audit && text:
		s.c.record(record{dec: dec, to: s.j.to, protocol: "websocket", http: asked})
	}
	return dec, nil
}

// ask asks the policy in force about facts.
func (s *webSocket) ask(asked *policy.HTTP) policy.Decision {
	dec, _ := s.c.judgeAll(&policy.Request{Host: s.j.to.host, Port: s.j.to.port, HTTP: asked, Forward: s.j.judged.Forward})
	return dec
}

func (s *webSocket) deny(dec policy.Decision, asked *policy.HTTP) error {
	s.c.record(record{dec: dec, to: s.j.to, protocol: "websocket", http: asked})
	return &socketEnd{code: ws.StatusPolicyViolation, err: errors.New(dec.Reason)}
}

// refused records a message whose credentials may not go.
func (s *webSocket) refused(dec policy.Decision) {
	asked := *s.j.asked
	asked.Method = policy.MethodText
	s.c.record(record{dec: dec, to: s.j.to, protocol: "websocket", http: &asked})
}

// fromServer carries the server's messages until it ends. Nothing is judged; what
// they echo is masked.
func (s *webSocket) fromServer(br *bufio.Reader) error {
	m := &messageReader{br: br, state: ws.StateClientSide, control: func(op ws.OpCode, payload []byte) error {
		s.scrub(payload, true)
		return s.client.write(op, true, payload)
	}}
	for {
		op, err := m.next()
		if err == nil {
			err = s.messageFromServer(m, op)
		}
		if err != nil {
			return err
		}
	}
}

// messageFromServer sends a message on as it comes. Only what may be the beginning
// of a value waits for what follows.
func (s *webSocket) messageFromServer(m *messageReader, op ws.OpCode) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	part, held, grown := *buf, 0, int64(0)
	defer func() { s.j.hold.Shrink(grown) }()
	var search *credentials.Message
	if s.j.injected != nil {
		search = s.j.injected.Message()
		defer search.Close()
	}
	for {
		if held == len(part) { // a long value in its longest writing, or compressed content
			if err := s.j.hold.Grow(s.c.ctx, int64(len(part))); err != nil {
				return s.endMessage(ws.StatusCode(1013), err)
			}
			grown += int64(len(part))
			part = append(part, make([]byte, len(part))...)
		}
		n, err := m.Read(part[held:])
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		fresh := n
		n += held
		safe := n
		if search != nil {
			if safe, err = search.Scrub(part[:n], fresh, end); err != nil {
				return s.endMessage(ws.StatusPolicyViolation, err)
			}
		}
		if safe > 0 || end {
			if err := s.client.write(op, end, part[:safe]); err != nil || end {
				return err
			}
			op = ws.OpContinuation
		}
		held = copy(part, part[safe:n])
	}
}

// endMessage records that a message of the server may not pass, and returns the error that
// ends the WebSocket.
func (s *webSocket) endMessage(code ws.StatusCode, err error) error {
	s.refused(denied(s.j.dec, err.Error()))
	return &socketEnd{code: code, err: err}
}

// scrub masks what a server's message echoes and says how much of it is done.
func (s *webSocket) scrub(b []byte, final bool) int {
	if s.j.injected == nil {
		return len(b)
	}
	return s.j.injected.Scrub(b, final)
}

// messageReader reads the messages of one side. Control frames, which may stand
// between the parts of a message, are given to control.
type messageReader struct {
	br      *bufio.Reader
	state   ws.State
	control func(op ws.OpCode, payload []byte) error
	h       ws.Header
	at      int64 // how much of h's payload was read
	scratch [ws.MaxHeaderSize]byte
	small   [ws.MaxControlFramePayloadSize]byte
}

// next begins the next message and says what it is.
func (m *messageReader) next() (ws.OpCode, error) {
	if err := m.frame(); err != nil {
		return 0, err
	}
	return m.h.OpCode, nil
}

// frame begins the next frame of data.
func (m *messageReader) frame() error {
	for {
		h, err := ws.ReadHeaderBuffer(m.br, m.scratch[:])
		if err != nil {
			return cutOff(err, m.state.Fragmented())
		}
		if err := ws.CheckHeader(h, m.state); err != nil {
			return err
		}
		if !h.OpCode.IsControl() {
			m.h, m.at = h, 0
			m.state = m.state.Clear(ws.StateFragmented)
			if !h.Fin {
				m.state = m.state.Set(ws.StateFragmented)
			}
			return nil
		}
		payload := m.small[:h.Length]
		if _, err := io.ReadFull(m.br, payload); err != nil {
			return cutOff(err, true)
		}
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		if err := m.control(h.OpCode, payload); err != nil {
			return err
		}
		if h.OpCode == ws.OpClose {
			return m.ended()
		}
	}
}

// ended waits for the connection's end, however that comes: it is due when the
// other side has said its Close as well.
func (m *messageReader) ended() error {
	if _, err := m.br.ReadByte(); err == nil {
		return ws.ProtocolError("data after a close frame")
	}
	return errClosed
}

// Read reads of the message that next began. Its end comes with its last bytes.
func (m *messageReader) Read(p []byte) (int, error) {
	for m.at == m.h.Length {
		if m.h.Fin {
			return 0, io.EOF
		}
		if err := m.frame(); err != nil {
			if errors.Is(err, errClosed) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n, err := m.br.Read(p[:min(int64(len(p)), m.h.Length-m.at)])
	if m.h.Masked {
		ws.Cipher(p[:n], m.h.Mask, int(m.at%4))
	}
	m.at += int64(n)
	if err != nil {
		return n, cutOff(err, true)
	}
	if m.at == m.h.Length && m.h.Fin {
		return n, io.EOF
	}
	return n, nil
}

// cutOff makes the end of a connection within a message an error of its own.
func cutOff(err error, within bool) error {
	if within && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// acceptOf is the Sec-WebSocket-Accept for a key (RFC 6455, 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(strings.TrimSpace(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
