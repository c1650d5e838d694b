// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"openshell.dev/runtime/policy"
)

// TestBypass_B23_ControlPlanePorts: no way into the proxy reaches a control-plane port
// that the operator has not opened, and each does once it is open.
func TestBypass_B23_ControlPlanePorts(t *testing.T) {
	const port = 6443
	rules := endpoints("host: api.example.com, ports: [80, 443, 6443], protocol: rest, enforcement: enforce, access: full",
		"host: named.test, ports: [80, 6443]", "host: 93.184.216.36, ports: [80, 6443]",
		"host: raw.example.com, ports: [80, 6443], protocol: tcp", "host: evil.example.net, ports: [80, 6443], tls: skip")
	for _, open := range []bool{false, true} {
		w := newWorld(t, "")
		if open {
			w.sandbox.config.ControlPlanePorts = []uint16{port}
		}
		w.load(rules)
		names := []string{"api.example.com", "named.test", "other.example.com", "raw.example.com", "evil.example.net"}
		for _, name := range names {
			w.site(name, port, nil)
		}
		plain := func(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + ":6443\r\n\r\n" }
		for _, way := range []struct {
			name string
			try  func() bool // whether the server was reached
		}{
			{"CONNECT", func() bool { s, _ := connect(t, w.dial(), "api.example.com:6443"); return s == 200 }},
			{"CONNECT to an address", func() bool { s, _ := connect(t, w.dial(), "93.184.216.36:6443"); return s == 200 }},
			{"CONNECT, raw TCP", func() bool { s, _ := connect(t, w.dial(), "raw.example.com:6443"); return s == 200 }},
			{"CONNECT, tls: skip", func() bool { s, _ := connect(t, w.dial(), "evil.example.net:6443"); return s == 200 }},
			{"absolute form", func() bool {
				r, _ := ask(t, w.dial(), "GET http://api.example.com:6443/ HTTP/1.1\r\nHost: api.example.com:6443\r\n\r\n")
				return r.StatusCode == 200
			}},
			{"absolute form, name of the hosts file", func() bool {
				r, _ := ask(t, w.dial(), "GET http://named.test:6443/ HTTP/1.1\r\nHost: named.test:6443\r\n\r\n")
				return r.StatusCode == 200
			}},
			{"transparent, synthetic", func() bool {
				r, _ := ask(t, w.to("198.18.0.1:6443"), plain("api.example.com"))
				return r.StatusCode == 200
			}},
			{"transparent, hosts file", func() bool { r, _ := ask(t, w.to("10.0.0.6:6443"), plain("named.test")); return r.StatusCode == 200 }},
			{"transparent, address", func() bool {
				r, _ := ask(t, w.to("93.184.216.36:6443"), plain("93.184.216.36"))
				return r.StatusCode == 200
			}},
			{"transparent, raw TCP", func() bool {
				c := w.to("198.18.0.3:6443")
				_, _ = io.WriteString(c, plain("raw.example.com"))
				b, _ := bufio.NewReader(c).ReadString('\n')
				return strings.Contains(b, " 200 ")
			}},
		} {
			before, noted := w.accepts.Load(), len(w.log.all())
			reached := way.try()
			if open {
				if !reached || !settles(func() bool { return w.accepts.Load() > before }) {
					t.Errorf("%s: the server is not reached although the port is open", way.name)
				}
				continue
			}
			if last := w.recorded(noted); reached || w.accepts.Load() != before || last.Verdict != "deny" || last.Reason != policy.BlockedPort(port) {
				t.Errorf("%s: reached %v, %d accepts, recorded %+v", way.name, reached, w.accepts.Load()-before, last)
			}
		}
	}
}
