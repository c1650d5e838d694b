// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// TestRecordsOfUnidentifiedClients: a client that left before it was identified is not
// recorded as refused; the control, which is there and cannot be identified, is.
func TestRecordsOfUnidentifiedClients(t *testing.T) {
	for _, tc := range []struct {
		name, verdict, ended string
		leave                func(*net.TCPConn)
	}{
		{"closed", "failed", "client", func(c *net.TCPConn) { c.Close() }},
		{"reset", "failed", "client", func(c *net.TCPConn) { reset(c) }},
		{"the control", "deny", "", func(*net.TCPConn) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			asked, answer := make(chan struct{}), make(chan struct{})
			w.id.set(errors.New("no program holds the connection"))
			w.id.mu.Lock()
			w.id.wait = func() { asked <- struct{}{}; <-answer }
			w.id.mu.Unlock()
			c := w.dial()
			_, _ = io.WriteString(c, "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
			<-asked
			tc.leave(c)
			close(answer)
			if rec := w.recorded(0); rec.Verdict != tc.verdict || rec.Ended != tc.ended || !strings.Contains(rec.Reason, "no program holds the connection") {
				t.Errorf("recorded %+v", rec)
			}
			if n := len(w.dials()); n > 0 {
				t.Errorf("%d connections to servers", n)
			}
		})
	}
}

// TestRecordsOfClientHandshakes: a client that ends its TLS handshake is not recorded as
// refused; the control, which no version of TLS is in common with, is.
func TestRecordsOfClientHandshakes(t *testing.T) {
	config := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true}
		change(c)
		return c
	}
	for _, tc := range []struct {
		name, verdict, ended string
		config               *tls.Config
	}{
		{"closes", "failed", "client", config(func(c *tls.Config) {
			c.VerifyConnection = func(tls.ConnectionState) error { panic(io.EOF) }
		})},
		{"sends an alert", "failed", "client", config(func(c *tls.Config) { c.InsecureSkipVerify = false })},
		{"the control", "deny", "", config(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			secure := w.site("api.example.com", 443, nil, "http/1.1")
			tcp := w.tunnel("api.example.com:443")
			func() {
				defer func() {
					if recover() != nil {
						reset(tcp)
					}
				}()
				if err := tls.Client(tcp, tc.config).Handshake(); err == nil {
					t.Error("the handshake succeeded")
				}
			}()
			rec := w.recorded(0)
			if rec.Verdict != tc.verdict || rec.Ended != tc.ended || rec.Reason == "" || rec.Status != 0 {
				t.Errorf("recorded %+v", rec)
			}
			if n := len(secure.got()); n > 0 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}

// TestRefusedHeadsNameTheHost: the record of a malformed request through the proxy variables
// names the host that the request line names.
func TestRefusedHeadsNameTheHost(t *testing.T) {
	long := "X: " + strings.Repeat("x", MaxHead) + "\r\n"
	for _, tc := range []struct {
		name, text, host string
		port             uint16
		status           int
	}{
		{"absolute form", "GET http://api.example.com:8080/ HTTP/1.1\r\nHost: api.example.com\r\nBad Name: x\r\n\r\n", "api.example.com", 8080, 400},
		{"https", "GET https://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nBad Name: x\r\n\r\n", "api.example.com", 443, 400},
		{"CONNECT", "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\nBad Name: x\r\n\r\n", "api.example.com", 443, 400},
		{"refused by the library", "GET http://api.example.com/%zz HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "api.example.com", 80, 400},
		{"too large", "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n" + long + "\r\n", "api.example.com", 80, 431},
		{"the control: no host", "GET / HTTP/1.1\r\nHost: api.example.com\r\nBad Name: x\r\n\r\n", "", 0, 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			if resp, body := ask(t, w.dial(), tc.text); resp.StatusCode != tc.status {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if rec := w.recorded(0); rec.Verdict != "deny" || rec.Host != tc.host || rec.Port != tc.port || rec.Status != tc.status {
				t.Errorf("recorded %+v", rec)
			}
		})
	}
}
