// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// machineServer is a server of the machine that runs the sandbox: it says "the machine" and
// echoes. Its listeners have one port.
type machineServer struct {
	port   int
	served atomic.Int64
}

// onMachine listens at the addresses, in a network namespace that within enters. Port 0 is
// any port.
func onMachine(t *testing.T, within func(func() error) error, port int, addrs ...string) *machineServer {
	t.Helper()
	s := &machineServer{port: port}
	for _, a := range addrs {
		var l net.Listener
		err := within(func() (err error) {
			l, err = net.Listen("tcp", net.JoinHostPort(a, fmt.Sprint(s.port)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		s.port = l.Addr().(*net.TCPAddr).Port
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				s.served.Add(1)
				go func() {
					defer c.Close()
					_, _ = io.WriteString(c, "the machine\n")
					_, _ = io.Copy(c, c)
				}()
			}
		}()
	}
	return s
}

func here(f func() error) error { return f() }

// machinePolicy has the names of the machine in several ways. Its verbs are three ports: one
// that a name has, and two that only others have.
const machinePolicy = `version: 1
filesystem_policy: {read_only: [/bin, /usr, /lib, /lib64, /etc, /proc]}
network_policies:
  machine:
    binaries: [/bin/probe]
    endpoints:
      - {host: host.openshell.internal, port: %[1]d, protocol: tcp}
      - {host: host.containers.internal, port: %[1]d, protocol: tcp}
      - {host: 127.0.0.1, ports: [%[1]d, %[2]d]}
      - {host: "*.docker.internal", port: %[1]d}
      - {host: "**.openshell.internal", port: %[2]d}
      - {port: %[3]d, allowed_ips: [10.0.0.0/8, 172.16.0.0/12]}
      - {host: rebound.test, ports: [%[1]d, %[2]d]}
      - {host: localhost, ports: [%[1]d, %[2]d]}
`

// connectFor is the verb that asks the proxy for a tunnel and says something in it.
func connectFor(to string) []string {
	return []string{"/bin/probe", "say", "tcp", "127.0.0.1:15001", fmt.Sprintf(`CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\nc2VjcmV0`, to)}
}

// TestBypass_B23_TheMachine: a server of the machine is reached by a name of the machine that
// the policy has with its port, under `openshell run` at the machine's loopback, with an
// uplink at its gateway. Nothing else leads there.
func TestBypass_B23_TheMachine(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	for i, way := range []string{"host", "uplink"} {
		t.Run(way, func(t *testing.T) {
			within, addrs := here, []string{"127.0.0.1", "::1"}
			if way == "uplink" {
				within, addrs = up.Within, []string{up.Inside().String()}
			}
			named, other, third := onMachine(t, within, 0, addrs...), onMachine(t, within, 0, addrs...), onMachine(t, within, 0, addrs...)
			loopback := named
			if way == "uplink" {
				loopback = onMachine(t, here, 0, "127.0.0.1")
			}
			up.Name("rebound.test", func(int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
			b := newBox(t, boxOptions{up: up, uplink: way == "uplink", nth: i, policy: fmt.Sprintf(machinePolicy, named.port, other.port, third.port)})
			count := func() int64 {
				return named.served.Load() + other.served.Load() + third.served.Load() + loopback.served.Load()
			}
			for _, to := range []string{
				fmt.Sprintf("host.openshell.internal:%d", other.port), fmt.Sprintf("host.openshell.internal:%d", third.port), fmt.Sprintf("host.docker.internal:%d", named.port),
				fmt.Sprintf("a.host.openshell.internal:%d", named.port), fmt.Sprintf("127.0.0.1:%d", named.port), fmt.Sprintf("127.0.0.1:%d", other.port),
				fmt.Sprintf("localhost:%d", named.port), fmt.Sprintf("localhost:%d", other.port), fmt.Sprintf("[::1]:%d", named.port),
				fmt.Sprintf("0.0.0.0:%d", named.port), fmt.Sprintf("127.0.0.2:%d", named.port), fmt.Sprintf("rebound.test:%d", named.port), fmt.Sprintf("rebound.test:%d", other.port),
			} {
				for _, argv := range [][]string{connectFor(to), {"/bin/probe", "say", "tcp", to, "c2VjcmV0"}} {
					if out := b.exec(argv...); count() != 0 || strings.Contains(out, "the machine") {
						t.Errorf("%v printed %q, and the machine was reached %d times", argv, out, count())
					}
				}
			}
			for _, name := range []string{"host.openshell.internal", "host.containers.internal"} {
				for _, argv := range [][]string{connectFor(fmt.Sprintf("%s:%d", name, named.port)), {"/bin/probe", "say", "tcp", fmt.Sprintf("%s:%d", name, named.port), "c2VjcmV0"}} {
					before := named.served.Load()
					if out := b.exec(argv...); named.served.Load() == before || !strings.Contains(out, "the machine") {
						t.Errorf("%v printed %q, and the machine was not reached", argv, out)
					}
				}
			}
			if out := b.exec("/bin/probe", "lookup", "host.docker.internal"); strings.HasPrefix(out, "ok: ") {
				t.Errorf("a name that the policy does not have is %q", out)
			}
		})
	}
}

// TestBypass_B23_OwnNames (issue 11, point 6): what programs ask the proxy for at the
// container's own names reaches the container's own servers, never the proxy's ports and
// never a server at the same port of the machine.
func TestBypass_B23_OwnNames(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	for i, way := range []string{"host", "uplink"} {
		t.Run(way, func(t *testing.T) {
			both, alone := onMachine(t, here, 0, "127.0.0.1", "::1"), onMachine(t, here, 0, "127.0.0.1", "::1")
			b := newBox(t, boxOptions{
				up: up, uplink: way == "uplink", nth: i, argv: []string{"/bin/probe", "listen", fmt.Sprintf(":%d", both.port)},
				spec: func(spec map[string]any) { spec["hostname"] = "box" },
			})
			own := []string{"localhost", "a.localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "box"}
			if way == "uplink" {
				own = append(own, b.addr.String())
			}
			waitFor(t, "the container's server listens", func() bool {
				return strings.Contains(b.exec("/bin/probe", "say", "tcp", fmt.Sprintf("127.0.0.1:%d", both.port), "c2VjcmV0"), "c2VjcmV0")
			})
			for _, name := range own {
				if out := b.exec(connectFor(fmt.Sprintf("%s:%d", name, both.port))...); !strings.Contains(out, " 200 ") || !strings.Contains(out, "c2VjcmV0") {
					t.Errorf("%s: the container's server was not reached: %q", name, out)
				}
				for _, port := range []int{alone.port, 15001, 15053, 53} {
					if out := b.exec(connectFor(fmt.Sprintf("%s:%d", name, port))...); strings.Contains(out, " 200 ") {
						t.Errorf("%s:%d: %q", name, port, out)
					}
				}
			}
			if n := both.served.Load() + alone.served.Load(); n != 0 {
				t.Errorf("the machine's loopback got %d connections", n)
			}
			// The control: the machine's servers answer who reaches them.
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", both.port))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			waitFor(t, "the machine's server counts", func() bool { return both.served.Load() == 1 })
		})
	}
}
