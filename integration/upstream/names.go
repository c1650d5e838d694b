// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Name makes the name server answer for name. answer receives how often the name's
// addresses were queried before (only A and AAAA count). Every other name does not exist.
func (h *Host) Name(name string, answer func(nth int) []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[dns.Fqdn(name)] = answer
}

// Queries returns the queries received so far, as "TYPE name.".
func (h *Host) Queries() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.queries)
}

func (h *Host) serveNames(s *sockets) {
	for _, srv := range []*dns.Server{{PacketConn: s.udp}, {Listener: s.tcp}} {
		srv.Handler = dns.HandlerFunc(h.answer)
		h.names = append(h.names, srv)
		h.done.Go(func() { _ = srv.ActivateAndServe() })
	}
}

func (h *Host) answer(w dns.ResponseWriter, req *dns.Msg) {
	reply := new(dns.Msg).SetReply(req)
	defer func() { _ = w.WriteMsg(reply) }()
	if len(req.Question) != 1 {
		return
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	h.mu.Lock()
	defer h.mu.Unlock()
	kind := dns.Type(q.Qtype).String() + " " + name
	keep(&h.queries, kind)
	f := h.answers[name]
	if f == nil {
		reply.Rcode = dns.RcodeNameError
		return
	}
	nth := h.asked[kind]
	h.asked[kind]++
	for _, a := range f(nth) {
		// The time to live is 0: each use queries again.
		hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			reply.Answer = append(reply.Answer, &dns.A{Hdr: hdr, A: net.IP(a.AsSlice())})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: hdr, AAAA: net.IP(a.AsSlice())})
		}
	}
}
