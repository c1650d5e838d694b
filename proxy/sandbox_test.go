// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/dns"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/upstream"
)

// tenant is one of two containers behind the listeners of a world. It has a sandbox of its
// own, and its processes connect from an address of its own.
type tenant struct {
	w         *world
	container string
	address   netip.Addr
	// secret is the value of the credential API_KEY.
	secret   string
	sandbox  *Sandbox
	log      *journal
	ca       *ca.Authority
	roots    *x509.CertPool
	revision int
}

// tenants are the containers of a world, and connections that changed hands.
type tenants struct {
	mu sync.Mutex
	// from has the containers that hold connections from an address; there is none for
	// strangers. held has those of single connections that changed hands.
	from map[netip.Addr][]string
	held map[netip.AddrPort][]string
}

func (all *tenants) of(local netip.AddrPort) (out []identity.Process) {
	all.mu.Lock()
	defer all.mu.Unlock()
	containers := all.held[local]
	if containers == nil {
		containers = all.from[local.Addr()]
	}
	if len(containers) == 0 {
		containers = []string{"stranger"}
	}
	for _, c := range containers {
		out = append(out, identity.Process{Container: c, Pid: 100, Binary: curl, Digest: "sha256:00"})
	}
	return out
}

// hold makes processes of other containers hold a connection.
func (all *tenants) hold(c net.Conn, containers ...string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.held[addrPort(c.LocalAddr())] = containers
}

// newTenants is a world with two sandboxes: a may reach api.example.com, b raw.example.com,
// and both other.example.com, for which each has a credential of its own.
func newTenants(t testing.TB) (w *world, all *tenants, a, b *tenant) {
	t.Helper()
	w = newWorld(t, "")
	w.s.Remove(w.sandbox)
	all = &tenants{held: map[netip.AddrPort][]string{}, from: map[netip.Addr][]string{}}
	w.id.mu.Lock() // the world serves already
	w.id.of = all.of
	w.id.mu.Unlock()
	w.s.config.Asker = func(asker net.Addr) (string, error) {
		return all.of(netip.MustParseAddrPort(asker.String()))[0].Container, nil
	}
	a = w.tenant("a", "127.0.0.11", 10, "api.example.com", "other.example.com")
	b = w.tenant("b", "127.0.0.12", 70, "raw.example.com", "other.example.com")
	all.mu.Lock()
	all.from[a.address], all.from[b.address] = []string{"a"}, []string{"b"}
	all.mu.Unlock()
	return w, all, a, b
}

func (w *world) tenant(container, address string, revision int, may ...string) *tenant {
	w.t.Helper()
	n := &tenant{w: w, container: container, address: netip.MustParseAddr(address), secret: "secret-value-of-" + container, log: &journal{}, revision: revision}
	var err error
	if n.ca, err = ca.New(container, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	n.roots = pool(n.ca)
	n.sandbox, err = w.s.Add(SandboxConfig{
		Container: container, CA: n.ca, Roots: func() *x509.CertPool { return pool(w.upstream) }, Log: n.log, MayNamePrograms: true,
		Upstream: upstream.New(upstream.Config{Hosts: hosts, Connect: w.connect}),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	set, err := credentials.New(credentials.Config{AnyPlace: true}, []credentials.Provider{{
		Name: "api", Endpoints: []credentials.Endpoint{{Host: "other.example.com", Ports: []uint16{443}}},
		Credentials: []credentials.Credential{{Key: "API_KEY", Value: secret.New(n.secret)}},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	n.sandbox.SetCredentials(set)
	n.load(may...)
	return n
}

// load puts a policy in force that allows hosts.
func (n *tenant) load(may ...string) {
	n.w.t.Helper()
	var list []string
	for _, host := range may {
		list = append(list, fmt.Sprintf("host: %s, ports: [443], protocol: rest, access: full, enforcement: enforce", host))
	}
	n.revision++
	if err := n.sandbox.Load(n.container, []byte(endpoints(list...)), n.revision); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *tenant) dial() net.Conn {
	n.w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: n.address.AsSlice()}}
	c, err := d.Dial("tcp", n.w.addr)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// resets fails unless a connection is reset before anything was sent.
func (w *world) resets(from netip.Addr, to string) {
	w.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: patience}).Dial("tcp", to)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("the connection from %s is not reset: %v", from, err)
	}
}

// session is a TLS session with a host, by CONNECT.
func (n *tenant) session(host string, config *tls.Config) *session {
	n.w.t.Helper()
	c := n.dial()
	if status, head := connect(n.w.t, c, host+":443"); status != 200 {
		n.w.t.Fatalf("%s: CONNECT %s: %s", n.container, host, head)
	}
	if config == nil {
		config = &tls.Config{RootCAs: n.roots}
	}
	config.ServerName = host
	s := &session{n: n, raw: c, Conn: tls.Client(c, config), host: host}
	if err := s.Handshake(); err != nil {
		n.w.t.Fatalf("%s: TLS with %s: %v", n.container, host, err)
	}
	s.br = bufio.NewReader(s.Conn)
	return s
}

type session struct {
	*tls.Conn
	n    *tenant
	raw  net.Conn
	host string
	br   *bufio.Reader
}

// get asks for a path, with the credential's placeholder, and returns the status.
func (s *session) get(path string) int {
	s.n.w.t.Helper()
	_, _ = fmt.Fprintf(s, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, s.host, secretKey)
	resp, _ := answerOf(s.n.w.t, s.br, "GET")
	return resp.StatusCode
}

// asked lists what a server was asked for: the paths.
func (s *site) asked() (out []string) {
	for _, r := range s.got() {
		out = append(out, r.URI)
	}
	return out
}

// TestSandboxesDecideForThemselves: each sandbox reaches what its own policy allows and
// nothing that the other's does, with certificates of its own CA.
func TestSandboxesDecideForThemselves(t *testing.T) {
	w, _, a, b := newTenants(t)
	api, raw := w.site("api.example.com", 443, nil, "http/1.1"), w.site("raw.example.com", 443, nil, "http/1.1")
	// The credential's placeholder may not go to these hosts.
	ask := func(n *tenant, host, path string) {
		s := n.session(host, nil)
		_, _ = fmt.Fprintf(s, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
		if resp, body := answerOf(t, s.br, "GET"); resp.StatusCode != 200 {
			t.Errorf("%s: %s: %d %s", n.container, host, resp.StatusCode, body)
		}
	}
	ask(a, "api.example.com", "/from-a")
	ask(b, "raw.example.com", "/from-b")
	for n, host := range map[*tenant]string{a: "raw.example.com", b: "api.example.com"} {
		if status, head := connect(t, n.dial(), host+":443"); status != 403 {
			t.Errorf("%s: CONNECT %s: %s", n.container, host, head)
		}
	}
	if got := api.asked(); !slices.Equal(got, []string{"/from-a"}) {
		t.Errorf("api.example.com was asked for %v", got)
	}
	if got := raw.asked(); !slices.Equal(got, []string{"/from-b"}) {
		t.Errorf("raw.example.com was asked for %v", got)
	}
	c := a.dial()
	if status, head := connect(t, c, "api.example.com:443"); status != 200 {
		t.Fatal(head)
	}
	var unknown x509.UnknownAuthorityError
	if err := tls.Client(c, &tls.Config{ServerName: "api.example.com", RootCAs: b.roots}).Handshake(); !errors.As(err, &unknown) {
		t.Errorf("a's certificate is signed by b's CA: %v", err)
	}
}

// TestSandboxesHaveCredentialsOfTheirOwn: the same placeholder at the same host becomes the
// value of whoever asks.
func TestSandboxesHaveCredentialsOfTheirOwn(t *testing.T) {
	w, _, a, b := newTenants(t)
	shared := w.site("other.example.com", 443, nil, "http/1.1")
	for _, n := range []*tenant{a, b} {
		if status := n.session("other.example.com", nil).get("/" + n.container); status != 200 {
			t.Errorf("%s: %d", n.container, status)
		}
	}
	for i, n := range []*tenant{a, b} {
		if got := shared.got(); len(got) != 2 || got[i].URI != "/"+n.container || got[i].Header.Get("Authorization") != "Bearer "+n.secret {
			t.Errorf("%s: the server got %+v", n.container, got)
		}
	}
	b.sandbox.SetCredentials(nil)
	b.session("other.example.com", nil).get("/without")
	if got := shared.got(); len(got) != 3 || got[2].Header.Get("Authorization") != "Bearer "+secretKey {
		t.Errorf("without a credential of its own b sends %+v", got)
	}
}

// TestSandboxesHaveNamesOfTheirOwn: DNS knows only the names of the asker's policy, and a
// synthetic address stands for a name only in the sandbox that got it.
func TestSandboxesHaveNamesOfTheirOwn(t *testing.T) {
	w, _, a, b := newTenants(t)
	names := dns.New(dns.Config{View: w.s.View, Normalize: policy.NormalizeHost})
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.serving.Go(func() {
		if err := names.Serve(w.ctx, udp, tcp); err != nil {
			t.Error(err)
		}
	})
	query := func(from netip.Addr, name string) *mdns.Msg {
		t.Helper()
		c := mdns.Client{Timeout: patience, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}}
		m, _, err := c.Exchange(new(mdns.Msg).SetQuestion(name+".", mdns.TypeA), udp.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	address := map[*tenant]netip.Addr{}
	for n, host := range map[*tenant]string{a: "api.example.com", b: "raw.example.com"} {
		m := query(n.address, host)
		if len(m.Answer) != 1 {
			t.Fatalf("%s: %s: %v", n.container, host, m)
		}
		address[n], _ = netip.AddrFromSlice(m.Answer[0].(*mdns.A).A.To4())
		if name, ok := n.sandbox.name(address[n]); !ok || name != host {
			t.Errorf("%s: %s is %q", n.container, address[n], name)
		}
	}
	for n, host := range map[*tenant]string{b: "api.example.com", a: "raw.example.com"} {
		if m := query(n.address, host); m.Rcode != mdns.RcodeNameError || len(m.Answer) > 0 {
			t.Errorf("%s: %s: %v", n.container, host, m)
		}
	}
	if m := query(netip.MustParseAddr("127.0.0.13"), "api.example.com"); m.Rcode != mdns.RcodeRefused {
		t.Errorf("a stranger: %v", m)
	}
	if name, ok := b.sandbox.name(address[a]); ok {
		t.Errorf("a's address of api.example.com is %q to b", name)
	}
	if r := w.recorded(0); r.Layer != "dns" || !strings.Contains(r.Reason, "no sandbox") {
		t.Errorf("the server recorded %+v", r)
	}
}

// TestSandboxesRecordForThemselves: each log has the decisions of its own sandbox, with the
// revision of its policy, and that of the server those of connections without a sandbox.
func TestSandboxesRecordForThemselves(t *testing.T) {
	w, all, a, b := newTenants(t)
	w.site("other.example.com", 443, nil, "http/1.1")
	for _, n := range []*tenant{a, b} {
		n.session("other.example.com", nil).get("/" + n.container)
		if status, _ := connect(t, n.dial(), "evil.example.net:443"); status != 403 {
			t.Errorf("%s: %d", n.container, status)
		}
	}
	for _, n := range []*tenant{a, b} {
		if !settles(func() bool { return len(n.log.all()) == 2 }) {
			t.Fatalf("%s: recorded %+v", n.container, n.log.all())
		}
		for _, r := range n.log.all() {
			if r.Revision != n.revision || r.Host == "other.example.com" && r.Path != "/"+n.container {
				t.Errorf("%s: recorded %+v", n.container, r)
			}
		}
	}
	strange := netip.MustParseAddr("127.0.0.13")
	for name, containers := range map[string][]string{"a stranger": nil, "two containers": {"a", "b"}, "no container": {""}} {
		all.mu.Lock()
		all.from[strange] = containers
		all.mu.Unlock()
		before := len(w.log.all())
		w.resets(strange, w.redirect("93.184.216.36:443"))
		if r := w.recorded(before); r.Verdict != "deny" || r.Host != "93.184.216.36" || r.Revision != 0 {
			t.Errorf("%s: recorded %+v", name, r)
		}
	}
	if len(a.log.all()) != 2 || len(b.log.all()) != 2 {
		t.Errorf("recorded %+v and %+v", a.log.all(), b.log.all())
	}
}

// TestSandboxesAreReloadedForThemselves: a new policy of one sandbox ends its connections
// and leaves the other's policy, revision and connections as they are.
func TestSandboxesAreReloadedForThemselves(t *testing.T) {
	w, _, a, b := newTenants(t)
	shared := w.site("other.example.com", 443, nil, "http/1.1")
	sa, sb := a.session("other.example.com", nil), b.session("other.example.com", nil)
	if sa.get("/a") != 200 || sb.get("/b") != 200 {
		t.Fatal("not served")
	}
	a.load("api.example.com")
	if _, n, _ := b.sandbox.Loaded(); n != b.revision {
		t.Errorf("b's policy has revision %d, want %d", n, b.revision)
	}
	if n, err := sa.Read(make([]byte, 1)); err == nil || timedOut(err) {
		t.Errorf("a's connection goes on: %d, %v", n, err)
	}
	if status := sb.get("/after"); status != 200 {
		t.Errorf("b after a's reload: %d", status)
	}
	a.revision++
	a.sandbox.DenyAll("bad", a.revision)
	if status := sb.get("/later"); status != 200 || b.sandbox.Closed() != "" {
		t.Errorf("b after a was closed: %d", status)
	}
	if got := shared.asked(); !slices.Equal(got, []string{"/a", "/b", "/after", "/later"}) {
		t.Errorf("the server was asked for %v", got)
	}
}

// TestSandboxesHaveSessionsOfTheirOwn: a TLS session of one sandbox, with a client or with a
// server, is not resumed in the other.
func TestSandboxesHaveSessionsOfTheirOwn(t *testing.T) {
	w, _, a, b := newTenants(t)
	resumed := make(chan bool, 1)
	w.site("other.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { resumed <- r.TLS.DidResume }), "http/1.1")
	// The client trusts both CAs and has one cache: it offers to resume wherever it can.
	roots := pool(a.ca)
	roots.AppendCertsFromPEM(func() []byte { cert, _ := b.ca.PEM(); return cert }())
	cache := tls.NewLRUClientSessionCache(1)
	for _, step := range []struct {
		n    *tenant
		want bool
	}{{a, false}, {a, true}, {b, false}, {b, true}} {
		s := step.n.session("other.example.com", &tls.Config{RootCAs: roots, ClientSessionCache: cache})
		if s.get("/") != 200 {
			t.Fatal("not served")
		}
		if got := s.ConnectionState().DidResume; got != step.want {
			t.Errorf("%s: the client's session is resumed: %v, want %v", step.n.container, got, step.want)
		}
		if got := <-resumed; got != step.want {
			t.Errorf("%s: the session with the server is resumed: %v, want %v", step.n.container, got, step.want)
		}
		s.Close()
	}
}

// TestSandboxesHaveConnectionsOfTheirOwn: an open connection to a server serves the sandbox
// that it was made for, also when the client's connection changes hands.
func TestSandboxesHaveConnectionsOfTheirOwn(t *testing.T) {
	w, all, a, b := newTenants(t)
	from := make(chan string, 1)
	shared := w.site("other.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { from <- r.RemoteAddr }), "http/1.1")
	sa, sb := a.session("other.example.com", nil), b.session("other.example.com", nil)
	var upstreams []string
	for _, s := range []*session{sa, sb, sa} {
		if s.get("/") != 200 {
			t.Fatal("not served")
		}
		upstreams = append(upstreams, <-from)
	}
	if upstreams[0] == upstreams[1] || upstreams[0] != upstreams[2] {
		t.Errorf("a, b and a again came over %v", upstreams)
	}
	// Another container's process now holds a's connection.
	all.hold(sa.raw, "b")
	time.Sleep(IdentityAge + 50*time.Millisecond) //nolint:forbidigo // the first answer is too old after this time
	if status := sa.get("/handed-over"); status != 403 {
		t.Errorf("a's connection in b's hands: %d", status)
	}
	if got := shared.asked(); slices.Contains(got, "/handed-over") {
		t.Errorf("the server was asked for %v", got)
	}
	if r := a.log.all(); len(r) == 0 || !strings.Contains(r[len(r)-1].Reason, "two containers") {
		t.Errorf("recorded %+v", r)
	}
}

// TestRouterIsTheSandboxsOwn: each sandbox reaches its own router, and one without a router
// none.
func TestRouterIsTheSandboxsOwn(t *testing.T) {
	_, _, a, b := newTenants(t)
	asked := make(chan string, 2)
	router := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked <- name
			_, _ = io.WriteString(w, name)
		})
	}
	ask := func(n *tenant) (int, string) {
		resp, body := ask(t, n.dial(), "GET http://"+policy.RouterHost+"/v1/models HTTP/1.1\r\nHost: "+policy.RouterHost+"\r\n\r\n")
		return resp.StatusCode, body
	}
	a.sandbox.SetRouter(router("a"))
	if _, body := ask(a); body != "a" {
		t.Errorf("a's router: %s", body)
	}
	if status, body := ask(b); status != 403 {
		t.Errorf("b has no router: %d %s", status, body)
	}
	b.sandbox.SetRouter(router("b"))
	if _, body := ask(b); body != "b" {
		t.Errorf("b's router: %s", body)
	}
	for _, want := range []string{"a", "b"} {
		select {
		case got := <-asked:
			if got != want {
				t.Errorf("the router of %s was asked, not that of %s", got, want)
			}
		default:
			t.Errorf("the router of %s was not asked", want)
		}
	}
}

// TestRemove: the connections of a removed sandbox end, its container gets no further ones,
// and the other sandbox stays.
func TestRemove(t *testing.T) {
	w, _, a, b := newTenants(t)
	shared := w.site("other.example.com", 443, nil, "http/1.1")
	sa, sb := a.session("other.example.com", nil), b.session("other.example.com", nil)
	if sa.get("/a") != 200 || sb.get("/b") != 200 {
		t.Fatal("not served")
	}
	w.s.Remove(a.sandbox)
	if n, err := sa.Read(make([]byte, 1)); err == nil || timedOut(err) {
		t.Errorf("the connection goes on: %d, %v", n, err)
	}
	w.resets(a.address, w.addr)
	if r := w.recorded(0); !strings.Contains(r.Reason, "no sandbox") {
		t.Errorf("recorded %+v", r)
	}
	if status := sb.get("/after"); status != 200 {
		t.Errorf("the other sandbox: %d", status)
	}
	if got := shared.asked(); !slices.Equal(got, []string{"/a", "/b", "/after"}) {
		t.Errorf("the server was asked for %v", got)
	}
	if !settles(func() bool { return a.sandbox.Connections() == 0 }) {
		t.Error("connections are left")
	}
}

// TestAdd: a container has one sandbox.
func TestAdd(t *testing.T) {
	w := newWorld(t, "")
	for _, name := range []string{container, ""} {
		if _, err := w.s.Add(SandboxConfig{Container: name}); err == nil {
			t.Errorf("%q: added", name)
		}
	}
	w.s.Remove(w.sandbox)
	if _, err := w.s.Add(SandboxConfig{Container: container}); err != nil {
		t.Error(err)
	}
}

// TestReloadsWhileConnectionsBegin: a reload may find a connection at any time after it was
// identified.
func TestReloadsWhileConnectionsBegin(t *testing.T) {
	w, _, a, _ := newTenants(t)
	w.site("other.example.com", 443, nil, "http/1.1")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				a.sandbox.rejudge()
			}
		}
	}()
	for range 200 {
		c := a.dial()
		if status, head := connect(t, c, "other.example.com:443"); status != 200 {
			t.Error(head)
		}
		c.Close()
	}
	close(stop)
	<-stopped
}
