// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const noRequest = "no request"

// eachWay runs f in a box whose proxy connects from the host and in one whose
// proxy connects from the container's own uplink.
func eachWay(t *testing.T, f func(t *testing.T, b *box)) {
	for _, way := range []string{"host", "uplink"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			f(t, newBox(t, boxOptions{uplink: way == "uplink"}))
		})
	}
}

// What the policy allows arrives; what it refuses does not, and is told why.
func TestNetwork(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, b *box) {
		for _, tc := range []struct {
			name string
			argv []string
			// want is a piece of what is printed, got what the upstream received:
			// "METHOD host path protocol"; "no request" where the connection was
			// allowed, empty where no packet may arrive.
			want, got string
		}{
			{"GET", []string{"http", "GET", "https://api.test/ok/1?q=1"}, "ok: HTTP/2.0 200", "GET api.test /ok/1 HTTP/2.0"},
			{"GET without variables", []string{"direct", "GET", "https://api.test/ok/1"}, "ok: HTTP/2.0 200", "GET api.test /ok/1 HTTP/2.0"},
			{"HTTP/1.1", []string{"http1", "GET", "https://api.test/ok/1"}, "ok: HTTP/1.1 200", "GET api.test /ok/1 HTTP/1.1"},
			{"POST", []string{"http", "POST", "https://api.test/ok/1", "c2VjcmV0"}, `"rule":"POST /ok/1"`, noRequest},
			{"POST over HTTP/1.1", []string{"http1", "POST", "https://api.test/ok/1", "c2VjcmV0"}, `403 {"error":"policy_denied"`, noRequest},
			{"POST without variables", []string{"direct", "POST", "https://api.test/ok/1", "c2VjcmV0"}, `403 {"error":"policy_denied"`, noRequest},
			{"other path", []string{"http", "GET", "https://api.test/other"}, `403 {"error":"policy_denied"`, noRequest},
			{"path that only looks allowed", []string{"http", "GET", "https://api.test/ok/%2e%2e/other"}, "403 ", noRequest},
			{"path behind an encoded ;", []string{"http", "GET", "https://api.test/ok/..%3B/other"}, "403 ", noRequest},
			{"escaped characters", []string{"http", "GET", "https://api.test/ok/%40a%3Bx"}, "ok: HTTP/2.0 200", "GET api.test /ok/@a HTTP/2.0"},
			{"parameter for another method", []string{"http", "GET", "https://api.test/ok/1?_method=DELETE"}, "403 ", noRequest},
			{"other host by CONNECT", []string{"http", "GET", "https://denied.test/ok/1"}, "error: ", ""},
			{"other host", []string{"direct", "GET", "https://denied.test/ok/1"}, "", ""},
			{"other port", []string{"direct", "GET", "https://api.test:8443/ok/1"}, "", ""},
			{"plain HTTP", []string{"http", "GET", "http://api.test/x"}, "ok: HTTP/1.1 200", "GET api.test /x HTTP/1.1"},
			{"plain HTTP without variables", []string{"direct", "GET", "http://api.test/x"}, "ok: HTTP/1.1 200", "GET api.test /x HTTP/1.1"},
			{"plain POST", []string{"http", "POST", "http://api.test/x", "c2VjcmV0"}, `403 {"error":"policy_denied"`, ""},
			{"plain POST without variables", []string{"direct", "POST", "http://api.test/x", "c2VjcmV0"}, `403 {"error":"policy_denied"`, ""},
			{"plain other host", []string{"direct", "GET", "http://denied.test/x"}, "", ""},
			{"IPv6", []string{"direct", "GET", "https://six.test/x"}, "ok: HTTP/2.0 200", "GET six.test /x HTTP/2.0"},
			{"IPv6 by CONNECT", []string{"http", "GET", "https://six.test/x"}, "ok: HTTP/2.0 200", "GET six.test /x HTTP/2.0"},
			{"IPv6 POST", []string{"direct", "POST", "https://six.test/x", "c2VjcmV0"}, `403 {"error":"policy_denied"`, noRequest},
			{"spliced", []string{"direct", "POST", "https://plain.test/x", "body"}, "ok: HTTP/2.0 200", "POST plain.test /x HTTP/2.0"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.at(t)
				b.up.Reset()
				out := b.exec(append([]string{"/bin/probe"}, tc.argv...)...)
				if !strings.Contains(out, tc.want) {
					t.Errorf("printed %q, want …%s…", out, tc.want)
				}
				switch tc.got {
				case "":
					b.nothingArrived(tc.argv, out)
					return
				case noRequest:
					b.noRequestArrived(tc.argv, out)
					return
				}
				if r := b.up.Requests(); len(r) != 1 || strings.Join([]string{r[0].Method, r[0].Host, r[0].Path, r[0].Proto}, " ") != tc.got {
					t.Errorf("the upstream received %v, want %s", r, tc.got)
				}
			})
		}
		t.Run("TCP", func(t *testing.T) {
			b := b.at(t)
			if out := b.exec("/bin/probe", "say", "tcp", "raw.test:7000", "hello"); out != `ok: "hello"` {
				t.Errorf("printed %q", out)
			}
		})
	})
}

// TestBypass_B76_Environment: a client that ignores the variables, or has none, is
// policed all the same.
func TestBypass_B76_Environment(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, b *box) {
		for _, tc := range []struct {
			name string
			env  []string
			via  []string
		}{
			{"env -i", nil, []string{"/bin/probe", "bare"}},
			{"NO_PROXY", []string{"NO_PROXY=*", "no_proxy=*"}, nil},
			{"another proxy", []string{"HTTPS_PROXY=http://denied.test:80", "HTTP_PROXY=http://denied.test:80"}, nil},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.at(t)
				try := func(argv ...string) string {
					b.up.Reset()
					return b.execEnv(tc.env, append(tc.via, append([]string{"/bin/probe", "http"}, argv...)...)...)
				}
				argv := []string{"POST", "https://api.test/ok/1", "c2VjcmV0"}
				b.noRequestArrived(argv, try(argv...))
				for _, argv := range [][]string{{"GET", "https://denied.test/ok/1"}, {"GET", "http://denied.test/"}} {
					b.nothingArrived(argv, try(argv...))
				}
				if tc.name == "another proxy" {
					return // which is refused, so that nothing comes through
				}
				if out := try("GET", "https://api.test/ok/1"); !strings.HasPrefix(out, "ok: HTTP/2.0 200 upstream saw") {
					t.Errorf("what is allowed printed %q", out)
				}
			})
		}
	})
}

// at is the box as seen by a subtest.
func (b *box) at(t *testing.T) *box {
	w := *b.world
	w.t = t
	c := *b
	c.world = &w
	return &c
}

// Engines plug interfaces in between create and start: what is plugged in then is
// as closed.
func TestPluggedAfterCreate(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{argv: []string{"/bin/probe", "sleep", "10m"}})
	b.flags = b.flags[:2] // egress by the container's namespace
	b.file("hosts", "127.0.0.1 localhost\n")
	b.file("resolv.conf", fmt.Sprintf("nameserver %s\n", b.up.Inside()))
	if out, err := b.runtime("create", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	var err error
	if b.addr, err = b.up.Plug(fmt.Sprintf("/proc/%d/ns/net", b.init()), 0); err != nil {
		t.Fatal(err)
	}
	if out, err := b.runtime("start", b.id); err != nil {
		t.Fatalf("start: %v: %s", err, out)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	b.allowed("/bin/probe", "direct", "GET", "https://six.test/x")
	b.refused("/bin/probe", "direct", "GET", "https://denied.test/")
	b.refused("/bin/probe", "say", "tcp", b.up.Inside().String()+":22", "c2VjcmV0")
	b.refused("/bin/probe", "say", "udp", b.up.Inside().String()+":22", "c2VjcmV0")
}

// `openshell run` needs no bundle and no uplink.
func TestRunNetwork(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{})
	flags := []string{"--add-host", "api.test:" + b.up.Addr.String(), "--add-host", "denied.test:" + b.up.Addr.String(), "--upstream-ca", filepath.Join(b.dir, "ca.pem")}
	b.up.Reset()
	if out, code := b.runWith(flags, "/bin/probe", "http", "GET", "https://api.test/ok/1"); code != 0 || !strings.Contains(out, "upstream saw GET /ok/1") {
		t.Errorf("status %d, printed %q", code, out)
	}
	b.up.Reset()
	out, _ := b.runWith(flags, "/bin/probe", "direct", "POST", "https://api.test/ok/1", "c2VjcmV0")
	b.noRequestArrived(nil, out)
	b.up.Reset()
	out, _ = b.runWith(flags, "/bin/probe", "direct", "GET", "https://denied.test/")
	b.nothingArrived(nil, out)
	b.nothingRemains()
}

// The control of every test that nothing arrived: without a sandbox it does.
func TestUpstreamSeesWhatArrives(t *testing.T) {
	up := boxOf(t, boxOptions{}).up
	if _, err := up.Get(t.Context(), "api.test", "/x"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection is seen", func() bool { return len(up.Arrived()) > 0 && len(up.Requests()) > 0 })
}
