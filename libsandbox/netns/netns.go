// SPDX-License-Identifier: Apache-2.0

// Package netns closes a container's network namespace: what starts inside it
// reaches the namespace itself and nothing else. Connections that came in from
// outside (published ports, probes) are answered.
//
// It uses netlink only and executes nothing. It does not hide that the namespace
// exists, and it does not filter what comes in.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Table is the nftables table, family inet, that this package owns.
const Table = "openshell"

// priority puts the chain before Docker's own DNAT of its resolver's address
// (-100), which would otherwise turn port 53 into another before it is seen.
const priority = -150

// ErrHost is returned for the caller's own namespace: closing it would cut the
// host off, and a container in it is no sandbox.
var ErrHost = errors.New("the container shares the runtime's network namespace")

// Close applies the rules to the namespace ns (an open /proc/PID/ns/net). It
// may be called again: the table is replaced in one transaction.
func Close(ns *os.File) error {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("look at own network namespace: %w", err)
	}
	st, err := ns.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if os.SameFile(own, st) {
		return ErrHost
	}
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine: it never comes back to the host's
		// namespace half way.
		runtime.LockOSThread()
		done <- within(ns)
	}()
	return <-done
}

func within(ns *os.File) error {
	if err := netns.Set(netns.NsHandle(ns.Fd())); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := apply(); err != nil {
		return fmt.Errorf("apply nftables rules: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

func apply() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	drop := nftables.ChainPolicyDrop
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	// Adding before deleting makes the deletion valid the first time, too.
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRef(priority), Policy: &drop,
	})
	add := func(e ...expr.Any) { c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: e}) }

	// Queries go to nobody, not even to a resolver at a local address, which
	// would ask others (Docker's 127.0.0.11).
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		add(
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
			unreachable(),
		)
	}
	add(
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
	// Replies only: a socket that was accepted and then reconnected elsewhere
	// starts a new connection, in the original direction.
	add(
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
	// IPv6 needs neighbours to be found before it can answer anybody.
	for _, kind := range []byte{neighbourSolicitation, neighbourAdvertisement} {
		add(
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}},
			&expr.Verdict{Kind: expr.VerdictAccept},
		)
	}
	add(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	)
	// Rejected, not dropped: who tries UDP or QUIC learns it at once.
	add(unreachable())
	return c.Flush()
}

// ICMPv6 types of neighbour discovery (RFC 4861, 4.3 and 4.4).
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

func unreachable() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}
}
