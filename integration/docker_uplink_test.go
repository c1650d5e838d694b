// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"openshell.dev/runtime/internal/testenv"
)

// uplinkAddr is the n-th address of the link between this machine and the
// namespace of a dockerd that has a way out: a /30 of TEST-NET-2, which nobody
// routes, of this process's own.
func uplinkAddr(n byte) net.IP { return net.IPv4(198, 51, 100, byte(os.Getpid()%64)*4+n) }

// uplink gives dockerd's namespace this machine's way out, by address translation.
func (e *engine) uplink() {
	e.t.Helper()
	name := fmt.Sprintf("osd%d", os.Getpid())
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		e.t.Fatal(err)
	}
	defer own.Close()
	inner := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink0"}, PeerName: name, PeerNamespace: netlink.NsFd(own.Fd())}
	address := func(link netlink.Link, n byte) error {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: uplinkAddr(n), Mask: net.CIDRMask(30, 32)}}
		return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	}
	e.within(func() error {
		if err := netlink.LinkAdd(inner); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		return address(inner, 2)
	})
	here, err := netlink.LinkByName(name)
	if err == nil {
		err = address(here, 1)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	// It takes the other end along.
	e.t.Cleanup(func() {
		if l, err := netlink.LinkByName(name); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	e.within(func() error {
		return netlink.RouteAdd(&netlink.Route{LinkIndex: inner.Attrs().Index, Gw: uplinkAddr(1)})
	})
	const forward = "/proc/sys/net/ipv4/ip_forward"
	before, err := os.ReadFile(forward)
	if err == nil {
		err = os.WriteFile(forward, []byte("1"), 0)
	}
	if err != nil {
		testenv.Lacks(e.t, testenv.Docker, err)
	}
	e.t.Cleanup(func() { _ = os.WriteFile(forward, before, 0) })
	for _, rule := range []string{
		"-t nat %s POSTROUTING -s " + uplinkAddr(2).String() + " -j MASQUERADE",
		"-t filter %s FORWARD -i " + name + " -j ACCEPT",
		"-t filter %s FORWARD -o " + name + " -j ACCEPT",
	} {
		iptables := func(verb string) error {
			out, err := exec.Command("iptables", append([]string{"-w"}, strings.Fields(fmt.Sprintf(rule, verb))...)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("iptables: %w: %s", err, out)
			}
			return nil
		}
		if err := iptables("-I"); err != nil {
			e.t.Fatal(err)
		}
		e.t.Cleanup(func() {
			if err := iptables("-D"); err != nil {
				e.t.Error(err)
			}
		})
	}
}

// The same clients in a container of Docker, on its own bridge and on a network
// with Docker's resolver.
func TestDockerRealClients(t *testing.T) {
	rootfs := debian(t)
	r := findRegistries(t, rootfs)
	ca := filepath.Join(t.TempDir(), "upstream.pem")
	e := startDocker(t, map[string]string{"openshell": r.policy()}, "--upstream-ca", ca)
	e.uplink()
	e.importImage("debian", rootfs)
	up := e.upstream("api.test", "git.test", "other.test")
	serveGit(t, up)
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	e.must("network", "create", "named")
	for i, in := range realInputs(r) {
		t.Run(in.name, func(t *testing.T) {
			before := len(up.Requests())
			args := []string{
				"run", "--name", "box", "--runtime", "openshell", "--network", []string{"bridge", "named"}[i%2], "-v", r.goroot + ":/usr/local/go:ro",
				"-e", "PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			}
			for _, host := range []string{"api.test", "git.test", "other.test"} {
				args = append(args, "--add-host", host+":"+up.Addr.String())
			}
			out, status := e.docker(append(args, "debian", "/bin/sh", "-c", in.script)...)
			in.check(t, r, out, status, e.records("box"), up.Requests()[before:])
			e.must("rm", "--force", "box")
		})
	}
	e.must("network", "rm", "named")
	e.nothingRemains()
}
