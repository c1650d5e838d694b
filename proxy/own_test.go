// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// fakeOwn is a container that has one address beside the loopback, and servers.
type fakeOwn struct {
	mu      sync.Mutex
	servers map[netip.AddrPort]string
	dialled []netip.AddrPort
}

var ownAddress = netip.MustParseAddr("172.17.0.2")

func (f *fakeOwn) Is(a netip.Addr) bool { return a == ownAddress || a.IsLoopback() }

func (f *fakeOwn) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	f.mu.Lock()
	f.dialled = append(f.dialled, to)
	addr, ok := f.servers[to]
	f.mu.Unlock()
	if !ok {
		return nil, errors.New("connection refused")
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// withOwn is withSecret for a container with a server at port 8000 of every address of its
// own, one of whose names is that of the provider's endpoint.
func withOwn(t *testing.T) (*world, *fakeOwn, *site) {
	t.Helper()
	w := withSecret(t)
	s := w.site("other.example.com", 8000, nil)
	addr := w.servers[addrPortOf("other.example.com", 8000)]
	own := &fakeOwn{servers: map[netip.AddrPort]string{}}
	for _, a := range []string{"127.0.0.1:8000", "127.0.0.2:8000", "172.17.0.2:8000", "[::1]:8001", "127.0.0.1:443"} {
		own.servers[netip.MustParseAddrPort(a)] = addr
	}
	delete(w.servers, addrPortOf("other.example.com", 8000))
	w.sandbox.config.Own = own
	w.sandbox.config.OwnNames = map[string][]netip.Addr{
		"sandbox": {ownAddress}, "alias.test": {netip.MustParseAddr("127.0.0.1")}, "unspecified.test": {netip.IPv4Unspecified()},
		"moved.test": {netip.MustParseAddr("172.17.0.9")}, "api.example.com": {netip.MustParseAddr("127.0.0.1")},
	}
	return w, own, s
}

// TestOwnNames (issue 11, point 6): what clients ask the proxy for at the container's
// own names is dialled in the container, without a policy and without credentials.
func TestOwnNames(t *testing.T) {
	w, own, s := withOwn(t)
	for _, host := range []string{"localhost", "a.localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", "172.17.0.2", "sandbox", "SANDBOX.", "alias.test", "unspecified.test"} {
		before := len(s.got())
		resp, body := ask(t, w.dial(), fmt.Sprintf("GET http://%s:8000/a%%2Fb HTTP/1.1\r\nHost: %[1]s:8000\r\nX-Key: %s\r\n\r\n", host, secretKey))
		if resp.StatusCode != 200 || len(s.got()) != before+1 {
			t.Errorf("%s: %d %s", host, resp.StatusCode, body)
			continue
		}
		if got := s.got()[before]; got.URI != "/a%2Fb" || got.Header.Get("X-Key") != secretKey {
			t.Errorf("%s: the server got %+v", host, got)
		}
		if resp, body := ask(t, w.tunnel(host+":8000"), "GET / HTTP/1.1\r\nHost: x\r\nX-Key: "+secretKey+"\r\n\r\n"); resp.StatusCode != 200 || len(s.got()) != before+2 {
			t.Errorf("CONNECT %s: %d %s", host, resp.StatusCode, body)
		}
	}
	for _, host := range []string{"[::1]", "[::]"} {
		if resp, body := ask(t, w.dial(), "GET http://"+host+":8001/ HTTP/1.1\r\nHost: "+host+":8001\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", host, resp.StatusCode, body)
		}
	}
	// A provider's endpoint that the hosts file names as the container: no value is put in.
	before := len(s.got())
	if resp, body := ask(t, w.tunnel("api.example.com:443"), "GET / HTTP/1.1\r\nHost: api.example.com\r\nX-Key: "+secretKey+"\r\n\r\n"); resp.StatusCode != 200 || len(s.got()) != before+1 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, got := range s.got() {
		if strings.Contains(fmt.Sprint(got), secretValue) {
			t.Errorf("the server got the secret: %+v", got)
		}
	}
	if d := w.dials(); len(d) > 0 {
		t.Errorf("the proxy dialled %v itself", d)
	}
	if last := w.recorded(0); last.Verdict != "allow" || last.Reason != "the sandbox itself" {
		t.Errorf("recorded %+v", last)
	}
	dialled := len(own.dialled)
	// A reload closes no connection to the container; that everything is denied does.
	c := w.tunnel("localhost:8000")
	w.load(endpoints("host: other.example.com, port: 1"))
	if resp, body := ask(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("after a reload: %d %s", resp.StatusCode, body)
	}
	w.revision++
	w.sandbox.DenyAll("invalid", w.revision)
	if err := gone(c); err != nil {
		t.Errorf("everything is denied: %v", err)
	}
	if status, head := connect(t, w.dial(), "localhost:8000"); status != http.StatusForbidden {
		t.Errorf("everything is denied: %s", head)
	}
	if n := len(own.dialled); n != dialled+1 {
		t.Errorf("%d more connections", n-dialled)
	}
}

// TestBypass_B23_OwnNamesOfOthers: names and addresses that are not the container's are
// judged, and a connection that was made to another address is never led to the container.
func TestBypass_B23_OwnNamesOfOthers(t *testing.T) {
	w, own, s := withOwn(t)
	for _, host := range []string{"moved.test", "172.17.0.1", "notlocalhost", "localhost.test", "10.0.0.1", "169.254.169.254"} {
		if status, head := connect(t, w.dial(), host+":8000"); status != http.StatusForbidden {
			t.Errorf("%s: %s", host, head)
		}
		if resp, _ := ask(t, w.dial(), "GET http://"+host+":8000/ HTTP/1.1\r\nHost: "+host+":8000\r\n\r\n"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", host, resp.StatusCode)
		}
	}
	for _, host := range []string{"localhost", "127.0.0.1", "sandbox"} {
		if resp, _ := ask(t, w.to("93.184.216.66:8000"), "GET / HTTP/1.1\r\nHost: "+host+":8000\r\n\r\n"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("transparent, %s: %d", host, resp.StatusCode)
		}
	}
	if len(own.dialled) > 0 || len(s.got()) > 0 || len(w.dials()) > 0 {
		t.Errorf("dialled %v in the container and %v, arrived %v", own.dialled, w.dials(), s.got())
	}
}

// TestBypass_B23_TheMachine: the names of the machine lead to its loopback where an
// endpoint has them with the port; no other name, redirect or address does.
func TestBypass_B23_TheMachine(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	hosts["host.openshell.internal"], hosts["host.docker.internal"], hosts["evil.wild.test"] = []netip.Addr{loopback}, []netip.Addr{loopback}, []netip.Addr{loopback}
	t.Cleanup(func() {
		for _, name := range []string{"host.openshell.internal", "host.docker.internal", "evil.wild.test"} {
			delete(hosts, name)
		}
	})
	w := newWorld(t, "")
	w.sandbox.config.Machine = []netip.Addr{loopback}
	w.load(endpoints("host: host.openshell.internal, port: 8080", "host: '*.docker.internal', port: 8080", "host: '*.wild.test', port: 8080",
		"host: evil.wild.test, port: 8081", "host: 127.0.0.1, ports: [8080, 8081]", "port: 8082, allowed_ips: [10.0.0.0/8]", "host: api.example.com, port: 80"))
	s := w.site("host.openshell.internal", 8080, nil)
	w.servers[netip.AddrPortFrom(loopback, 8082)] = w.servers[netip.AddrPortFrom(loopback, 8080)]
	w.servers[netip.AddrPortFrom(loopback, 8081)] = w.servers[netip.AddrPortFrom(loopback, 8080)]
	redirects := w.site("api.example.com", 80, http.RedirectHandler("http://host.docker.internal:8080/", http.StatusFound))
	for _, to := range []string{
		"host.openshell.internal:8081", "host.docker.internal:8080", "host.containers.internal:8080", "evil.wild.test:8080", "evil.wild.test:8081",
		"127.0.0.1:8080", "127.0.0.1:8081", "host.openshell.internal:8082", "a.host.openshell.internal:8080",
	} {
		if resp, body := ask(t, w.dial(), "GET http://"+to+"/ HTTP/1.1\r\nHost: "+to+"\r\n\r\n"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", to, resp.StatusCode, body)
		}
	}
	if resp, _ := ask(t, w.dial(), "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != http.StatusFound || len(redirects.got()) != 1 {
		t.Errorf("the redirect: %d", resp.StatusCode)
	}
	if len(s.got()) > 0 {
		t.Errorf("arrived %v", s.got())
	}
	if resp, body := ask(t, w.dial(), "GET http://host.openshell.internal:8080/ HTTP/1.1\r\nHost: host.openshell.internal:8080\r\n\r\n"); resp.StatusCode != 200 || len(s.got()) != 1 {
		t.Errorf("the control: %d %s", resp.StatusCode, body)
	}
}
