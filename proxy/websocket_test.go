// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/klauspost/compress/zstd"

	"openshell.dev/runtime/proxy/credentials"
)

const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

// chat is a WebSocket server: it keeps what arrives and says what it is told.
type chat struct {
	mu     sync.Mutex
	frames []ws.Frame
	ended  error
	// head is what the handshake said; accept and more go into its answer.
	head         http.Header
	accept, more string
	say          chan []byte // raw
}

func newChat() *chat { return &chat{say: make(chan []byte, 100)} }

func (s *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.head = r.Header.Clone()
	s.mu.Unlock()
	if r.Header.Get("Upgrade") == "" {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	accept := s.accept
	if accept == "" {
		accept = acceptOf(r.Header.Get("Sec-Websocket-Key"))
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n%s\r\n", accept, s.more)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := range s.say {
			if b == nil {
				conn.Close()
				return
			}
			_, _ = conn.Write(b)
		}
	}()
	for {
		f, err := readFrame(rw)
		s.mu.Lock()
		if err != nil {
			s.ended = err
			s.mu.Unlock()
			break
		}
		if !f.Header.Masked {
			f.Payload = []byte("NOT MASKED")
		}
		f = ws.UnmaskFrame(f)
		s.frames = append(s.frames, f)
		s.mu.Unlock()
	}
	close(s.say)
	<-done
	conn.Close()
}

// got is what arrived, a message each: t for text, b for binary, with parts of one
// put together; 8, 9 and 10 for control.
func (s *chat) got() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.frames {
		switch f.Header.OpCode {
		case ws.OpContinuation:
			out[len(out)-1] += string(f.Payload)
		case ws.OpText:
			out = append(out, "t"+string(f.Payload))
		case ws.OpBinary:
			out = append(out, "b"+string(f.Payload))
		default:
			out = append(out, fmt.Sprintf("%d %s", f.Header.OpCode, f.Payload))
		}
	}
	return out
}

func (s *chat) sawEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// wsClient is a client's end.
type wsClient struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

// begin asks for a WebSocket over TLS; status is the answer's.
func (w *world) begin(t *testing.T, path, more string) (*wsClient, *http.Response) {
	t.Helper()
	c := &wsClient{t: t, conn: w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1")}
	c.br = bufio.NewReader(c.conn)
	fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n%s\r\n", path, wsKey, more)
	resp, err := http.ReadResponse(c.br, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return c, resp
}

// readFrame reads a frame of a test's.
func readFrame(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err != nil {
		return f, err
	}
	if f.Header.Length > 2*MaxText {
		return f, fmt.Errorf("a frame of %d bytes", f.Header.Length)
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

func (c *wsClient) send(op ws.OpCode, fin bool, payload string) {
	c.t.Helper()
	if err := ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload)))); err != nil {
		c.t.Error(err)
	}
}

func (c *wsClient) text(s string) { c.t.Helper(); c.send(ws.OpText, true, s) }

// closed is the code of the Close that comes, or an error.
func (c *wsClient) closed() (ws.StatusCode, error) {
	for {
		f, err := readFrame(c.br)
		if err != nil {
			return 0, err
		}
		if f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			if _, err := c.br.ReadByte(); !errors.Is(err, io.EOF) {
				return code, fmt.Errorf("after the Close came something, or %w", err)
			}
			return code, nil
		}
	}
}

// message is the next message of the server, its parts put together.
func (c *wsClient) message() string {
	c.t.Helper()
	var out []byte
	for {
		f, err := readFrame(c.br)
		if err != nil {
			c.t.Fatalf("after %q: %v", out, err)
		}
		if out = append(out, f.Payload...); f.Header.Fin {
			return string(out)
		}
	}
}

const (
	wsRules   = "host: api.example.com, port: 443, protocol: websocket, enforcement: enforce, rules: [{allow: {method: GET, path: '/**'}}, {allow: {method: WEBSOCKET_TEXT, path: /open}}]"
	wsRewrite = ", websocket_credential_rewrite: true"
	restWS    = "host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full"
)

func (s *chat) arrives(t *testing.T, want ...string) {
	t.Helper()
	if !settles(func() bool { return fmt.Sprint(s.got()) == fmt.Sprint(want) }) {
		t.Errorf("arrived %q, want %q", s.got(), want)
	}
}

// TestMessages: text is put together and rewritten, all else passes as it is.
func TestMessages(t *testing.T) {
	for _, endpoint := range []string{wsRules + wsRewrite, restWS + wsRewrite} {
		w := withSecret(t)
		w.load(endpoints(endpoint))
		s := newChat()
		w.site("api.example.com", 443, s, "http/1.1")
		c, resp := w.begin(t, "/open", "")
		if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != acceptOf(wsKey) || resp.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		if e := s.head.Get("Sec-Websocket-Extensions"); e != "" {
			t.Errorf("offered %q", e)
		}
		c.text(`{"op":2,"token":"openshell\u003aresolve:env:API_KEY"}`)
		c.send(ws.OpText, false, "auth "+secretKey[:9])
		c.send(ws.OpPing, true, "between")
		c.send(ws.OpContinuation, false, "")
		c.send(ws.OpContinuation, true, secretKey[9:]+" é")
		c.send(ws.OpBinary, false, "\x00\xff")
		c.send(ws.OpContinuation, true, strings.Repeat("x", 100_000))
		c.text("")
		c.send(ws.OpBinary, true, "")
		big := strings.Repeat("y", MaxText)
		c.text(big)
		c.send(ws.OpPong, true, "pong")
		c.send(ws.OpClose, true, string(ws.NewCloseFrameBody(1000, "bye")))
		s.arrives(t, `t{"op":2,"token":"`+secretValue+`"}`, "9 between", "tauth "+secretValue+" é", "b\x00\xff"+strings.Repeat("x", 100_000), "t", "b", "t"+big, "10 pong", "8 \x03\xe8bye")
		s.say <- ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "")))
		s.say <- nil
		if code, err := c.closed(); code != 1000 || err != nil {
			t.Errorf("%d, %v", code, err)
		}
		c.conn.Close()
		if r := w.recorded(0); r.Verdict != "allow" || r.Status != 101 || fmt.Sprint(r.Credentials) != "[API_KEY]" || r.BytesOut < MaxText || r.Reason != "" {
			t.Errorf("recorded %+v", r)
		}
	}
}

// TestBypass_B65_EchoedInMessages: what a server sends back is masked, whole or in
// parts, and nothing else is.
func TestBypass_B65_EchoedInMessages(t *testing.T) {
	w := withSecret(t)
	w.load(endpoints(restWS + wsRewrite))
	s := newChat()
	w.site("api.example.com", 443, s, "http/1.1")
	c, _ := w.begin(t, "/open", "")
	say := func(op ws.OpCode, fin bool, text string) {
		s.say <- ws.MustCompileFrame(ws.NewFrame(op, fin, []byte(text)))
	}
	masked := strings.Repeat("*", len(secretValue))
	say(ws.OpText, true, "you said "+secretValue+".")
	say(ws.OpText, false, "you said "+secretValue[:5])
	say(ws.OpContinuation, false, secretValue[5:7])
	say(ws.OpContinuation, true, secretValue[7:])
	say(ws.OpBinary, false, secretValue[:5])
	say(ws.OpContinuation, true, "")
	say(ws.OpText, true, strings.Repeat("z", 100_000)+secretValue)
	say(ws.OpPing, true, secretValue)
	say(ws.OpText, true, "")
	for _, want := range []string{"you said " + masked + ".", "you said " + masked, secretValue[:5], strings.Repeat("z", 100_000) + masked, masked, ""} {
		if got := c.message(); got != want {
			t.Errorf("%.200q, want %.200q", got, want)
		}
	}
	s.say <- nil
	if _, err := c.closed(); err == nil || !errors.Is(err, io.EOF) {
		t.Errorf("the server ended without a Close: %v", err)
	}
}

// TestBypass_B80_CompressedMessages: a compressed message that echoes the key closes the
// WebSocket (1008); one without the key passes as it is.
func TestBypass_B80_CompressedMessages(t *testing.T) {
	pack := map[string]func(w io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zlib": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
	}
	for name, writer := range pack {
		packed := func(text string) []byte {
			var b bytes.Buffer
			z := writer(&b)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
			return b.Bytes()
		}
		w := withSecret(t)
		w.load(endpoints(restWS + wsRewrite))
		s := newChat()
		w.site("api.example.com", 443, s, "http/1.1")
		c, resp := w.begin(t, "/open", "Authorization: "+bearer+"\r\n")
		if resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		clean, shows := packed("you are nobody"), packed("you are "+secretValue)
		for _, payload := range [][]byte{clean, shows} {
			var raw bytes.Buffer
			_ = ws.WriteFrame(&raw, ws.NewBinaryFrame(payload))
			s.say <- raw.Bytes()
		}
		if got := c.message(); got != string(clean) {
			t.Errorf("%s: %q became %q", name, clean, got)
		}
		f, err := readFrame(c.br)
		if err != nil || f.Header.OpCode != ws.OpClose {
			t.Errorf("%s: then came %v %q, %v", name, f.Header.OpCode, f.Payload, err)
		} else if code, _ := ws.ParseCloseFrameData(f.Payload); code != ws.StatusPolicyViolation {
			t.Errorf("%s: closed with %d", name, code)
		}
		c.conn.Close()
	}
}

// TestBypass_B28_B66_Messages: what may not pass ends the WebSocket with the code
// for it, and the server has nothing of it.
func TestBypass_B28_B66_Messages(t *testing.T) {
	frame := func(h ws.Header, payload string) string {
		h.Masked, h.Length = true, int64(len(payload))
		return string(ws.MustCompileFrame(ws.Frame{Header: h, Payload: []byte(payload)}))
	}
	text := func(s string) string { return frame(ws.Header{Fin: true, OpCode: ws.OpText}, s) }
	for _, tc := range []struct {
		name, endpoint, path, raw string
		code                      ws.StatusCode
	}{
		{"a placeholder without the opt-in", restWS, "", "", 0}, // no WebSocket at all
		{"a placeholder, rules only", wsRules, "/open", text("k " + secretKey), 1008},
		{"a placeholder where nothing is judged", "host: api.example.com, port: 443", "/open", text("k " + secretKey), 1008},
		{"escaped", "host: api.example.com, port: 443", "/open", text(`{"k":"openshell\u003aresolve\u003Aenv:API_KEY"}`), 1008},
		{"in parts", wsRules, "/open", frame(ws.Header{OpCode: ws.OpText}, secretKey[:10]) + frame(ws.Header{Fin: true}, secretKey[10:]), 1008},
		{"in binary", wsRules + wsRewrite, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpBinary}, secretKey), 1008},
		{"in binary, in parts", wsRules + wsRewrite, "/open", frame(ws.Header{OpCode: ws.OpBinary}, secretKey[:10]) + frame(ws.Header{Fin: true}, secretKey[10:]), 1008},
		{"in a ping", wsRules + wsRewrite, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpPing}, secretKey), 1008},
		{"in a close", wsRules + wsRewrite, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpClose}, "\x03\xe8"+secretKey), 1008},
		{"of nobody", wsRules + wsRewrite, "/open", text("k " + credentials.Marker + "NOBODY"), 1008},
		{"a message that no rule allows", wsRules + wsRewrite, "/shut", text("hello"), 1008},
		{"not masked", wsRules, "/open", "\x81\x05hello", 1002},
		{"reserved bits", wsRules, "/open", frame(ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText}, "x"), 1002},
		{"reserved code", wsRules, "/open", frame(ws.Header{Fin: true, OpCode: 3}, "x"), 1002},
		{"a long ping", wsRules, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpPing}, strings.Repeat("x", 126)), 1002},
		{"a ping in parts", wsRules, "/open", frame(ws.Header{OpCode: ws.OpPing}, "x"), 1002},
		{"a part of nothing", wsRules, "/open", frame(ws.Header{Fin: true}, "x"), 1002},
		{"a message within another", wsRules, "/open", frame(ws.Header{OpCode: ws.OpText}, "x") + text("y"), 1002},
		{"half a code", wsRules, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpClose}, "\x03"), 1002},
		{"a code that nobody may send", wsRules, "/open", frame(ws.Header{Fin: true, OpCode: ws.OpClose}, "\x03\xed"), 1002},
		{"not UTF-8", wsRules, "/open", text("\xff"), 1007},
		{"too long", wsRules, "/open", text(strings.Repeat("x", MaxText+1)), 1009},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := withSecret(t)
			w.load(endpoints(tc.endpoint))
			s := newChat()
			w.site("api.example.com", 443, s, "http/1.1")
			c, resp := w.begin(t, tc.path+"/"[:1-min(1, len(tc.path))], "")
			if tc.code == 0 {
				if resp.StatusCode != http.StatusForbidden {
					t.Errorf("status %d", resp.StatusCode)
				}
				return
			}
			if resp.StatusCode != 101 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			c.send(ws.OpPing, true, "control")
			s.arrives(t, "9 control")
			go func() { _, _ = io.WriteString(c.conn, tc.raw) }()
			if code, err := c.closed(); code != tc.code || err != nil {
				t.Errorf("closed with %d, %v; want %d", code, err, tc.code)
			}
			if !settles(func() bool { return s.sawEnd() != nil }) {
				t.Error("the server's end stays")
			}
			var all string
			for _, m := range s.got()[1:] {
				if !strings.HasPrefix(m, "8 ") {
					all += m
				}
			}
			if strings.Contains(all, credentials.Marker) || strings.Contains(all, secretValue) || len(all) > len(credentials.Marker) {
				t.Errorf("arrived %.100q", all)
			}
			if tc.code == 1008 {
				found := false
				for _, r := range w.log.all() {
					found = found || r.Verdict == "deny" && r.Method == "WEBSOCKET_TEXT" && r.Path == tc.path
				}
				if !found {
					t.Errorf("recorded %+v", w.log.all())
				}
			}
		})
	}
}

// TestBypass_B28_Handshakes: only what is a WebSocket's handshake for both sides
// becomes one.
func TestBypass_B28_Handshakes(t *testing.T) {
	good := "GET /open HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + wsKey + "\r\nSec-WebSocket-Version: 13\r\n\r\n"
	for _, tc := range []struct {
		name, request, accept, more string
		status                      int
		arrives                     bool
	}{
		{"good", good, "", "", 101, true},
		{"override to the same path", strings.Replace(good, "\r\n\r\n", "\r\nX-Original-URL: /open\r\n\r\n", 1), "", "", 101, true},
		{"override to no method of the rules", strings.Replace(good, "\r\n\r\n", "\r\nX-HTTP-Method: DELETE\r\n\r\n", 1), "", "", 403, false},
		{"no upgrade", "GET /open HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "", "", 403, false},
		{"no key", strings.Replace(good, "Sec-WebSocket-Key", "X-Key", 1), "", "", 403, false},
		{"short key", strings.Replace(good, wsKey, "YQ==", 1), "", "", 403, false},
		{"two keys", strings.Replace(good, "Sec-WebSocket-Key", "Sec-WebSocket-Key: "+wsKey+"\r\nSec-WebSocket-Key", 1), "", "", 403, false},
		{"old version", strings.Replace(good, ": 13", ": 8", 1), "", "", 403, false},
		{"method of messages", strings.Replace(good, "GET", "WEBSOCKET_TEXT", 1), "", "", 400, false},
		{"no path of the rules", strings.Replace(good, "/open", "/x/../../..", 1), "", "", 400, false},
		{"wrong accept", good, "AAAA", "", 502, true},
		{"extension", good, "", "Sec-WebSocket-Extensions: permessage-deflate\r\n", 502, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(wsRules))
			s := newChat()
			s.accept, s.more = tc.accept, tc.more
			got := w.site("api.example.com", 443, s, "http/1.1")
			c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1")
			_, _ = io.WriteString(c, tc.request)
			resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
			if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("%v %v, want %d", resp, err, tc.status)
			}
			if arrived := len(got.got()) > 0; arrived != tc.arrives {
				t.Errorf("arrived: %v", got.got())
			}
			c.Close()
		})
	}
}

// TestBypass_B79_MessagesOfOverrides: a message is judged at the path too that the
// handshake's header overrides.
func TestBypass_B79_MessagesOfOverrides(t *testing.T) {
	for path, arrives := range map[string]bool{"/open": true, "/other": false} {
		w := newWorld(t, endpoints(wsRules))
		s := newChat()
		w.site("api.example.com", 443, s, "http/1.1")
		c, resp := w.begin(t, "/open", "X-Original-URL: "+path+"\r\n")
		if resp.StatusCode != 101 {
			t.Fatalf("%s: %d", path, resp.StatusCode)
		}
		c.text("hello")
		if arrives {
			s.arrives(t, "thello")
			continue
		}
		if code, err := c.closed(); code != 1008 || err != nil {
			t.Errorf("%s: %d, %v", path, code, err)
		}
		s.arrives(t, "8 \x03\xf0")
	}
}

// TestBypass_B30_Messages: each message is judged by the policy in force.
func TestBypass_B30_Messages(t *testing.T) {
	w := newWorld(t, endpoints(wsRules))
	s := newChat()
	w.site("api.example.com", 443, s, "http/1.1")
	c, _ := w.begin(t, "/open", "")
	c.text("one")
	s.arrives(t, "tone")
	w.load(endpoints(strings.Replace(wsRules, "path: /open", "path: /other", 1)))
	c.text("two")
	if code, err := c.closed(); code != 1008 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	s.arrives(t, "tone", "8 \x03\xf0")
	// What may not be a WebSocket any more ends at once.
	other := newChat()
	w.site("api.example.com", 443, other, "http/1.1")
	w.load(endpoints(wsRules))
	c, _ = w.begin(t, "/open", "")
	c.text("three")
	other.arrives(t, "tthree")
	w.load(endpoints(restWS))
	if _, err := c.br.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if !settles(func() bool { return other.sawEnd() != nil }) {
		t.Error("the server's end stays")
	}
}

// TestMessagesAudited: what the rules refuse passes and is recorded.
func TestMessagesAudited(t *testing.T) {
	w := newWorld(t, endpoints(strings.Replace(wsRules, "enforcement: enforce, ", "", 1)))
	s := newChat()
	w.site("api.example.com", 443, s, "http/1.1")
	c, _ := w.begin(t, "/shut", "")
	c.text("hello")
	s.arrives(t, "thello")
	if r := w.recorded(0); r.Verdict != "audit" || r.Method != "WEBSOCKET_TEXT" || r.Path != "/shut" {
		t.Errorf("recorded %+v", r)
	}
	c.conn.Close()
}

// TestMessagesUnseen: where nothing is to be looked at the WebSocket passes as it
// is, extensions and all.
func TestMessagesUnseen(t *testing.T) {
	w := withSecret(t)
	w.load(endpoints("host: api.example.com, port: 443, allow_uninspected_credentials: true"))
	s := newChat()
	s.accept = "whatever"
	w.site("api.example.com", 443, s, "http/1.1")
	c, resp := w.begin(t, "/open", "")
	if resp.StatusCode != 101 || s.head.Get("Sec-Websocket-Extensions") != "permessage-deflate" {
		t.Fatalf("%d %v", resp.StatusCode, s.head)
	}
	c.text("k " + secretKey)
	s.arrives(t, "tk "+secretKey)
	c.conn.Close()
}

// TestBypass_B86_TextTakesMemory: a message for which there is no memory ends its
// WebSocket.
func TestBypass_B86_TextTakesMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, endpoints(wsRules))
	s := newChat()
	w.site("api.example.com", 443, s, "http/1.1")
	c, _ := w.begin(t, "/open", "")
	c.text("before")
	s.arrives(t, "tbefore")
	w.fill()
	c.text("after")
	if code, err := c.closed(); code != 1013 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}

// FuzzMessages: what a client sends arrives as the same messages, or the WebSocket
// ends; no frame is sent on that the parser did not understand.
func FuzzMessages(f *testing.F) {
	masked := func(op ws.OpCode, fin bool, s string) []byte {
		return ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, fin, []byte(s))))
	}
	f.Add(masked(ws.OpText, true, "hello"), uint8(1))
	f.Add(append(masked(ws.OpBinary, false, "he"), masked(ws.OpContinuation, true, "llo")...), uint8(3))
	f.Add(append(masked(ws.OpText, false, "he"), append(masked(ws.OpPing, true, "p"), masked(ws.OpContinuation, true, "llo")...)...), uint8(7))
	f.Add([]byte("\x81\x05hello"), uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		read := func(r io.Reader, plain bool) (out []string, err error) {
			m := &messageReader{br: bufio.NewReaderSize(r, 16), state: ws.StateServerSide}
			if plain {
				m.state = ws.StateClientSide
			}
			m.control = func(op ws.OpCode, payload []byte) error {
				out = append(out, fmt.Sprintf("%d %q", op, payload))
				return nil
			}
			for {
				op, err := m.next()
				if err != nil {
					return out, err
				}
				b, err := io.ReadAll(m)
				if err != nil {
					return out, err
				}
				out = append(out, fmt.Sprintf("%d %q", op, b))
			}
		}
		whole, werr := read(bytes.NewReader(raw), false)
		parts, perr := read(&slowReader{raw, int(step)%5 + 1}, false)
		if fmt.Sprint(whole) != fmt.Sprint(parts) || fmt.Sprint(werr) != fmt.Sprint(perr) {
			t.Errorf("whole %q, %v; in parts %q, %v", whole, werr, parts, perr)
		}
		if len(whole) > 0 {
			if _, err := read(bytes.NewReader(raw), true); err == nil {
				t.Error("masked frames were taken for a server's")
			}
		}
	})
}

type slowReader struct {
	b    []byte
	step int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.b)
	s.b = s.b[n:]
	return n, nil
}
