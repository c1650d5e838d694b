// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// Table is the nftables table, family inet, that this package owns.
const Table = "openshell"

// Where the chains stand among others in the namespace. Redirection comes before
// Docker's DNAT of its resolver's address (-100), which would turn port 53 into
// another before it is seen; marks come before redirection, zones before connections
// are tracked (-200).
const (
	priorityZone     = -300
	priorityMark     = -160
	priorityRedirect = -150
	priorityFilter   = 0
)

// Marks of this package beside the proxy's. They differ in their last bits only,
// so that one routing rule knows them all.
const (
	// markInbound is on what answers somebody outside: it may leave.
	markInbound = proxyapi.Mark + 1
	// markAnswer is on what answers the proxy, and on what the kernel says to that
	// itself: it may leave. What begins a connection never has it, so no socket has.
	markAnswer = proxyapi.Mark - 1
	// markProbe asks the routing tables where an address really is; no packet
	// keeps it.
	markProbe = proxyapi.Mark + 2
	// markBase and markMask match the four.
	markBase = proxyapi.Mark &^ 3
	markMask = ^uint32(3)
)

// zoneOutside is the conntrack zone of connections that leave the namespace or come in.
const zoneOutside = 1

// rules replaces the table of the thread's namespace.
func rules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &table{c: c, t: &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}}
	there, err := c.ListTablesOfFamily(t.t.Family)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(there, func(o *nftables.Table) bool { return o.Name == Table }) {
		c.DelTable(t.t)
	}
	c.AddTable(t.t)
	t.zones()
	t.marks()
	t.redirect()
	t.filter()
	return c.Flush()
}

// table adds chains and rules.
type table struct {
	c     *nftables.Conn
	t     *nftables.Table
	chain *nftables.Chain
}

func (t *table) begin(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int, policy nftables.ChainPolicy) {
	t.chain = t.c.AddChain(&nftables.Chain{
		Name: name, Table: t.t, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &policy,
	})
}

func (t *table) add(parts ...[]expr.Any) {
	var e []expr.Any
	for _, p := range parts {
		e = append(e, p...)
	}
	t.c.AddRule(&nftables.Rule{Table: t.t, Chain: t.chain, Exprs: e})
}

// zones tracks what stays inside apart from what goes out or comes in. The workload's
// connections and queries have the same addresses as the proxy's to the same place, and
// sooner or later the same ports: within one zone, the one would be taken for the other
// for as long as that is remembered, so that a query of the proxy's is led to the proxy,
// and one of the workload's not. What stays inside keeps the default zone, which is
// where the kernel looks for what a connection's destination was (SO_ORIGINAL_DST).
func (t *table) zones() {
	t.begin("arrive", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityZone, nftables.ChainPolicyAccept)
	t.add(fromLo(expr.CmpOpNeq), setZone(zoneOutside))
	t.begin("leave", nftables.ChainTypeFilter, nftables.ChainHookOutput, priorityZone, nftables.ChainPolicyAccept)
	t.add(toLo(expr.CmpOpNeq), setZone(zoneOutside))
	// A UDP server's answers to the outside seem to stay inside until they are known
	// for what they are. Queries, and what answers them, do stay.
	t.add(proto(unix.IPPROTO_UDP), port(expr.CmpOpNeq, proxyapi.PortDomain), sourcePort(expr.CmpOpNeq, proxyapi.PortDNS), setZone(zoneOutside))
}

// marks makes answers to the outside routable. What arrives is marked, so that
// the kernel's own answers (fwmark_reflect) and accepted connections
// (tcp_fwmark_accept) carry the mark on; a UDP server's answers are marked as
// they leave, which has them routed again. What comes by lo loses its mark: where a
// name leads the proxy back into the container, the workload would accept a
// connection with the proxy's. Instead, packets to the proxy say where they started.
func (t *table) marks() {
	t.begin("inbound", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityMark, nftables.ChainPolicyAccept)
	t.add(fromLo(expr.CmpOpEq), setMark(0))
	t.add(fromLo(expr.CmpOpEq), proto(unix.IPPROTO_TCP), port(expr.CmpOpEq, proxyapi.PortProxy), markSource())
	t.add(fromLo(expr.CmpOpNeq), setMark(markInbound))
	t.add(fromLo(expr.CmpOpNeq), proto(unix.IPPROTO_TCP), flags(flagACK, flagACK), answers(), setMark(markAnswer))
	t.begin("answers", nftables.ChainTypeRoute, nftables.ChainHookOutput, priorityMark, nftables.ChainPolicyAccept)
	t.add(proto(unix.IPPROTO_UDP), unmarked(), answers(), setMark(markInbound))
}

// redirect leads queries and connections to the proxy. The only exception is the
// proxy's own mark: an accepted connection that the workload reconnects elsewhere
// (connect(2), AF_UNSPEC) still carries the inbound one.
func (t *table) redirect() {
	t.begin("redirect", nftables.ChainTypeNAT, nftables.ChainHookOutput, priorityRedirect, nftables.ChainPolicyAccept)
	t.add(marked(proxyapi.Mark), accept())
	// Queries first: even a resolver at a local address would ask others
	// (Docker's 127.0.0.11).
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		t.add(proto(p), port(expr.CmpOpEq, proxyapi.PortDomain), redirectTo(proxyapi.PortDNS))
	}
	t.add(local(destination, expr.CmpOpEq), accept())
	t.add(proto(unix.IPPROTO_TCP), redirectTo(proxyapi.PortProxy))
}

// filter stops whatever is not the proxy's, local or an answer.
func (t *table) filter() {
	t.begin("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, priorityFilter, nftables.ChainPolicyDrop)
	// A connection of the workload's own with the same two ends, the wrong way round and
	// never answered, would have this one taken for its answer: no address is
	// translated, and it is led to the workload.
	t.add(proto(unix.IPPROTO_TCP), opens(), answers(), reset())
	t.add(marked(proxyapi.Mark), accept())
	// Nor does anybody connect from somebody else's address (as below), or from or to
	// the one from which the proxy asks Docker's resolver.
	t.add(proto(unix.IPPROTO_TCP), opens(), local(source, expr.CmpOpNeq), reset())
	for _, offset := range []uint32{12, 16} {
		t.add(proto(unix.IPPROTO_TCP), opens(), addressAt(offset, proxyapi.LoopbackSource), reset())
	}
	// A socket may be bound to anybody's address (IPV6_FREEBIND) and would answer
	// the proxy's questions in the resolver's name.
	t.add(proto(unix.IPPROTO_UDP), local(source, expr.CmpOpNeq), reject())
	t.add(answers(), accept())
	// What the kernel answers itself on the proxy's connections (that one is closed, or
	// over) reflects the mark of what came in. No socket has it.
	t.add(marked(markAnswer), proto(unix.IPPROTO_TCP), noSYN(), known(), accept())
	// By lo only: a socket that is bound to another interface keeps to it, and what
	// was redirected would leave with the proxy's address on it.
	t.add(toLo(expr.CmpOpEq), local(destination, expr.CmpOpEq), accept())
	// IPv6 needs neighbours to be found before it can answer anybody.
	for _, kind := range []byte{neighbourSolicitation, neighbourAdvertisement} {
		t.add(proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}
	// Rejected, not dropped: who tries UDP or QUIC learns it at once.
	t.add(proto(unix.IPPROTO_TCP), reset())
	t.add(reject())
}

// ICMPv6 types of neighbour discovery (RFC 4861, 4.3 and 4.4).
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func equal(key expr.Any, data []byte) []expr.Any {
	return []expr.Any{key, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func marked(m uint32) []expr.Any {
	return equal(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, binaryutil.NativeEndian.PutUint32(m))
}

func unmarked() []expr.Any { return marked(0) }

func setMark(m uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(m)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

// markSource makes a mark of the port that a connection started from, whatever it was
// translated to. Not only its first packet has it: with SYN cookies, another one
// makes the connection.
func markSource() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyPROTOSRC, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xff, 0xff, 0, 0}, Xor: append([]byte{0, 0}, proxyapi.SourceTag[:]...),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func proto(p byte) []expr.Any {
	return equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{p})
}

func port(op expr.CmpOp, p uint16) []expr.Any { return portAt(2, op, p) }

func sourcePort(op expr.CmpOp, p uint16) []expr.Any { return portAt(0, op, p) }

func portAt(offset uint32, op expr.CmpOp, p uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(p)},
	}
}

func setZone(z uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint16(z)},
		&expr.Ct{Key: expr.CtKeyZONE, SourceRegister: true, Register: 1},
	}
}

func icmpType(kind byte) []expr.Any {
	return equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, []byte{kind})
}

func fromLo(op expr.CmpOp) []expr.Any { return lo(expr.MetaKeyIIF, op) }

func toLo(op expr.CmpOp) []expr.Any { return lo(expr.MetaKeyOIF, op) }

func lo(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(loIndex)}}
}

// The ends of a packet, one of which local looks at.
var (
	source      = expr.Fib{Register: 2, ResultADDRTYPE: true, FlagSADDR: true, FlagMARK: true}
	destination = expr.Fib{Register: 2, ResultADDRTYPE: true, FlagDADDR: true, FlagMARK: true}
)

// local compares with addresses of the namespace's own. Routing calls every address
// local to who has no mark, so the question is asked with one.
func local(end expr.Fib, op expr.CmpOp) []expr.Any {
	e := setMark(markProbe)
	e = append(e, &end)
	e = append(e, setMark(0)...)
	return append(e, &expr.Cmp{Op: op, Register: 2, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
}

// answers matches replies only: a socket that was accepted and then reconnected
// elsewhere starts a new connection, in the original direction.
func answers() []expr.Any {
	return append(equal(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, []byte{1}), known()...)
}

// known matches what belongs to a connection that has been answered.
func known() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

const flagSYN, flagACK = 0x02, 0x10

// noSYN matches TCP's packets that do not begin a connection, on either side.
func noSYN() []expr.Any { return flags(flagSYN, 0) }

// opens matches the first packet of a connection.
func opens() []expr.Any { return flags(flagSYN|flagACK, flagSYN) }

func flags(mask, value byte) []expr.Any {
	const offset = 13
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}},
	}
}

// addressAt matches an address in the header of IPv4.
func addressAt(offset uint32, a netip.Addr) []expr.Any {
	return append(equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{unix.NFPROTO_IPV4}),
		equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}, a.AsSlice())...)
}

func redirectTo(p uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(p)},
		&expr.Redir{RegisterProtoMin: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}
