// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestPlainEndpointCarriesText (issue 11, point 11): a plain endpoint carries protocols
// of text that are not HTTP, and judges what some server may take for HTTP.
func TestPlainEndpointCarriesText(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		carried    bool
	}{
		{"IRC", "NICK me\r\nUSER me 0 * :me\r\n", true},
		{"RTSP", "OPTIONS rtsp://api.example.com/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", true},
		{"NATS", "CONNECT {\"verbose\":false}\r\nPING\r\n", true},
		{"Redis", "SET a 1\r\n", true},
		{"Redis in RESP", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", true},
		{"memcached", "get /a\r\n", true},
		{"LDAP", "0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\x00\x80\x00", true},
		{"MQTT with a length that is a blank", "\x10 \x00\x04MQTT\x04\x02\x00\x3c\x00\x14aaaaaaaaaaaaaaaaaaaa", true},
		{"SOCKS5", "\x05\x01\x00", true},
		{"XMPP", "<?xml version='1.0'?><stream:stream to='api.example.com'>", true},
		{"SIP", "OPTIONS sip:api.example.com SIP/2.0\r\n\r\n", true},
		{"HTTP with another Host", "GET / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", false},
		{"HTTP with two spaces", "GET  / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", false},
		{"HTTP with a version in lower case", "GET / http/1.1\r\nHost: evil.example.net\r\n\r\n", false},
		{"HTTP/0.9", "GET /\r\n\r\n", false},
		{"HTTP after the line of a proxy", "PROXY TCP4 192.0.2.1 192.0.2.2 1 8080\r\nGET / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, rules := range []string{"", ", protocol: rest, access: full, enforcement: enforce"} {
				carried := tc.carried && rules == ""
				w := newWorld(t, endpoints("host: api.example.com, port: 8080"+rules))
				var got tap
				w.raw("api.example.com", 8080, got.serve)
				for _, c := range []net.Conn{w.tunnel("api.example.com:8080"), w.to("198.18.0.1:8080"), w.to("93.184.216.34:8080")} {
					before := len(w.log.all())
					_, _ = io.WriteString(c, tc.text)
					if carried && c.RemoteAddr().String() != w.redirect("93.184.216.34:8080") {
						if !settles(func() bool { return strings.HasSuffix(got.got(), tc.text) }) {
							t.Errorf("%q: the server got %q", rules, got.got())
						}
						continue
					}
					if last := w.recorded(before); last.Verdict != "deny" || last.Reason == "" {
						t.Errorf("%q: recorded %+v", rules, last)
					}
				}
				if s := got.got(); s != "" && !carried {
					t.Errorf("%q: the server got %q", rules, s)
				}
			}
		})
	}
}

// TestUpstreamTLSNamesTheCause (issue 11, point 11): where the proxy cannot speak TLS as
// the server wants it, the answer and the record name the cause and the way out.
func TestUpstreamTLSNamesTheCause(t *testing.T) {
	certificate, parameters := "asks for a client certificate", "DHE or RSA"
	for name, tc := range map[string]struct {
		config *tls.Config
		cause  string // "" is served
	}{
		"a client certificate, TLS 1.3":      {&tls.Config{ClientAuth: tls.RequireAnyClientCert}, certificate},
		"a client certificate, TLS 1.2":      {&tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, certificate},
		"a client certificate that is asked": {&tls.Config{ClientAuth: tls.RequestClientCert}, ""},
		"RSA key exchange alone":             {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, parameters},
		"TLS 1.1":                            {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, parameters},
		"the control":                        {&tls.Config{}, ""},
	} {
		for _, proto := range []string{"http/1.1", "h2"} {
			t.Run(name+", "+proto, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, endpoints("host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce"))
				leaf, err := w.upstream.Leaf("api.example.com")
				if err != nil {
					t.Fatal(err)
				}
				config := tc.config.Clone()
				config.Certificates, config.NextProtos = []tls.Certificate{*leaf}, []string{proto}
				var served atomic.Int64
				w.raw("api.example.com", 443, func(c net.Conn) { serveTLS(tls.Server(c, config), &served) })
				resp, body := get(t, w.client(w.byConnect, proto), http.MethodGet, "https://api.example.com/", nil)
				record := w.recorded(0)
				if tc.cause == "" {
					if resp.StatusCode != 200 || served.Load() != 1 {
						t.Errorf("%d %s, %d served", resp.StatusCode, body, served.Load())
					}
					return
				}
				for _, want := range []string{tc.cause, "an endpoint without protocol and rules"} {
					if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, want) || !strings.Contains(record.Reason, want) {
						t.Errorf("no %q: %d %s; recorded %q", want, resp.StatusCode, body, record.Reason)
					}
				}
				if record.Verdict != "failed" || record.Ended != "" {
					t.Errorf("recorded %+v", record)
				}
				if n := served.Load(); n > 0 {
					t.Errorf("%d requests arrived", n)
				}
			})
		}
	}
}

// serveTLS serves one request over HTTP/1, or all over HTTP/2, and counts them.
func serveTLS(c *tls.Conn, served *atomic.Int64) {
	if c.Handshake() != nil {
		return
	}
	if c.ConnectionState().NegotiatedProtocol == "h2" {
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })
		new(http2.Server).ServeConn(c, &http2.ServeConnOpts{Handler: handler})
		return
	}
	if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		served.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

// TestBypass_B07_EncryptedHello: at a plain endpoint a ClientHello with an encrypted one
// in it is carried if its outer name is the host. It does not pass where requests are
// read, which the operator can have at every endpoint: there the server gets a
// ClientHello of the proxy's.
func TestBypass_B07_EncryptedHello(t *testing.T) {
	const rest = ", protocol: rest, access: full, enforcement: enforce"
	encrypted := func(outer string) string {
		return hello(t, &tls.Config{ServerName: "evil.example.net", EncryptedClientHelloConfigList: echList(t, outer)})
	}
	allowed := encrypted("api.example.com")
	for name, tc := range map[string]struct {
		text, rules string
		terminates  bool
		// arrives is what the server gets: the client's own ClientHello, another or nothing.
		arrives string
	}{
		"plain":                                     {allowed, "", false, "own"},
		"plain, outer name of another":              {encrypted("evil.example.net"), "", false, ""},
		"requests are judged":                       {allowed, rest, false, "another"},
		"the operator's option":                     {allowed, "", true, "another"},
		"the operator's option, no encrypted hello": {hello(t, &tls.Config{ServerName: "api.example.com"}), "", true, "another"},
		"without an encrypted hello":                {hello(t, &tls.Config{ServerName: "api.example.com"}), "", false, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, endpoints("host: api.example.com, port: 443"+tc.rules))
			w.sandbox.config.TerminatePlainTLS = tc.terminates
			var got tap
			w.raw("api.example.com", 443, got.serve)
			_, _ = io.WriteString(w.to("198.18.0.1:443"), tc.text)
			if tc.arrives == "" {
				if w.recorded(0).Verdict != "deny" || got.got() != "" || len(w.dials()) > 0 {
					t.Errorf("the server got %q, dialled %v", got.got(), w.dials())
				}
				return
			}
			if !settles(func() bool { return got.got() != "" }) {
				t.Fatal("the server got nothing")
			}
			random := tc.text[11:43]
			if own := strings.Contains(got.got(), random); own != (tc.arrives == "own") {
				t.Errorf("the client's own ClientHello arrived: %t", own)
			}
		})
	}
}

// echList is an ECHConfigList of draft-ietf-tls-esni-18 (X25519, HKDF-SHA256,
// AES-128-GCM) with a public name, which the outer ClientHello has.
func echList(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prefixed := func(size int, b []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b)))[4-size:], b...)
	}
	contents := slices.Concat([]byte{1, 0, 0x20}, prefixed(2, key.PublicKey().Bytes()), prefixed(2, []byte{0, 1, 0, 1}), []byte{0}, prefixed(1, []byte(name)), []byte{0, 0})
	return prefixed(2, append([]byte{0xfe, 0x0d}, prefixed(2, contents)...))
}

// TestBypass_B05_OperatorTerminatesPlainTLS: with the operator's option the Host within
// TLS is compared at a plain endpoint, too. Without it another Host passes, which is
// domain fronting (docs/threat-model.md).
func TestBypass_B05_OperatorTerminatesPlainTLS(t *testing.T) {
	for _, terminates := range []bool{true, false} {
		w := newWorld(t, endpoints("host: api.example.com, port: 443"))
		w.sandbox.config.TerminatePlainTLS = terminates
		_, secure := w.both(nil, "http/1.1")
		roots := w.roots
		if !terminates {
			roots = pool(w.upstream)
		}
		for host, status := range map[string]int{"api.example.com": 200, "evil.example.net": 403} {
			c := tls.Client(w.tunnel("api.example.com:443"), &tls.Config{ServerName: "api.example.com", RootCAs: roots})
			resp, body := ask(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			if !terminates {
				status = 200
			}
			if resp.StatusCode != status {
				t.Errorf("terminates %t, Host %s: %d %s", terminates, host, resp.StatusCode, body)
			}
		}
		if n := len(secure.got()); terminates && n != 1 || !terminates && n != 2 {
			t.Errorf("terminates %t: %d requests arrived", terminates, n)
		}
	}
}

// TestBypass_B27_LenientRequestLines: a request for another host reaches no server behind a
// plain endpoint, in any spelling that servers such as node, Python's http.server, waitress
// and mini_httpd read, at once or in two parts. The control is an endpoint for raw TCP, which
// carries the same bytes.
func TestBypass_B27_LenientRequestLines(t *testing.T) {
	for _, line := range []string{
		strings.Repeat("\r\n", 5) + "GET /s HTTP/1.1", strings.Repeat("\r\n", 30) + "GET /s HTTP/1.1", strings.Repeat("\n", 9) + "GET /s HTTP/1.1",
		" GET /s HTTP/1.1", "\fGET /s HTTP/1.1", "\x1cGET /s HTTP/1.1", "\xa0GET /s HTTP/1.1", "GET\t/s\tHTTP/1.1", "GET\v/s HTTP/1.1", "GET\t/s",
		"\x01GET /s HTTP/1.1", "\xe9GET /s HTTP/1.1", "get /s HTTP/1.1", "G_T s HTTP/1.1", "GET s\x85http/1.1", "GET /\x00\x01\x01 HTTP/1.1",
		"\r\n\r\n\x00\r\nQUIT\n \x00\x00\x00GET /s HTTP/1.1", "PING /s HTTP/1.1", "get /s x", "{ /s HTTP/1.1", "_ /s",
	} {
		for _, split := range []int{0, 1, len(line) - 2} {
			t.Run(fmt.Sprintf("%.40q, %d", line, split), func(t *testing.T) {
				t.Parallel()
				text := line + "\r\nHost: denied.example.com\r\n\r\n"
				for _, protocol := range []string{"", ", protocol: tcp"} {
					w := newWorld(t, endpoints("host: other.example.com, port: 80"+protocol))
					var got tap
					w.raw("other.example.com", 80, got.serve)
					c := w.tunnel("other.example.com:80")
					before := len(w.log.all())
					if split > 0 && protocol == "" {
						_, _ = io.WriteString(c, text[:split])
						time.Sleep(FirstLineTimeout + 50*time.Millisecond) //nolint:forbidigo // the proxy forwards the part of the line after this time
					} else {
						split = 0
					}
					_, _ = io.WriteString(c, text[split:])
					if protocol != "" {
						if !settles(func() bool { return got.got() == text }) {
							t.Errorf("raw TCP: the server got %q", got.got())
						}
						continue
					}
					if last := w.recorded(before); last.Verdict != "deny" || last.Reason == "" || last.Ended != "" {
						t.Errorf("recorded %+v", last)
					}
					_, _ = io.ReadAll(c)
					if s := got.got(); s != "" && s != text[:split] {
						t.Errorf("the server got %q", s)
					}
				}
			})
		}
	}
}

// TestFirstLineWithoutEnd: a client may send a part of a line and wait for the server, which
// gets the bytes at once or after FirstLineTimeout. A method of HTTP gets the time of a head.
func TestFirstLineWithoutEnd(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		delayed    bool
	}{
		{"small letters", "hello", false},
		{"a blank", " ", false},
		{"XMPP", "<stream:stream to='api.example.com'>", false},
		{"JSON", `{"id": 1}`, false},
		{"SOCKS5", "\x05\x01\x00", false},
		{"Telnet", "\xff\xfb\x1f\xff\xfb\x20", false},
		{"a command", "PING", true},
		{"a command with a word", "STATS a", true},
		{"an empty line", "\r\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, endpoints("host: api.example.com, port: 8080"))
			w.raw("api.example.com", 8080, func(c net.Conn) {
				b := make([]byte, len(tc.text))
				if _, err := io.ReadFull(c, b); err == nil {
					_, _ = c.Write(append(b, "+OK "...))
				}
				_, _ = io.Copy(c, c)
			})
			c := w.tunnel("api.example.com:8080")
			began := time.Now()
			_, _ = io.WriteString(c, tc.text)
			want := tc.text + "+OK "
			b := make([]byte, len(want))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
				t.Fatalf("got %q, %v", b, err)
			}
			if took := time.Since(began); tc.delayed && took < FirstLineTimeout {
				t.Errorf("the answer took %v", took)
			}
			// What follows is carried, too, in the same line and in others.
			more := strings.Repeat("more ", 2000) + "\r\nGET / HTTP/1.1\r\n\r\n"
			go func() {
				_, _ = io.WriteString(c, more)
				_ = c.CloseWrite()
			}()
			if rest, err := io.ReadAll(c); err != nil || string(rest) != more {
				t.Errorf("the rest is %q, %v", rest, err)
			}
		})
	}
	t.Run("a slow method", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, endpoints("host: api.example.com, port: 80"))
		plain, _ := w.both(nil)
		c := w.tunnel("api.example.com:80")
		_, _ = io.WriteString(c, "GET ")
		time.Sleep(FirstLineTimeout + 100*time.Millisecond) //nolint:forbidigo // a slow client
		if resp, body := ask(t, c, "/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 200 || len(plain.got()) != 1 {
			t.Errorf("%d %s, %d requests arrived", resp.StatusCode, body, len(plain.got()))
		}
	})
}
