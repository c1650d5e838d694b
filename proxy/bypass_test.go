// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.dev/runtime/internal/testenv"
)

// tap keeps the bytes that a raw server gets.
type tap struct {
	mu  sync.Mutex
	all bytes.Buffer
	// answer is sent once a head has come.
	answer string
}

func (s *tap) serve(c net.Conn) {
	b := make([]byte, 4096)
	answered := false
	for {
		n, err := c.Read(b)
		s.mu.Lock()
		s.all.Write(b[:n])
		whole := bytes.Contains(s.all.Bytes(), []byte("\r\n\r\n"))
		s.mu.Unlock()
		if whole && !answered && s.answer != "" {
			answered = true
			_, _ = io.WriteString(c, s.answer)
		}
		if err != nil {
			return
		}
	}
}

func (s *tap) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// gone says that the other end closes without a further byte.
func gone(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 256)
	if n, err := c.Read(b); n > 0 {
		return fmt.Errorf("got %q", b[:n])
	} else if timedOut(err) {
		return errors.New("it stays open")
	}
	return nil
}

// Hosts that must be refused before any match, by CONNECT and in absolute form.
func TestBypass_B01_B09_B10_B11_B12_OddAuthorities(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 80", "host: '*.example.org', port: 80"))
	w.both(nil)
	for _, host := range []string{
		"evil.example.net\x00.api.example.com:80", "api.example.com%00:80", "api.example.com\t:80", "api.example.com :80", "api.example.com\r:80",
		"x\x00.example.org:80", "a%2eb.example.org:80", "a/b.example.org:80",
		"2852039166:80", "0xA9FEA9FE:80", "0251.0376.0251.0376:80", "127.1:80", "[::ffff:a9fe:a9fe]:80", "①⑥⑨.254.169.254:80", "169.254.169.254:80",
		"g\u0131thub.com:80", "api\u3002example\u3002com:80", "api.ex\u00adample.com:80", "xn--api-.example.com:80",
		"api.example.com..:80", ".api.example.com:80", "a@api.example.com:80", "api.example.com:80@evil.example.net:80", "api.example.com:",
		"api.example.com:0080", "api.example.com:0", "api.example.com:65536", "api.example.com:65616", "api.example.com:+80", "api.example.com:-80",
		"api.example.com:22", "api.example.com:443", "api.example.com", "api.example.com.evil.example.net:80", "evilapi.example.com:80", "[api.example.com]:80",
	} {
		t.Run(host, func(t *testing.T) {
			connectText := "CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
			if resp, body := ask(t, w.dial(), connectText); resp.StatusCode < 400 {
				t.Errorf("CONNECT: %d %s", resp.StatusCode, body)
			}
			if host == "api.example.com" {
				return // port 80 is meant
			}
			if resp, body := ask(t, w.dial(), "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); resp.StatusCode < 400 {
				t.Errorf("GET: %d %s", resp.StatusCode, body)
			}
		})
	}
	if d := w.dials(); len(d) > 0 {
		t.Errorf("dialled %v", d)
	}
}

func TestBypass_B10_B11_OtherSpellingsOfAnAllowedHost(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443]"))
	plain, _ := w.both(nil, "http/1.1")
	for _, host := range []string{"API.Example.COM", "api.example.com."} {
		if resp, body := ask(t, w.dial(), "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", host, resp.StatusCode, body)
		}
		// The name of a connection to an address is what the client says.
		if resp, body := ask(t, w.to("93.184.216.34:80"), "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("transparent, %s: %d %s", host, resp.StatusCode, body)
		}
	}
	for _, r := range plain.got() {
		if r.Host != "api.example.com" {
			t.Errorf("the server was asked for %q", r.Host)
		}
	}
}

func TestBypass_B03_InsideATunnel(t *testing.T) {
	for _, e := range []string{"plain", "TLS"} {
		for _, tc := range []struct{ name, text string }{
			{"CONNECT", "CONNECT evil.example.net:80 HTTP/1.1\r\nHost: evil.example.net:80\r\n\r\n"},
			{"CONNECT to the same", "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"},
			{"absolute form", "GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n\r\n"},
			{"absolute form, other port", "GET http://api.example.com:8080/ HTTP/1.1\r\nHost: api.example.com:8080\r\n\r\n"},
			{"Host", "GET / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n"},
			{"Host with a port", "GET / HTTP/1.1\r\nHost: api.example.com:8080\r\n\r\n"},
			{"no Host", "GET / HTTP/1.1\r\n\r\n"},
			{"empty Host", "GET / HTTP/1.0\r\nHost:\r\n\r\n"},
			{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: api.example.com\r\n\r\n"},
		} {
			t.Run(e+", "+tc.name, func(t *testing.T) {
				w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443], protocol: rest, access: full, enforcement: enforce"))
				plain, secure := w.both(nil, "http/1.1")
				var c net.Conn
				if e == "TLS" {
					c = w.secure(w.tunnel("api.example.com:443"), "api.example.com")
				} else {
					c = w.tunnel("api.example.com:80")
				}
				if resp, body := ask(t, c, tc.text); resp.StatusCode != 403 && resp.StatusCode != 400 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
				if n := len(plain.got()) + len(secure.got()); n > 0 {
					t.Errorf("%d requests arrived", n)
				}
			})
		}
	}
}

// The name in TLS must be the one that was judged, however the client is slow. TLS
// without a name (Go sends none for an address) is carried at a plain endpoint.
func TestBypass_B05_B06_B07_OtherNameInTLS(t *testing.T) {
	for _, rules := range []string{"", ", protocol: rest, access: full, enforcement: enforce"} {
		for _, wait := range []time.Duration{0, 250 * time.Millisecond} {
			for _, sni := range []string{"evil.example.net", "", "169.254.169.254"} {
				for _, port := range []string{"443", "8443"} {
					t.Run(fmt.Sprintf("%s port %s SNI %q after %s", rules, port, sni, wait), func(t *testing.T) {
						t.Parallel()
						carried := rules == "" && sni != "evil.example.net"
						w := newWorld(t, endpoints("host: api.example.com, ports: [443, 8443]"+rules))
						var got tap
						w.raw("api.example.com", 443, got.serve)
						w.raw("api.example.com", 8443, got.serve)
						for _, c := range []net.Conn{w.tunnel("api.example.com:" + port), w.to("198.18.0.1:" + port)} {
							time.Sleep(wait) //nolint:forbidigo // a slow client
							if carried {
								text := hello(t, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
								_, _ = io.WriteString(c, text)
								if !settles(func() bool { return strings.HasSuffix(got.got(), text) }) {
									t.Errorf("the server got %q", got.got())
								}
								continue
							}
							tc := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
							if err := tc.Handshake(); err == nil {
								if resp, _ := ask(t, tc, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 403 {
									t.Errorf("status %d", resp.StatusCode)
								}
							}
						}
						if s := got.got(); s != "" && !carried {
							t.Errorf("the server got %q", s)
						}
					})
				}
			}
		}
	}
}

// TestBypass_B07_NoNameAtAnAddress: TLS without a name, to an address of which no rule
// speaks, reaches nobody, whatever names are allowed.
func TestBypass_B07_NoNameAtAnAddress(t *testing.T) {
	for rule, reaches := range map[string]bool{"host: evil.example.net, port: 443": false, "host: 93.184.216.66, port: 443": true} {
		w := newWorld(t, endpoints("host: api.example.com, port: 443", rule))
		var got tap
		w.raw("evil.example.net", 443, got.serve)
		c := w.to("93.184.216.66:443")
		_, _ = io.WriteString(c, hello(t, &tls.Config{InsecureSkipVerify: true}))
		if reaches {
			if !settles(func() bool { return got.got() != "" }) {
				t.Errorf("%s: the server got nothing", rule)
			}
			continue
		}
		w.recorded(0)
		if got.got() != "" || len(w.dials()) > 0 {
			t.Errorf("%s: the server got %q, dialled %v", rule, got.got(), w.dials())
		}
	}
}

func TestBypass_B05_HostOtherThanInTLS(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		w := newWorld(t, endpoints("host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce"))
		_, secure := w.both(nil, proto)
		req, _ := http.NewRequest("GET", "https://api.example.com/", nil)
		req.Host = "evil.example.net"
		resp, err := w.client(w.byConnect, proto).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if want := map[string]int{"http/1.1": 403, "h2": 421}[proto]; resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", proto, resp.StatusCode, want)
		}
		if n := len(secure.got()); n > 0 {
			t.Errorf("%s: %d requests arrived", proto, n)
		}
	}
}

// A client that connected to an address is judged by the name it says, and that
// name's own address is dialled.
func TestBypass_B07_ClaimedNameIsDialledWhereItIs(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, ports: [80, 443]"))
	plain, secure := w.both(nil, "http/1.1")
	c := w.secure(w.to("93.184.216.66:443"), "api.example.com")
	c = tls.Client(c.NetConn(), &tls.Config{ServerName: "api.example.com", RootCAs: pool(w.upstream)}) // spliced
	if resp, _ := ask(t, c, "GET /tls HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if resp, _ := ask(t, w.to("93.184.216.66:80"), "GET /http HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	for _, d := range w.dials() {
		if d.Addr() != hosts["api.example.com"][0] {
			t.Errorf("dialled %s", d)
		}
	}
	if len(plain.got()) != 1 || len(secure.got()) != 1 {
		t.Errorf("arrived: %v, %v", plain.got(), secure.got())
	}
	for _, name := range []string{"a b.wild.test", "api.example.com:99999", "evil.example.net", "x..wild.test"} {
		w.load(endpoints("host: '*.wild.test', port: 80, protocol: tcp", "host: api.example.com, port: 80"))
		c := w.to("93.184.216.66:80")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name)
		b, _ := io.ReadAll(c)
		if bytes.Contains(b, []byte(" 200 ")) {
			t.Errorf("%s: %s", name, b)
		}
	}
	if d := w.dials(); len(d) != 2 {
		t.Errorf("dialled %v", d)
	}
}

// dribble sends one byte a segment.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestBypass_B08_ClientHelloInPieces(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce"))
	_, secure := w.both(nil, "http/1.1")
	tc := tls.Client(dribble{w.tunnel("api.example.com:443")}, &tls.Config{ServerName: "api.example.com", RootCAs: w.roots})
	if resp, _ := ask(t, tc, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 200 || len(secure.got()) != 1 {
		t.Errorf("status %d, arrived %v", resp.StatusCode, secure.got())
	}
	tc = tls.Client(dribble{w.tunnel("api.example.com:443")}, &tls.Config{ServerName: "evil.example.net", InsecureSkipVerify: true})
	if err := tc.Handshake(); err == nil {
		if resp, _ := ask(t, tc, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != 403 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	if len(secure.got()) != 1 {
		t.Errorf("arrived %v", secure.got())
	}
}

func TestBypass_B13_NoTLSOn443(t *testing.T) {
	for _, tc := range []struct {
		name, endpoint, text string
		wait                 time.Duration
		passes               bool
	}{
		{"SSH", "host: api.example.com, port: 443", "SSH-2.0-x\r\n", 0, false},
		{"SSH after silence", "host: api.example.com, port: 443", "SSH-2.0-x\r\n", 200 * time.Millisecond, false},
		{"bytes", "host: api.example.com, port: 443", "\x00\x01\x02", 0, false},
		{"bytes where requests are judged", "host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce", "\x00\x01\x02", 0, false},
		{"bytes where requests are judged, other port", "host: api.example.com, port: 8443, protocol: rest, access: full, enforcement: enforce", "\x00\x01\x02", 0, false},
		{"SSH, protocol tcp", "host: api.example.com, port: 443, protocol: tcp", "SSH-2.0-x\r\n", 0, true},
		{"bytes, other port", "host: api.example.com, port: 8443", "\x00\x01\x02", 0, true},
		{"bytes after silence, other port", "host: api.example.com, port: 8443", "\x00\x01\x02", 200 * time.Millisecond, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(tc.endpoint))
			var got tap
			w.raw("api.example.com", 443, got.serve)
			w.raw("api.example.com", 8443, got.serve)
			port := "443"
			if strings.Contains(tc.endpoint, "8443") {
				port = "8443"
			}
			for _, c := range []net.Conn{w.tunnel("api.example.com:" + port), w.to("198.18.0.1:" + port)} {
				time.Sleep(tc.wait) //nolint:forbidigo // a slow client
				_, _ = io.WriteString(c, tc.text)
				if !tc.passes {
					if err := gone(c); err != nil {
						t.Error(err)
					}
				}
			}
			if tc.passes && !settles(func() bool { return got.got() == tc.text+tc.text }) || !tc.passes && got.got() != "" {
				t.Errorf("the server got %q", got.got())
			}
		})
	}
}

func TestServerMaySpeakFirst(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 25"))
	w.raw("api.example.com", 25, func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		_, _ = io.Copy(c, c)
	})
	for _, c := range []net.Conn{w.tunnel("api.example.com:25"), w.to("198.18.0.1:25")} {
		b := make([]byte, 11)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 hello\r\n" {
			t.Fatalf("%q %v", b, err)
		}
		_, _ = io.WriteString(c, "EHLO x")
		if _, err := io.ReadFull(c, b[:6]); err != nil || string(b[:6]) != "EHLO x" {
			t.Fatalf("%q %v", b, err)
		}
	}
}

func TestBypass_B16_B18_AddressesAndNames(t *testing.T) {
	w := newWorld(t, endpoints("host: '*.wild.test', ports: [80, 443]", "host: named.test, port: 80"))
	for _, name := range []string{"mixed.wild.test", "meta.wild.test", "evil.example.net"} {
		if status, head := connect(t, w.dial(), name+":443"); status != 403 {
			t.Errorf("%s: %s", name, head)
		}
		if resp, _ := ask(t, w.dial(), "GET http://"+name+"/ HTTP/1.1\r\nHost: "+name+"\r\n\r\n"); resp.StatusCode != 403 {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	if d := w.dials(); len(d) > 0 {
		t.Errorf("dialled %v", d)
	}
	w.site("named.test", 80, nil)
	// Whoever has the name from the hosts file says the address alone.
	for _, c := range []net.Conn{w.to("10.0.0.6:80"), w.dial()} {
		if resp, body := ask(t, c, "GET http://named.test/ HTTP/1.1\r\nHost: named.test\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
}

func TestBypass_B22_RedirectsAreNotFollowed(t *testing.T) {
	w := newWorld(t, endpoints(apiRules))
	w.both(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://evil.example.net/", http.StatusFound)
	}), "h2", "http/1.1")
	evil := w.site("evil.example.net", 80, nil)
	for _, e := range entries {
		resp, _ := get(t, e.client(w), "GET", e.url("/public/x"), nil)
		if resp.StatusCode != 302 || resp.Header.Get("Location") != "http://evil.example.net/" {
			t.Errorf("%s: %d", e.name, resp.StatusCode)
		}
	}
	if len(evil.got()) > 0 {
		t.Errorf("arrived %v", evil.got())
	}
}

func TestUnknownHolderIsRefused(t *testing.T) {
	w := newWorld(t, endpoints(apiRules))
	w.both(nil, "http/1.1")
	for name, err := range map[string]error{"error": errors.New("no such socket"), "nobody": nil} {
		w.id.set(err)
		for _, addr := range []string{w.addr, w.redirect("198.18.0.1:80")} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				continue // reset at once
			}
			if err := gone(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
		}
	}
	if d := w.dials(); len(d) > 0 {
		t.Errorf("dialled %v", d)
	}
}

func TestNothingIsAllowedBeforeLoad(t *testing.T) {
	w := newWorld(t, "")
	if status, head := connect(t, w.dial(), "api.example.com:443"); status != 403 {
		t.Error(head)
	}
	if w.sandbox.MayResolve("api.example.com") {
		t.Error("names are known")
	}
}

// hello is what a client says first in TLS.
func hello(t *testing.T, config *tls.Config) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, config).Handshake()
	}()
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestBypass_B38_HeldByAnotherBeforeTheFirstByte: who waits with its first byte until
// the connection has another holder has the verdict on that one.
func TestBypass_B38_HeldByAnotherBeforeTheFirstByte(t *testing.T) {
	for name, tc := range map[string]struct {
		port  uint16
		open  func(*world) net.Conn
		hello string
	}{
		"a name that is looked up": {25, func(w *world) net.Conn { return w.to("198.18.0.1:25") }, "\x00raw"},
		"CONNECT":                  {25, func(w *world) net.Conn { return w.tunnel("api.example.com:25") }, "\x00raw"},
		"TLS":                      {443, func(w *world) net.Conn { return w.to("198.18.0.1:443") }, hello(t, &tls.Config{ServerName: "api.example.com"})},
	} {
		for _, passed := range []bool{true, false} { // false: the control
			t.Run(fmt.Sprintf("%s, passed on: %t", name, passed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, endpoints(fmt.Sprintf("host: api.example.com, port: %d", tc.port)))
				var got tap
				w.raw("api.example.com", tc.port, got.serve)
				c := tc.open(w)
				time.Sleep(IdentityAge + 100*time.Millisecond) //nolint:forbidigo // the first answer is too old after this time
				if passed {
					w.id.set(nil, "/tmp/evil")
				}
				_, _ = io.WriteString(c, tc.hello)
				if passed {
					if err := gone(c); err != nil {
						t.Error(err)
					}
				} else {
					settles(func() bool { return got.got() != "" })
				}
				if arrived := got.got() != ""; arrived == passed {
					t.Errorf("the server got %q", got.got())
				}
			})
		}
	}
}

// TestBypass_B70_OtherRepositories: with the sandbox's own token a program may push
// to the repository that it is for, and carry nothing to another on the same host.
func TestBypass_B70_OtherRepositories(t *testing.T) {
	w := withSecret(t)
	w.load(endpoints(`host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [` +
		`{allow: {method: GET, path: "/*/*.git/info/refs", query: {service: git-upload-pack}}}, {allow: {method: POST, path: "/*/*.git/git-upload-pack"}}, ` +
		`{allow: {method: GET, path: "/acme/widgets.git/info/refs", query: {service: git-receive-pack}}}, {allow: {method: POST, path: "/acme/widgets.git/git-receive-pack"}}]`))
	for _, proto := range []string{"http/1.1", "h2"} {
		git := w.site("api.example.com", 443, nil, proto)
		c := w.client(w.byConnect, proto)
		for _, tc := range []struct {
			method, rest string
			allowed      bool
		}{
			{"GET", "/acme/widgets.git/info/refs?service=git-receive-pack", true},
			{"POST", "/acme/widgets.git/git-receive-pack", true},
			{"GET", "/evil/loot.git/info/refs?service=git-upload-pack", true},
			{"GET", "/evil/loot.git/info/refs?service=git-receive-pack", false},
			{"GET", "/evil/loot.git/info/refs?service=git-upload-pack&service=git-receive-pack", false},
			{"GET", "/evil/loot.git/info/refs", false},
			{"POST", "/evil/loot.git/git-receive-pack", false},
			{"POST", "/acme/widgets.git/../../evil/loot.git/git-receive-pack", false},
			{"POST", "/acme/widgets.git/%2e%2e/%2e%2e/evil/loot.git/git-receive-pack", false},
			{"POST", "/acme/widgets.git//git-receive-pack/../../../evil/loot.git/git-receive-pack", false},
			{"POST", "/ACME/widgets.git/git-receive-pack", false},
			{"POST", "/gists", false},
			{"PUT", "/acme/widgets.git/git-receive-pack", false},
		} {
			before := len(git.got())
			req, err := http.NewRequest(tc.method, "https://api.example.com"+tc.rest, strings.NewReader("the loot"))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("x-access-token", secretKey)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if arrived := len(git.got()) - before; tc.allowed != (resp.StatusCode == 200) || tc.allowed != (arrived == 1) {
				t.Errorf("%s %s %s: status %d, %d arrived", proto, tc.method, tc.rest, resp.StatusCode, arrived)
			}
		}
	}
}

// TestSilentClientOfSharedAddress: a client that says nothing at first, to an address that
// two names of a hosts file share, is judged and served by the name that it says in the
// end.
func TestSilentClientOfSharedAddress(t *testing.T) {
	for name, port := range map[string]uint16{"the first name may have a server that speaks first": 8080, "the first name is inspected": 8081} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints(
				"host: named.test, port: 8080", "host: named.test, port: 8081, protocol: rest, enforcement: enforce, access: full",
				"host: twin.test, ports: [8080, 8081], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a}}]",
			))
			shared := hosts["named.test"][0]
			w.sandbox.hosts = map[netip.Addr][]string{shared: {"named.test", "twin.test"}}
			s := w.site("twin.test", port, nil)
			for _, tc := range []struct {
				host, path string
				want       int
			}{{"twin.test", "/a", 200}, {"twin.test", "/b", 403}, {"named.test", "/b", 200}, {"evil.example.net", "/a", 403}} {
				before := len(w.dials())
				c := w.to(netip.AddrPortFrom(shared, port).String())
				if port == 8081 {
					if testenv.Eventually(3*w.s.timeouts.serverFirst, func() bool { return len(w.dials()) > before }) {
						t.Error("the proxy dials before the client speaks")
					}
				} else if !settles(func() bool { return len(w.dials()) > before }) {
					t.Fatal("the proxy does not dial for a client that says nothing")
				}
				resp, body := ask(t, c, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s:%d\r\n\r\n", tc.path, tc.host, port))
				if resp.StatusCode != tc.want {
					t.Errorf("%s%s: %d %s, want %d", tc.host, tc.path, resp.StatusCode, body, tc.want)
				}
			}
			for _, got := range s.got() {
				if got.Host == fmt.Sprintf("twin.test:%d", port) && got.URI != "/a" {
					t.Errorf("the server got %s of %s", got.URI, got.Host)
				}
			}
			if n := len(s.got()); n != 2 {
				t.Errorf("the server got %d requests, want 2", n)
			}
		})
	}
}
