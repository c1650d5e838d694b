// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Every kind of socket and connection leads to the program, its digest, and its
// parents up to the container's first process.
func TestResolve(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	self, err := filepath.EvalSymlinks(c.self)
	must(t, err)
	program := c.install("/opt/allowed", "")
	b, err := os.ReadFile(c.path(program))
	must(t, err)
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	for _, tc := range []struct {
		name      string
		argv      []string
		ancestors []string
	}{
		{"IPv4", []string{program, "role", "dial", c.addr4}, []string{self}},
		{"IPv6", []string{program, "role", "dial", c.addr6}, []string{self}},
		{"IPv4 in an IPv6 socket", []string{program, "role", "mapped", c.addr4}, []string{self}},
		{"bound to an interface", []string{program, "role", "bound", c.addr4}, []string{self}},
		{"one direction closed", []string{program, "role", "halfclose", c.addr4}, []string{self}},
		{"a thread's own descriptors", []string{program, "role", "thread", c.addr4}, []string{self}},
		{"first thread ended", []string{program, "role", "leaderless", c.addr4}, []string{self}},
		{"with a parent", []string{self, "role", "parent", program, "parent", program, "dial", c.addr4}, []string{program, self, self}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := one(t, r, c.client(tc.argv...))
			if got.Pid == 0 || len(got.Cmdline) < 4 {
				t.Errorf("pid %d, command line %q", got.Pid, got.Cmdline)
			}
			got.Pid, got.Cmdline = 0, nil
			want := Process{Binary: program, Digest: digest, Ancestors: tc.ancestors}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// A redirected connection is found by what the client dialled, and not by where it
// ended up.
func TestResolveRedirected(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	proxy := netip.MustParseAddrPort(c.listen("tcp4", "0.0.0.0:0"))
	dialled := "127.9.9.9:443" // nothing listens there
	c.inside(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		table := nft.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyIPv4})
		chain := nft.AddChain(&nftables.Chain{
			Name: "output", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
		})
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(443)},
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(proxy.Port())},
			&expr.Redir{RegisterProtoMin: 1},
		}})
		return nft.Flush()
	})
	conn := c.client(c.self, "role", "dial", dialled)
	one(t, r, conn)
	if ps, err := r.Resolve(conn.local, netip.AddrPortFrom(conn.remote.Addr(), proxy.Port())); !errors.Is(err, ErrNoSocket) {
		t.Errorf("by the redirected address: %v, %v; want ErrNoSocket", ps, err)
	}
}

func TestResolveNothing(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	conn := c.client(c.self, "role", "dial", c.addr4)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, tc := range []struct {
		name          string
		local, remote netip.AddrPort
	}{
		{"another local port", at("127.0.0.1:1"), conn.remote},
		{"another local address", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), conn.local.Port()), conn.remote},
		{"another remote port", conn.local, at("127.0.0.1:1")},
		{"the other way round: the server is no process of the container", conn.remote, conn.local},
		{"a listening socket", at(c.addr4), at("127.0.0.1:9")},
		{"two families", conn.local, at(c.addr6)},
		{"no addresses", netip.AddrPort{}, netip.AddrPort{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if ps, err := r.Resolve(tc.local, tc.remote); err == nil {
				t.Errorf("resolved to %+v", ps)
			}
		})
	}
}

// Who is not of the container is not found, also if it is in the same network
// namespace.
func TestResolveStranger(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	var conn net.Conn
	c.inside(func() (err error) {
		conn, err = net.Dial("tcp", c.addr4)
		return err
	})
	defer conn.Close()
	local, remote := netip.MustParseAddrPort(conn.LocalAddr().String()), netip.MustParseAddrPort(c.addr4)
	if ps, err := r.Resolve(local, remote); !errors.Is(err, ErrNoHolder) {
		t.Errorf("%+v, %v; want ErrNoHolder", ps, err)
	}
}

func TestResolveAfterTheEnd(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	conn := c.client(c.self, "role", "dial", c.addr4)
	c.kill()
	if ps, err := r.Resolve(conn.local, conn.remote); !errors.Is(err, ErrEnded) {
		t.Errorf("%+v, %v; want ErrEnded", ps, err)
	}
}

func TestAliases(t *testing.T) {
	c := newContainer(t)
	r := c.open()
	c.install("/opt/real/tool", "")
	must(t, os.Symlink("/opt/real", c.path("/opt/dir")))
	must(t, os.Symlink("../opt/dir/tool", c.path("/usr/tool")))
	must(t, os.Symlink("../../../../../../opt/real/tool", c.path("/usr/out")))
	must(t, os.Symlink("/opt/loop", c.path("/opt/loop")))
	got := r.Aliases([]string{
		"/opt/real/tool", "/opt/dir/tool", "/usr/tool", "/usr/out", "/opt/loop", "/nowhere", "/opt", "opt/dir/tool",
		"/proc/1/root/opt/real/tool", "/opt/dir/../real/tool", "", "/opt/\x00",
	})
	want := map[string][]string{
		"/opt/dir/tool": {"/opt/real/tool"}, "/usr/tool": {"/opt/real/tool"}, "/usr/out": {"/opt/real/tool"},
		"/opt/dir/../real/tool": {"/opt/real/tool"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestOpenRefuses(t *testing.T) {
	c := newContainer(t)
	for _, tc := range []struct {
		name string
		c    Config
	}{
		{"no namespace", Config{Pid: c.pid}},
		{"no process", Config{Netns: c.nsFile}},
		{"a process of the host's namespaces", Config{Pid: os.Getpid(), Netns: c.nsFile}},
	} {
		if r, err := Open(tc.c); err == nil {
			t.Errorf("%s: opened", tc.name)
			_ = r.Close()
		}
	}
}

func TestSame(t *testing.T) {
	p := Process{Pid: 1, Binary: "/a", Digest: "sha256:1", Ancestors: []string{"/b"}, Cmdline: []string{"a"}}
	for _, tc := range []struct {
		name   string
		change func(*Process)
		want   bool
	}{
		{"pid and arguments", func(p *Process) { p.Pid, p.Cmdline = 2, nil }, true},
		{"binary", func(p *Process) { p.Binary = "/c" }, false},
		{"digest", func(p *Process) { p.Digest = "sha256:2" }, false},
		{"ancestors", func(p *Process) { p.Ancestors = append(slices.Clone(p.Ancestors), "/c") }, false},
	} {
		q := p
		if tc.change(&q); p.same(q) != tc.want {
			t.Errorf("%s: same is %v", tc.name, !tc.want)
		}
	}
}
