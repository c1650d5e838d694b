// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// accept refuses by the header alone what is no plain question.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcode = 1 << 15, 0xf << 11
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case h.Bits&opcode != dns.OpcodeQuery<<11:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount != 0 || h.Arcount > 1:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// answer answers one message from asker that accept accepted.
func (s *Server) answer(asker net.Addr, req *dns.Msg) *dns.Msg {
	// The library takes a header that counts a question where there is none.
	if len(req.Question) != 1 {
		return new(dns.Msg).SetRcodeFormatError(req)
	}
	reply := new(dns.Msg).SetReply(req)
	reply.RecursionAvailable = true // some resolvers take an answer without it for a failure
	reply.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		reply.SetEdns0(MaxUDP, false)
		if opt.Version() != 0 {
			reply.Rcode = dns.RcodeBadVers
			return reply
		}
	}
	v := s.c.View(asker)
	if v == nil {
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	q := req.Question[0]
	name, rcode, found := s.resolve(v, q)
	reply.Rcode = rcode
	if found != nil {
		reply.Answer = []dns.RR{found}
	} else if rcode == dns.RcodeSuccess || rcode == dns.RcodeNameError {
		reply.Ns = []dns.RR{soa}
	}
	v.c.Record(name, dns.Type(q.Qtype).String(), rcode == dns.RcodeSuccess)
	return reply
}

// resolve returns the name as it is judged, and its one record in the view or none.
func (s *Server) resolve(v *View, q dns.Question) (name string, rcode int, found dns.RR) {
	name, ok := s.normalize(q.Name)
	if !ok || q.Qclass != dns.ClassINET {
		return name, dns.RcodeRefused, nil
	}
	if addr, ok := reverse(name); ok && q.Qtype == dns.TypePTR {
		target, ok := v.Name(addr)
		if addr.IsLoopback() {
			target, ok = "localhost", true
		}
		if !ok {
			return name, dns.RcodeNameError, nil
		}
		return name, dns.RcodeSuccess, &dns.PTR{Hdr: header(q), Ptr: target + "."}
	}
	addr4, addr6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		if !v.c.MayResolve(name) {
			return name, dns.RcodeNameError, nil
		}
		// Only who asks for an address makes the name take one.
		if q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA && s.c.V6 {
			n, ok := v.pool.number(name, s.now())
			if !ok {
				return name, dns.RcodeServerFailure, nil
			}
			addr4, addr6 = address4(n), address6(n)
		}
	}
	// Every other type has no records: HTTPS and SVCB would bring ECH and hints of
	// other addresses.
	switch {
	case q.Qtype == dns.TypeA:
		return name, dns.RcodeSuccess, &dns.A{Hdr: header(q), A: addr4.AsSlice()}
	case q.Qtype == dns.TypeAAAA && s.c.V6:
		return name, dns.RcodeSuccess, &dns.AAAA{Hdr: header(q), AAAA: addr6.AsSlice()}
	}
	return name, dns.RcodeSuccess, nil
}

// normalize refuses what has another spelling than its own in small letters.
func (s *Server) normalize(qname string) (string, bool) {
	lower := strings.TrimSuffix(strings.ToLower(qname), ".")
	name, err := s.c.Normalize(lower)
	if err != nil || name != lower {
		return qname, false
	}
	// An address is no name, but hosts are both.
	if _, err := netip.ParseAddr(name); err == nil {
		return qname, false
	}
	return name, true
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: TTL}
}

// soa tells how long a refusal may be kept (RFC 2308).
var soa = &dns.SOA{
	Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTL},
	Ns:  "openshell.invalid.", Mbox: "nobody.invalid.", Serial: 1, Refresh: TTL, Retry: TTL, Expire: TTL, Minttl: TTL,
}

// payload is how long a reply over UDP may be.
func payload(req *dns.Msg) int {
	if opt := req.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), MaxUDP)
	}
	return dns.MinMsgSize
}

// reverse reads the address out of the name of a PTR record.
func reverse(name string) (netip.Addr, bool) {
	var b strings.Builder
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(digits, ".")
		for i := len(labels) - 1; i >= 0; i-- {
			b.WriteString(labels[i])
			if i > 0 {
				b.WriteByte('.')
			}
		}
	} else if digits, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		labels := strings.Split(digits, ".")
		if len(labels) != 32 {
			return netip.Addr{}, false
		}
		for i := len(labels) - 1; i >= 0; i-- {
			b.WriteString(labels[i])
			if i%4 == 0 && i > 0 {
				b.WriteByte(':')
			}
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is4() == strings.HasSuffix(name, ".in-addr.arpa")
}
