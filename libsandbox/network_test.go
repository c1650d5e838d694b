// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

func TestParseHosts(t *testing.T) {
	text := "127.0.0.1 localhost api.test\n10.0.0.1\tApi.Test alias # not.this\n# 10.0.0.2 no\n10.0.0.3\nx y\n" +
		"10.0.0.4 " + strings.Repeat("a b ", 1<<15) + "\n::ffff:10.0.0.5 mapped api.test\n"
	want := map[string][]netip.Addr{
		"api.test": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.5")},
		"alias":    {netip.MustParseAddr("10.0.0.1")}, "mapped": {netip.MustParseAddr("10.0.0.5")},
	}
	got := parseHosts([]byte(text))
	delete(got, "a")
	delete(got, "b")
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// FuzzParseHosts: every name has its canonical spelling, and no address is the loopback.
func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n10.0.0.1\tApi.Test alias # comment\nfe80::1%eth0 x\n"))
	f.Add([]byte("\x00 \xff\n::ffff:127.0.0.1 a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, addrs := range parseHosts(text) {
			if canonical, err := policy.NormalizeHost(name); err != nil || canonical != name {
				t.Errorf("%q: %v", name, err)
			}
			for _, a := range addrs {
				if a.IsLoopback() || a.Is4In6() || !a.IsValid() {
					t.Errorf("%q leads to %s", name, a)
				}
			}
		}
	})
}

// TestOwnNames (issue 11, point 6): names of the loopback, and names on a line with the host
// name, are the container's own.
func TestOwnNames(t *testing.T) {
	text := "127.0.0.1 localhost alias\n::1 localhost\n0.0.0.0 blocked.test\n172.17.0.2\tBox.test box\n10.0.0.9 other.test\n"
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	want := map[string][]netip.Addr{
		"localhost": addrs("127.0.0.1", "::1"), "alias": addrs("127.0.0.1"), "blocked.test": addrs("0.0.0.0"),
		"box.test": addrs("172.17.0.2"), "box": addrs("172.17.0.2"),
	}
	if d := cmp.Diff(want, ownNames([]byte(text), "box"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	delete(want, "box.test")
	want["box"] = addrs("127.0.0.1", "::1")
	if d := cmp.Diff(want, ownNames([]byte(strings.ReplaceAll(text, "172.17.0.2", "# ")), "box"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if own := ownNames([]byte("10.0.0.1 a b\n"), ""); len(own) > 0 {
		t.Errorf("without a host name: %v", own)
	}
}

// TestNoProxy: NO_PROXY has the container's own names, the host name first, and is bounded.
func TestNoProxy(t *testing.T) {
	dir := t.TempDir()
	text := "127.0.0.1 localhost alias\n172.17.0.2 box\n"
	for i := range 2 * maxNoProxy {
		text += fmt.Sprintf("0.0.0.0 %d.blocked.test\n", i)
	}
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Hostname: "box", Root: &specs.Root{Path: dir}, Mounts: []specs.Mount{{Destination: "/etc/hosts", Source: file}}}
	got, err := noProxy(spec)
	if err != nil || len(got) != maxNoProxy || got[0] != "box" || got[1] != "172.17.0.2" {
		t.Errorf("%v, %v", got, err)
	}
	spec.Mounts = nil
	if got, err := noProxy(spec); err != nil || !slices.Equal(got, []string{"box"}) {
		t.Errorf("without a hosts file: %v, %v", got, err)
	}
}

// FuzzParseResolvers: there are at most maxResolvers, and each has an address.
func FuzzParseResolvers(f *testing.F) {
	f.Add([]byte("# none\nnameserver 10.0.0.1\nnameserver\nnameserver fe80::1%eth0\noptions ndots:5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		out := parseResolvers(text)
		if len(out) > maxResolvers {
			t.Errorf("%d resolvers", len(out))
		}
		for _, a := range out {
			if !a.IsValid() || a.Port() != 53 {
				t.Errorf("resolver %s", a)
			}
		}
	})
}

// TestHostNetworkIsRefused: the network namespace of the runtime is refused by its field.
func TestHostNetworkIsRefused(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/proc/thread-self/ns/net"}}}}
	before := openFiles(t)
	var refusal *plan.Refusal
	if _, err := newNetwork(nil, spec); !errors.As(err, &refusal) || refusal.Field != plan.FieldNetwork {
		t.Errorf("%v", err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
}

// TestNetnsOf: the namespace that config.json has, and who makes it.
func TestNetnsOf(t *testing.T) {
	pid, user := specs.LinuxNamespace{Type: specs.PIDNamespace}, specs.LinuxNamespace{Type: specs.UserNamespace}
	named, unnamed := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/netns/a"}, specs.LinuxNamespace{Type: specs.NetworkNamespace}
	for _, tc := range []struct {
		name  string
		list  []specs.LinuxNamespace
		index int
		by    maker
	}{
		{"an engine's", []specs.LinuxNamespace{pid, named}, 1, makerEngine},
		{"an engine's, with a user namespace", []specs.LinuxNamespace{named, user}, 0, makerEngine},
		{"the runtime's", []specs.LinuxNamespace{unnamed, pid}, 0, makerRuntime},
		{"the container's", []specs.LinuxNamespace{user, unnamed}, 1, makerContainer},
	} {
		if index, by, err := netnsOf(tc.list); index != tc.index || by != tc.by || err != nil {
			t.Errorf("%s: %d, %d, %v", tc.name, index, by, err)
		}
	}
	var refusal *plan.Refusal
	if _, _, err := netnsOf([]specs.LinuxNamespace{pid, user}); !errors.As(err, &refusal) || refusal.Field != plan.FieldNetwork {
		t.Errorf("without one: %v", err)
	}
}

// TestNewNetworkInUserNamespace: nothing is captured before the container's process has
// made its namespace, and spec stays as it is.
func TestNewNetworkInUserNamespace(t *testing.T) {
	list := []specs.LinuxNamespace{{Type: specs.UserNamespace}, {Type: specs.NetworkNamespace}}
	spec := &specs.Spec{Linux: &specs.Linux{Namespaces: list}}
	n, err := newNetwork(&proxyapi.Config{}, spec)
	if err != nil {
		t.Fatal(err)
	}
	if n.namespace != nil || spec.Linux.Namespaces[1].Path != "" {
		t.Errorf("namespace %v, config.json %+v", n.namespace, spec.Linux.Namespaces)
	}
	n.release() // does not wait for a capture that has not begun
}

// TestNewNetworkWithoutNamespace: a namespace that cannot be opened is an error that names
// the field, and leaves no file open.
func TestNewNetworkWithoutNamespace(t *testing.T) {
	before := openFiles(t)
	spec := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/no/such"}}}}
	if _, err := newNetwork(nil, spec); err == nil || !strings.HasPrefix(err.Error(), "config.json: linux.namespaces.network: ") {
		t.Errorf("error %v", err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
}

// TestWaitCapturedComparesNamespaces: a container in another namespace than the captured
// one is refused.
func TestWaitCapturedComparesNamespaces(t *testing.T) {
	n := &network{captured: make(chan struct{})}
	close(n.captured)
	for file, want := range map[string]string{"/proc/self/ns/net": "", "/proc/self/ns/ipc": "the container is not in the network namespace that was captured for it"} {
		var err error
		if n.namespace, err = os.Open(file); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := n.waitCaptured(os.Getpid()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s captured: %q, want %q", file, got, want)
		}
		n.release()
	}
}

// TestReadNames: the proxy learns the names and resolvers of the container's own files,
// and the host's resolvers where the container's are Docker's.
func TestReadNames(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "etc/hosts", "127.0.0.1 localhost\n10.0.0.7 box\n10.0.0.9 db.test\n")
	writeFile(t, dir, "etc/resolv.conf", "nameserver 10.0.0.53\n")
	root, err := openRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	n := &network{config: &proxyapi.Config{Egress: proxyapi.EgressNamespace}, hostname: "box"}
	var c proxyapi.Container
	if err := n.readNames(&c, root); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts["db.test"]) != 1 || len(c.Own["box"]) != 1 || len(c.Own["db.test"]) != 0 || !slices.Equal(c.Resolvers, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53")}) {
		t.Errorf("%+v", c)
	}
	docker, host := netip.MustParseAddrPort("127.0.0.11:53"), netip.MustParseAddrPort("192.0.2.1:53")
	got := withHostResolvers([]netip.AddrPort{docker}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), host})
	if want := []netip.AddrPort{docker, host}; !slices.Equal(got, want) {
		t.Errorf("resolvers %v, want %v", got, want)
	}
}

// TestReadNamesIsBounded: a large file of the image is an error. With the egress of the host
// its resolv.conf is not read.
func TestReadNamesIsBounded(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "etc/resolv.conf", strings.Repeat("#", maxHosts+1))
	root, err := openRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for egress, want := range map[proxyapi.Egress]bool{proxyapi.EgressNamespace: false, proxyapi.EgressHost: true} {
		n := &network{config: &proxyapi.Config{Egress: egress}}
		if err := n.readNames(&proxyapi.Container{}, root); (err == nil) != want {
			t.Errorf("egress %s: %v", egress, err)
		}
	}
}
