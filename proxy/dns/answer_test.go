// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"openshell.dev/runtime/policy"
)

// heard is what was recorded.
type heard struct {
	name, qtype string
	allowed     bool
}

// allowing is a server for names that end in .ok.example or are ok.example.
func allowing(v6 bool) (*Server, *[]heard, *[]string) {
	var records []heard
	var judged []string
	v := NewView(ViewConfig{
		MayResolve: func(n string) bool {
			judged = append(judged, n)
			return n == "ok.example" || strings.HasSuffix(n, ".ok.example") || n == "10.0.0.1"
		},
		Record: func(n, t string, a bool) { records = append(records, heard{n, t, a}) },
	})
	s := New(Config{View: func(net.Addr) *View { return v }, Normalize: policy.NormalizeHost, V6: v6})
	return s, &records, &judged
}

// serving is a server with one view for everybody.
func serving(c ViewConfig) *Server {
	v := NewView(c)
	return New(Config{View: func(net.Addr) *View { return v }, Normalize: policy.NormalizeHost})
}

// view is the view of a server that has one for everybody.
func view(s *Server) *View { return s.c.View(nil) }

func ask(s *Server, name string, qtype uint16) *dns.Msg {
	return s.answer(nil, new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype))
}

func address(t *testing.T, m *dns.Msg) netip.Addr {
	t.Helper()
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != TTL {
		t.Fatalf("no address in %v", m)
	}
	var a netip.Addr
	switch rr := m.Answer[0].(type) {
	case *dns.A:
		a, _ = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		a, _ = netip.AddrFromSlice(rr.AAAA)
	}
	return a
}

func TestAddressesAreNames(t *testing.T) {
	s, records, _ := allowing(true)
	a4, a6 := address(t, ask(s, "OK.Example", dns.TypeA)), address(t, ask(s, "ok.example", dns.TypeAAAA))
	if !Prefix4.Contains(a4) || !Prefix6.Contains(a6) || !Synthetic(a4) || !Synthetic(a6) {
		t.Errorf("%v, %v", a4, a6)
	}
	for _, a := range []netip.Addr{a4, a6, netip.AddrFrom16(a4.As16())} {
		if n, ok := view(s).Name(a); !ok || n != "ok.example" {
			t.Errorf("Name(%v) = %q", a, n)
		}
	}
	if again := address(t, ask(s, "ok.example", dns.TypeA)); again != a4 {
		t.Error("the address changed")
	}
	if other := address(t, ask(s, "a.ok.example", dns.TypeA)); other == a4 {
		t.Error("two names have one address")
	}
	if want := (heard{"ok.example", "A", true}); (*records)[0] != want {
		t.Errorf("recorded %v", (*records)[0])
	}
	for _, a := range []string{"198.17.255.255", "198.18.0.0", "198.20.0.0", "10.0.0.1", "::", "fd6f:7368:656c:6c00::", "fd6f:7368:656c:6c01::1"} {
		if n, ok := view(s).Name(netip.MustParseAddr(a)); ok {
			t.Errorf("Name(%s) = %q", a, n)
		}
	}
	far := a6.As16()
	far[8] = 1
	if n, ok := view(s).Name(netip.AddrFrom16(far)); ok {
		t.Errorf("Name(%v) = %q", netip.AddrFrom16(far), n)
	}
	if _, ok := view(s).Name(netip.Addr{}); ok || Synthetic(netip.Addr{}) || Synthetic(netip.MustParseAddr("198.20.0.0")) {
		t.Error("an address that is none of ours is")
	}
}

func TestBypass_B17_NothingIsToldByAsking(t *testing.T) {
	s, records, judged := allowing(true)
	secret := "c2VjcmV0c2VjcmV0"
	for _, name := range []string{secret + ".evil.example", "xok.example", "ok.example.evil.example", "example", "db", "ok.example.cluster.local", strings.Repeat(secret[:15]+".", 15) + "evil"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNULL, dns.TypeMX, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeANY, dns.TypeAXFR, 65280} {
			m := ask(s, name, typ)
			if m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].(*dns.SOA).Minttl != TTL {
				t.Errorf("%s %d: %v", name, typ, m)
			}
		}
	}
	if n := len(view(s).pool.byName); n != 0 {
		t.Errorf("%d refused names have addresses", n)
	}
	if len(*records) != 70 || slices.ContainsFunc(*records, func(h heard) bool { return h.allowed }) {
		t.Errorf("recorded %v", *records)
	}
	if len(*judged) != 70 {
		t.Errorf("judged %d names", len(*judged))
	}
	for _, typ := range []uint16{dns.TypeTXT, dns.TypeNULL, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeANY, dns.TypeCNAME, 65280} {
		if m := ask(s, "ok.example", typ); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("%d of an allowed name: %v", typ, m)
		}
	}
	if n := len(view(s).pool.byName); n != 0 {
		t.Error("a name has an address that nobody asked for")
	}
}

func TestBypass_B17_OddNamesAreRefused(t *testing.T) {
	s, _, judged := allowing(true)
	for _, name := range []string{".", "10.0.0.1.", "127.1.", `a\.b.ok.example.`, `a\000.ok.example.`, `\195\188.ok.example.`, "-a.ok.example.", "a b.ok.example.", "*.ok.example.", "xn--github-.ok.example.", `a\@b.ok.example.`} {
		m := s.answer(nil, &dns.Msg{Question: []dns.Question{{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}}})
		if m.Rcode != dns.RcodeRefused || len(m.Answer) != 0 {
			t.Errorf("%q: %v", name, m)
		}
	}
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassANY, dns.ClassNONE, 0} {
		m := s.answer(nil, &dns.Msg{Question: []dns.Question{{Name: "ok.example.", Qtype: dns.TypeA, Qclass: class}}})
		if m.Rcode != dns.RcodeRefused {
			t.Errorf("class %d: %v", class, m)
		}
	}
	if len(*judged) != 0 {
		t.Errorf("judged %q", *judged)
	}
	s.c.Normalize = func(string) (string, error) { return "ok.example", nil }
	if m := ask(s, "ok.examp1e", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("a name that is judged as another: %v", m)
	}
}

func TestBypass_B18_ZeroConfigResolvesNothing(t *testing.T) {
	s := New(Config{})
	if m := ask(s, "ok.example", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("%v", m)
	}
	s = New(Config{Normalize: policy.NormalizeHost})
	if m := ask(s, "localhost", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("without a view: %v", m)
	}
	s = serving(ViewConfig{})
	if m := ask(s, "ok.example", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("%v", m)
	}
}

func TestLocalhostAndFamilies(t *testing.T) {
	s, _, judged := allowing(true)
	for name, want := range map[string][2]string{"localhost": {"127.0.0.1", "::1"}, "app.localhost": {"127.0.0.1", "::1"}} {
		if a := address(t, ask(s, name, dns.TypeA)); a.String() != want[0] {
			t.Errorf("%s is %v", name, a)
		}
		if a := address(t, ask(s, name, dns.TypeAAAA)); a.String() != want[1] {
			t.Errorf("%s is %v", name, a)
		}
	}
	if len(*judged) != 0 {
		t.Errorf("judged %q", *judged)
	}
	s, _, _ = allowing(false)
	for _, name := range []string{"localhost", "ok.example"} {
		if m := ask(s, name, dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
			t.Errorf("without IPv6: %v", m)
		}
	}
}

func TestReverse(t *testing.T) {
	s, _, _ := allowing(true)
	a4, a6 := address(t, ask(s, "ok.example", dns.TypeA)), address(t, ask(s, "ok.example", dns.TypeAAAA))
	for addr, want := range map[string]string{
		a4.String(): "ok.example.", a6.String(): "ok.example.", "127.0.0.1": "localhost.", "::1": "localhost.", "8.8.8.8": "", "2001:db8::1": "", a4.Prev().String(): "",
	} {
		name, err := dns.ReverseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		m := ask(s, name, dns.TypePTR)
		if want == "" && m.Rcode != dns.RcodeNameError || want != "" && (len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != want) {
			t.Errorf("%s: %v", addr, m)
		}
	}
	lo6, _ := dns.ReverseAddr("::1")
	for _, name := range []string{"00" + lo6[1:], strings.Replace(lo6, "1.0.0.0.", "0001.", 1), strings.Replace(lo6, ".0.0.0.ip6", ".ip6", 1), "in-addr.arpa", "1.in-addr.arpa", "1.1.1.1.1.in-addr.arpa", "01.0.18.198.in-addr.arpa", "256.0.18.198.in-addr.arpa", "1.ip6.arpa", "1.0.0.127.ip6.arpa", strings.Repeat("10.", 32) + "ip6.arpa", "_services._dns-sd.ok"} {
		if m := ask(s, name, dns.TypePTR); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestEDNS(t *testing.T) {
	s, _, _ := allowing(false)
	req := new(dns.Msg).SetQuestion("ok.example.", dns.TypeA).SetEdns0(4096, true)
	if m := s.answer(nil, req); m.IsEdns0() == nil || m.IsEdns0().UDPSize() != MaxUDP || len(m.Answer) != 1 || payload(req) != MaxUDP {
		t.Errorf("%v", m)
	}
	req.IsEdns0().SetVersion(1)
	if m := s.answer(nil, req); m.Rcode != dns.RcodeBadVers || len(m.Answer) != 0 {
		t.Errorf("%v", m)
	}
	req.IsEdns0().SetUDPSize(1)
	if n := payload(req); n != dns.MinMsgSize {
		t.Errorf("%d bytes", n)
	}
	if m := ask(s, "ok.example", dns.TypeA); m.IsEdns0() != nil {
		t.Errorf("%v", m)
	}
}

// handle is what the library does with a packet.
func handle(s *Server, packet []byte) (*dns.Msg, dns.MsgAcceptAction, error) {
	if len(packet) < 12 {
		return nil, dns.MsgIgnore, nil
	}
	n := func(i int) uint16 { return uint16(packet[i])<<8 | uint16(packet[i+1]) }
	if a := accept(dns.Header{Id: n(0), Bits: n(2), Qdcount: n(4), Ancount: n(6), Nscount: n(8), Arcount: n(10)}); a != dns.MsgAccept {
		return nil, a, nil
	}
	req := new(dns.Msg)
	if err := req.Unpack(packet); err != nil {
		return nil, dns.MsgReject, err
	}
	reply := s.answer(nil, req)
	reply.Truncate(payload(req))
	return reply, dns.MsgAccept, nil
}

func TestAccept(t *testing.T) {
	s, _, _ := allowing(false)
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		want   dns.MsgAcceptAction
	}{
		"question":      {func(*dns.Msg) {}, dns.MsgAccept},
		"EDNS":          {func(m *dns.Msg) { m.SetEdns0(512, false) }, dns.MsgAccept},
		"reply":         {func(m *dns.Msg) { m.Response = true }, dns.MsgIgnore},
		"update":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.MsgRejectNotImplemented},
		"notify":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.MsgRejectNotImplemented},
		"no question":   {func(m *dns.Msg) { m.Question = nil }, dns.MsgReject},
		"two questions": {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.MsgReject},
		"an answer":     {func(m *dns.Msg) { m.Answer = []dns.RR{soa} }, dns.MsgReject},
		"an authority":  {func(m *dns.Msg) { m.Ns = []dns.RR{soa} }, dns.MsgReject},
		"two OPT":       {func(m *dns.Msg) { m.SetEdns0(512, false).SetEdns0(512, false) }, dns.MsgReject},
	} {
		m := new(dns.Msg).SetQuestion("ok.example.", dns.TypeA)
		c.change(m)
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := handle(s, packet); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestHeaderWithoutItsQuestion(t *testing.T) {
	s, _, _ := allowing(false)
	m, _, err := handle(s, []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	if err != nil || m.Rcode != dns.RcodeFormatError {
		t.Errorf("%v, %v", m, err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, q := range []*dns.Msg{
		new(dns.Msg).SetQuestion("ok.example.", dns.TypeA), new(dns.Msg).SetQuestion("1.0.18.198.in-addr.arpa.", dns.TypePTR),
		new(dns.Msg).SetQuestion("evil.example.", dns.TypeTXT).SetEdns0(1232, true), new(dns.Msg).SetQuestion(".", dns.TypeNS),
	} {
		packet, _ := q.Pack()
		f.Add(packet)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	s, _, _ := allowing(true)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, _, err := handle(s, packet)
		if err != nil || m == nil {
			return
		}
		out, err := m.Pack()
		if err != nil || len(out) > MaxUDP {
			t.Fatalf("%d bytes, %v: %v", len(out), err, m)
		}
		again := new(dns.Msg)
		if err := again.Unpack(out); err != nil || !again.Response {
			t.Fatalf("%v: %v", err, m)
		}
		if m.Truncated {
			t.Fatalf("does not fit: %v", m)
		}
		if len(m.Answer) == 0 {
			return
		}
		if name := strings.ToLower(m.Question[0].Name); m.Question[0].Qtype != dns.TypePTR && !strings.HasSuffix(name, "ok.example.") && !strings.HasSuffix(name, "localhost.") {
			t.Fatalf("answered: %v", m)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	s := serving(ViewConfig{MayResolve: func(string) bool { return true }})
	req := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		s.answer(nil, req)
	}
}
