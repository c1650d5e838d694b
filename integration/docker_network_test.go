// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/integration/upstream"
)

const dockerPolicy = `version: 1
filesystem_policy:
  read_only: [/usr, /bin, /etc, /proc, /dev/urandom]
  read_write: [/tmp, /dev/null]
network_policies:
  api:
    endpoints: [{host: api.test, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /bin/probe}]
  web:
    endpoints: [{host: web, port: 8080}, {host: far, port: 8080}]
    binaries: [{path: /bin/probe}]
  machine:
    endpoints: [{host: host.docker.internal, port: 18080, protocol: tcp}]
    binaries: [{path: /bin/probe}]
`

// upstream starts a host that dockerd's namespace, and so its containers, reach.
func (e *engine) upstream(names ...string) (h *upstream.Host) {
	e.t.Helper()
	e.within(func() (err error) {
		h, err = upstream.Open(names...)
		return err
	})
	e.t.Cleanup(func() { e.within(h.Close) })
	return h
}

// Networks of Docker under policy: what is refused is seen not to arrive.
func TestDockerNetwork(t *testing.T) {
	w := newWorld(t, dockerPolicy)
	ca := filepath.Join(w.dir, "upstream.pem")
	e := startDocker(t, map[string]string{"openshell": dockerPolicy, "openshell-strict": testPolicy}, "--upstream-ca", ca)
	e.importImage("probe", w.rootfs)
	up := e.upstream("api.test", "other.test")
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	t.Run("upstream", func(t *testing.T) { e.toUpstream(t, up) })
	t.Run("names of containers", func(t *testing.T) { e.toContainers(t) })
	t.Run("the machine", func(t *testing.T) { e.toMachine(t) })
	t.Run("published ports", func(t *testing.T) { e.published(t, up) })
	e.nothingRemains()
}

// toMachine: the name of the machine that the policy has leads to the gateway of the
// container's network, or to the address that Docker gives it.
func (e *engine) toMachine(t *testing.T) {
	const port = 18080
	s := onMachine(t, func(f func() error) error { e.within(f); return nil }, port, "0.0.0.0")
	for _, tc := range []struct {
		name    string
		flags   []string
		to      string
		reached bool
	}{
		{"its name", nil, "host.docker.internal:18080", true},
		{"its name in the hosts file", []string{"--add-host", "host.docker.internal:host-gateway"}, "host.docker.internal:18080", true},
		{"another port", nil, "host.docker.internal:18081", false},
		{"another name", nil, "host.openshell.internal:18080", false},
		{"another name in the hosts file", []string{"--add-host", "other.test:host-gateway"}, "other.test:18080", false},
		{"no network", []string{"--network", "none"}, "host.docker.internal:18080", false},
	} {
		for _, argv := range [][]string{connectFor(tc.to), {"/bin/probe", "say", "tcp", tc.to, "c2VjcmV0"}} {
			before := s.served.Load()
			out, _ := e.sandbox("openshell", append(append(tc.flags, "probe"), argv...)...)
			if reached := s.served.Load() > before; reached != tc.reached || strings.Contains(out, "the machine") != tc.reached {
				t.Errorf("%s: %v printed %q, reached: %t", tc.name, argv, out, reached)
			}
		}
	}
}

func (e *engine) toUpstream(t *testing.T, up *upstream.Host) {
	hosts := []string{"--add-host", "api.test:" + up.Addr.String(), "--add-host", "other.test:" + up.Addr.String()}
	seen := 0
	for _, tc := range []struct {
		name, runtime, want string
		arrives             bool
		flags, argv         []string
	}{
		{"allowed", "openshell", "ok: HTTP/2.0 200 upstream saw GET /zen", true, nil, []string{"http", "GET", "https://api.test/zen"}},
		{"allowed, ignoring the proxy", "openshell", "ok: HTTP/2.0 200 upstream saw GET /zen", true, nil, []string{"direct", "GET", "https://api.test/zen"}},
		{"allowed, another user", "openshell", "ok: HTTP/2.0 200 ", true, []string{"--user", "1000"}, []string{"http", "GET", "https://api.test/zen"}},
		{"method", "openshell", "ok: HTTP/2.0 403 ", false, nil, []string{"http", "POST", "https://api.test/zen", "body"}},
		{"method, ignoring the proxy", "openshell", "ok: HTTP/2.0 403 ", false, nil, []string{"direct", "POST", "https://api.test/zen", "body"}},
		{"host", "openshell", "error: ", false, nil, []string{"http", "GET", "https://other.test/"}},
		{"host, ignoring the proxy", "openshell", "ok: HTTP/2.0 403 ", false, nil, []string{"direct", "GET", "https://other.test/"}},
		{"address", "openshell", "error: ", false, nil, []string{"dial", "tcp", up.Addr.String() + ":443"}},
		{"no network", "openshell", "ok: HTTP/2.0 502 ", false, []string{"--network", "none"}, []string{"direct", "GET", "https://api.test/zen"}},
		{"another policy", "openshell-strict", "ok: HTTP/2.0 403 ", false, nil, []string{"direct", "GET", "https://api.test/zen"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flags := append(tc.flags, hosts...)
			out, _ := e.sandbox(tc.runtime, append(append(flags, "probe", "/bin/probe"), tc.argv...)...)
			if !strings.HasPrefix(out, tc.want) {
				t.Errorf("printed %q, want %q…", out, tc.want)
			}
			all := up.Requests()
			if arrived := len(all) > seen; arrived != tc.arrives {
				t.Errorf("the upstream got %v", all[seen:])
			}
			seen = len(all)
		})
	}
}

func (e *engine) toContainers(t *testing.T) {
	e.must("network", "create", "near")
	e.must("network", "create", "distant")
	e.must("run", "--detach", "--name", "web", "--network", "near", "--runtime", "openshell", "probe", "/bin/probe", "serve", "8080")
	e.must("run", "--detach", "--name", "far", "--network", "distant", "--runtime", "openshell", "probe", "/bin/probe", "serve", "8080")
	e.must("run", "--detach", "--name", "client", "--network", "near", "--runtime", "openshell", "probe", "/bin/probe", "stay", "300s")
	e.must("run", "--detach", "--name", "strict", "--network", "near", "--runtime", "openshell-strict", "probe", "/bin/probe", "stay", "300s")
	for _, name := range []string{"web", "far"} {
		e.until(name+" serves", func() bool { return strings.Contains(e.must("logs", name), "serving") })
	}
	address := e.must("inspect", "--format", "{{.NetworkSettings.Networks.near.IPAddress}}", "web")
	seen := map[string]int{}
	steps := []struct {
		name, from, want, server string
		argv                     []string
	}{
		{"allowed", "client", "ok: HTTP/1.1 200 served GET /a", "web", []string{"http", "GET", "http://web:8080/a"}},
		{"allowed, ignoring the proxy", "client", "ok: HTTP/1.1 200 served GET /b", "web", []string{"direct", "GET", "http://web:8080/b"}},
		{"another port", "client", "ok: HTTP/1.1 403 ", "", []string{"direct", "GET", "http://web:8081/"}},
		{"the address instead of the name", "client", "ok: HTTP/1.1 403 ", "", []string{"direct", "GET", "http://" + address + ":8080/"}},
		{"over UDP", "client", "error: ", "", []string{"dial", "udp", address + ":8080"}},
		{"another policy", "strict", "ok: HTTP/1.1 403 ", "", []string{"http", "GET", "http://web:8080/"}},
		{"another policy, ignoring the proxy", "strict", "error: ", "", []string{"direct", "GET", "http://web:8080/"}},
		{"another policy, by address", "strict", "ok: HTTP/1.1 403 ", "", []string{"direct", "GET", "http://" + address + ":8080/"}},
		{"a network it is not in", "client", "ok: HTTP/1.1 502 ", "", []string{"http", "GET", "http://far:8080/"}},
		{"connect", "", "", "", nil},
		{"a network that was connected later", "client", "ok: HTTP/1.1 200 served GET /c", "far", []string{"direct", "GET", "http://far:8080/c"}},
		{"the first network still", "client", "ok: HTTP/1.1 200 served GET /d", "web", []string{"direct", "GET", "http://web:8080/d"}},
		{"nothing else in it", "client", "ok: HTTP/1.1 403 ", "", []string{"direct", "GET", "http://far:8081/"}},
	}
	for _, tc := range steps {
		if tc.from == "" {
			e.must("network", "connect", "distant", "client")
			continue
		}
		out, _ := e.docker(append([]string{"exec", tc.from, "/bin/probe"}, tc.argv...)...)
		if !strings.HasPrefix(out, tc.want) {
			t.Errorf("%s: printed %q, want %q…", tc.name, out, tc.want)
		}
		for _, server := range []string{"web", "far"} {
			now := strings.Count(e.must("logs", server), "got ")
			if arrived := now > seen[server]; arrived != (server == tc.server) {
				t.Errorf("%s: %s got %s", tc.name, server, e.must("logs", server))
			}
			seen[server] = now
		}
	}
	verdicts := map[string]int{}
	for _, r := range e.records("client") {
		verdicts[r.Verdict]++
		if r.Layer != "dns" && r.Binary != "/bin/probe" {
			t.Errorf("record names %q: %+v", r.Binary, r)
		}
	}
	if verdicts["allow"] == 0 || verdicts["deny"] == 0 {
		t.Errorf("records of the client: %v", verdicts)
	}
	e.must("rm", "--force", "web", "far", "client", "strict")
	e.must("network", "rm", "near", "distant")
}

// published: a port of a sandbox answers on the host, over TCP and UDP, and what
// asks it gets nothing else.
func (e *engine) published(t *testing.T, up *upstream.Host) {
	e.must("run", "--detach", "--name", "server", "--publish", "18080:8080/tcp", "--publish", "18080:8080/udp", "--runtime", "openshell", "probe", "/bin/probe", "serve", "8080")
	e.until("the server serves", func() bool { return strings.Contains(e.must("logs", "server"), "serving") })
	for _, addr := range []string{"127.0.0.1:18080", up.Gateway.String() + ":18080"} {
		// Now and then the first connection is reset, and the next is not; why is not
		// known: with docker-proxy's errors or the bridge's packets looked at (11 runs) it
		// did not happen, and docker-proxy said nothing.
		e.until(addr+" answers", func() (done bool) {
			e.within(func() error {
				c, err := net.DialTimeout("tcp", addr, 10*time.Second)
				if err != nil {
					t.Logf("TCP to %s: %v", addr, err)
					return nil
				}
				defer c.Close()
				client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
				resp, err := client.Get("http://server/published")
				if err != nil {
					t.Logf("HTTP to %s: %v", addr, err)
					return nil
				}
				defer resp.Body.Close()
				done = true
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "served GET /published" {
					t.Errorf("%s: %v, %q", addr, err, b)
				}
				return nil
			})
			return done
		})
		e.within(func() error {
			c, err := net.Dial("udp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 16)
			if _, err = io.WriteString(c, "ping"); err == nil {
				var n int
				if n, err = c.Read(b); string(b[:n]) != "ping" {
					t.Errorf("UDP to %s: %v, %q", addr, err, b[:n])
				}
			}
			return nil
		})
	}
	e.must("rm", "--force", "server")
	if _, err := os.Stat(e.logs); err != nil {
		t.Errorf("records are kept when the container is gone: %v", err)
	}
}
