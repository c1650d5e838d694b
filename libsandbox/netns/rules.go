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

// Table is the name of this package's nftables table, of family inet.
const Table = "openshell"

// The priorities of the chains. Redirection comes before Docker's DNAT of its resolver's
// address (-100), which changes port 53 to another one. Marks are set before redirection,
// and zones before connection tracking (-200).
const (
	priorityZone     = -300
	priorityMark     = -160
	priorityRedirect = -150
	priorityFilter   = 0
)

// The marks of this package and the proxy. They differ only in the last bits, so that one
// routing rule matches all of them.
const (
	// markInbound is the mark of replies to clients outside. They may leave.
	markInbound = proxyapi.Mark + 1
	// markReply is the mark of replies to the proxy, and of the kernel's own answers to
	// them. They may leave. The first packet of a connection never has it, so no socket has
	// it.
	markReply = proxyapi.Mark - 1
	// markProbe is the mark for looking up where an address really is. No packet keeps it.
	markProbe = proxyapi.Mark + 2
	// markBase and markMask match all four marks.
	markBase = proxyapi.Mark &^ 3
	markMask = ^uint32(3)
)

// zoneOutside is the conntrack zone of connections that leave the namespace or come from
// outside.
const zoneOutside = 1

// rules replaces the table in the namespace of the calling thread.
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

// table builds chains and rules.
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

// zones puts loopback and external traffic into separate conntrack zones. The workload's
// connections and queries have the same addresses as the proxy's to the same destination,
// and sooner or later the same ports. In one zone an entry of one would match the other
// until it expires: a query of the proxy would be redirected to the proxy, and one of the
// workload would not. Loopback traffic keeps the default zone, because the kernel looks
// there for a connection's original destination (SO_ORIGINAL_DST).
func (t *table) zones() {
	t.begin("arrive", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityZone, nftables.ChainPolicyAccept)
	t.add(fromLo(expr.CmpOpNeq), setZone(zoneOutside))
	t.begin("leave", nftables.ChainTypeFilter, nftables.ChainHookOutput, priorityZone, nftables.ChainPolicyAccept)
	t.add(toLo(expr.CmpOpNeq), setZone(zoneOutside))
	// A UDP server's replies to the outside are routed to lo until they are recognized as
	// replies. Queries and the replies to them do stay on lo.
	t.add(proto(unix.IPPROTO_UDP), port(expr.CmpOpNeq, proxyapi.PortDomain), sourcePort(expr.CmpOpNeq, proxyapi.PortDNS), setZone(zoneOutside))
}

// marks makes replies to the outside routable. Incoming packets are marked, so that the
// kernel's own answers (fwmark_reflect) and accepted connections (tcp_fwmark_accept)
// inherit the mark. A UDP server's replies are marked when they leave, which makes the
// kernel route them again. Packets from lo lose their mark: if a name leads the proxy back
// into the container, the workload would otherwise accept a connection that has the proxy's
// mark. Packets to the proxy instead get a mark with their source port.
func (t *table) marks() {
	t.begin("inbound", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityMark, nftables.ChainPolicyAccept)
	t.add(fromLo(expr.CmpOpEq), setMark(0))
	t.add(fromLo(expr.CmpOpEq), proto(unix.IPPROTO_TCP), port(expr.CmpOpEq, proxyapi.PortProxy), markSource())
	t.add(fromLo(expr.CmpOpNeq), setMark(markInbound))
	t.add(fromLo(expr.CmpOpNeq), proto(unix.IPPROTO_TCP), flags(flagACK, flagACK), isReply(), setMark(markReply))
	t.begin("answers", nftables.ChainTypeRoute, nftables.ChainHookOutput, priorityMark, nftables.ChainPolicyAccept)
	t.add(proto(unix.IPPROTO_UDP), unmarked(), isReply(), setMark(markInbound))
}

// redirect redirects queries and connections to the proxy. Only packets with the proxy's
// own mark are excluded. The inbound mark is not: a connection that the workload accepted
// and then reconnected elsewhere (connect(2), AF_UNSPEC) still has it.
func (t *table) redirect() {
	t.begin("redirect", nftables.ChainTypeNAT, nftables.ChainHookOutput, priorityRedirect, nftables.ChainPolicyAccept)
	t.add(marked(proxyapi.Mark), accept())
	// Queries come first: a resolver at a local address, as Docker's at 127.0.0.11, would
	// forward them.
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		t.add(proto(p), port(expr.CmpOpEq, proxyapi.PortDomain), redirectTo(proxyapi.PortDNS))
	}
	t.add(local(destination, expr.CmpOpEq), accept())
	t.add(proto(unix.IPPROTO_TCP), redirectTo(proxyapi.PortProxy))
}

// filter stops everything except the proxy's traffic, local traffic and replies.
func (t *table) filter() {
	t.begin("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, priorityFilter, nftables.ChainPolicyDrop)
	// If the workload had opened a connection between the same two addresses in the other
	// direction, which nobody answered, the kernel would take this one for its reply: it
	// would translate no address and deliver the packets to the workload.
	t.add(proto(unix.IPPROTO_TCP), isSYN(), isReply(), reset())
	t.add(marked(proxyapi.Mark), accept())
	// Nobody may connect from a foreign address (see below), or from or to the address from
	// which the proxy queries Docker's resolver.
	t.add(proto(unix.IPPROTO_TCP), isSYN(), local(source, expr.CmpOpNeq), reset())
	for _, offset := range []uint32{12, 16} {
		t.add(proto(unix.IPPROTO_TCP), isSYN(), addressAt(offset, proxyapi.LoopbackSource), reset())
	}
	// A socket may be bound to any address (IPV6_FREEBIND), and could answer the proxy's
	// queries with the resolver's address.
	t.add(proto(unix.IPPROTO_UDP), local(source, expr.CmpOpNeq), reject())
	t.add(isReply(), accept())
	// The kernel's own answers on connections of the proxy that are closed have the mark of
	// the packet that they answer. No socket has this mark.
	t.add(marked(markReply), proto(unix.IPPROTO_TCP), isNotSYN(), isEstablished(), accept())
	// Only over lo: a socket that is bound to another interface uses that one, and a
	// redirected packet would leave there with the proxy's address.
	t.add(toLo(expr.CmpOpEq), local(destination, expr.CmpOpEq), accept())
	// IPv6 needs neighbour discovery before it can answer.
	for _, kind := range []byte{neighbourSolicitation, neighbourAdvertisement} {
		t.add(proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}
	// Packets are rejected, not dropped, so that programs that try UDP or QUIC notice it at
	// once.
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

// markSource sets a mark that contains the source port of the connection before any
// translation. All its packets get it, because with SYN cookies not the first one creates
// the connection.
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

// The two ends of a packet, for [local].
var (
	source      = expr.Fib{Register: 2, ResultADDRTYPE: true, FlagSADDR: true, FlagMARK: true}
	destination = expr.Fib{Register: 2, ResultADDRTYPE: true, FlagDADDR: true, FlagMARK: true}
)

// local compares an end with the namespace's own addresses. For packets without a mark,
// routing takes every address for local, so the lookup is done with a mark.
func local(end expr.Fib, op expr.CmpOp) []expr.Any {
	e := setMark(markProbe)
	e = append(e, &end)
	e = append(e, setMark(0)...)
	return append(e, &expr.Cmp{Op: op, Register: 2, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
}

// isReply matches only replies. A socket that was accepted and then reconnected elsewhere
// starts a new connection, in the original direction.
func isReply() []expr.Any {
	return append(equal(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, []byte{1}), isEstablished()...)
}

// isEstablished matches packets of connections that have been answered.
func isEstablished() []expr.Any {
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

// isNotSYN matches TCP packets that do not open a connection, from either side.
func isNotSYN() []expr.Any { return flags(flagSYN, 0) }

// isSYN matches the first packet of a connection.
func isSYN() []expr.Any { return flags(flagSYN|flagACK, flagSYN) }

func flags(mask, value byte) []expr.Any {
	const offset = 13
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}},
	}
}

// addressAt matches an address in the IPv4 header.
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
