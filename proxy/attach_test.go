// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/gobwas/ws"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/proxy/credentials"
)

// provides is a set of one provider that is bound to a host and port.
func provides(t *testing.T, host string, port uint16, value, gone string) *credentials.Set {
	t.Helper()
	set, err := credentials.New(credentials.Config{AnyPlace: true}, []credentials.Provider{{
		Name: "api", Gone: gone, Endpoints: []credentials.Endpoint{{Host: host, Ports: []uint16{port}}},
		Credentials: []credentials.Credential{{Key: "API_KEY", Value: secret.New(value)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestAttachEndsTunnels: bytes that nobody looks at do not go on to where credentials
// belong from now on.
func TestAttachEndsTunnels(t *testing.T) {
	for _, tc := range []struct {
		name, endpoint, host string
		stays                bool
	}{
		{"bound there", "host: api.example.com, port: 25", "api.example.com", false},
		{"raw", "host: api.example.com, port: 25, protocol: tcp", "api.example.com", false},
		{"bound elsewhere", "host: api.example.com, port: 25", "other.example.com", true},
		{"allowed", "host: api.example.com, port: 25, allow_uninspected_credentials: true", "api.example.com", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(tc.endpoint))
			w.raw("api.example.com", 25, func(c net.Conn) {
				_, _ = io.WriteString(c, "220\n")
				_, _ = io.Copy(c, c)
			})
			c := w.to("198.18.0.1:25")
			br := bufio.NewReader(c)
			if s, err := br.ReadString('\n'); err != nil {
				t.Fatal(s, err)
			}
			before := len(w.log.all())
			w.sandbox.SetCredentials(provides(t, tc.host, 25, secretValue, ""))
			if all := w.log.all()[before:]; !tc.stays && (len(all) == 0 || all[0].Reason != notInspected) {
				t.Errorf("recorded %+v", all)
			}
			_, _ = io.WriteString(c, "x\n")
			s, err := br.ReadString('\n')
			if stays := err == nil && s == "x\n"; stays != tc.stays {
				t.Errorf("%q %v", s, err)
			}
		})
	}
}

// TestDetachEndsWebSockets: one that began with a key ends when the sandbox loses it,
// and goes on when the key becomes another or something else goes.
func TestDetachEndsWebSockets(t *testing.T) {
	w := newWorld(t, endpoints(wsRules+wsRewrite))
	s := newChat()
	w.site("api.example.com", 443, s, "http/1.1")
	w.sandbox.SetCredentials(provides(t, "api.example.com", 443, secretValue, ""))
	c, _ := w.begin(t, "/open", "")
	c.text(secretKey)
	s.arrives(t, "t"+secretValue)
	w.sandbox.SetCredentials(provides(t, "api.example.com", 443, "sk-another-value", ""))
	c.text("after another value")
	s.arrives(t, "t"+secretValue, "tafter another value")
	w.sandbox.SetCredentials(provides(t, "other.example.com", 443, "", "detached"))
	c.text("after another's end")
	s.arrives(t, "t"+secretValue, "tafter another value", "tafter another's end")
	w.sandbox.SetCredentials(provides(t, "api.example.com", 443, "", "detached"))
	_ = ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewTextFrame([]byte(secretKey)))) // it may be gone already
	if _, err := c.br.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if !settles(func() bool { return s.sawEnd() != nil }) || len(s.got()) != 3 {
		t.Errorf("the server got %q", s.got())
	}
}
