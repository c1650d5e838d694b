// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/upstream"
)

const curl = "/usr/bin/curl"

// container is the ID of the container whose sandbox a world has.
const container = "c1"

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	// The runtime's own: the poller's descriptors and the pool of the certificates.
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	goroutines, fds := runtime.NumGoroutine(), openFDs()
	code := m.Run()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != "" // which has goroutines of its own
	if code == 0 && !fuzzing && !settles(func() bool {
		runtime.GC() // which closes the pipes that splice(2) went through
		return runtime.NumGoroutine() <= goroutines && openFDs() <= fds
	}) {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "leaked: %d goroutines, were %d; %d descriptors, were %d\n%s\n",
			runtime.NumGoroutine(), goroutines, openFDs(), fds, buf[:runtime.Stack(buf, true)])
		code = 1
	}
	os.Exit(code)
}

func openFDs() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// settles reports whether ok becomes true in time.
func settles(ok func() bool) bool { return testenv.Eventually(5*time.Second, ok) }

// fakeIdentity says that a connection is held by who.
type fakeIdentity struct {
	mu  sync.Mutex
	who []identity.Process
	err error
	// of, if it is set, answers in place of who: by the client's end of the connection.
	of func(local netip.AddrPort) []identity.Process
	// wait, if it is set, is called before each answer.
	wait func()
}

func (f *fakeIdentity) set(err error, binaries ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.who, f.err = nil, err
	for i, b := range binaries {
		f.who = append(f.who, identity.Process{Container: container, Pid: 100 + i, Binary: b, Digest: "sha256:00"})
	}
}

func (f *fakeIdentity) Holders(local, _ netip.AddrPort) ([]identity.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wait != nil {
		f.wait()
	}
	if f.of != nil {
		return f.of(local), nil
	}
	return f.who, f.err
}

func (f *fakeIdentity) Aliases(string, []string) (map[string][]string, error) { return nil, nil }

// journal keeps decisions.
type journal struct {
	mu   sync.Mutex
	list []decisionlog.Record
}

func (j *journal) Record(r decisionlog.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = append(j.list, r)
}

func (j *journal) all() []decisionlog.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]decisionlog.Record(nil), j.list...)
}

// world is a sandbox's proxy, the servers that there are, and ways to reach them.
type world struct {
	t        testing.TB
	s        *Server
	sandbox  *Sandbox
	id       *fakeIdentity
	log      *journal
	addr     string // of the explicit proxy
	roots    *x509.CertPool
	upstream *ca.Authority
	ctx      context.Context
	// end ends the sandbox.
	end      context.CancelFunc
	revision int
	serving  sync.WaitGroup

	mu sync.Mutex
	// servers are listeners by the address that names lead to.
	servers map[netip.AddrPort]string
	// redirected are the proxy's listeners that stand for a redirected address.
	redirected map[netip.AddrPort]netip.AddrPort
	// dialled are all addresses that were reached for.
	dialled []netip.AddrPort
	accepts atomic.Int64
}

// The names, what they lead to, and the synthetic addresses that stand for them.
var (
	hosts = map[string][]netip.Addr{
		"api.example.com":   {netip.MustParseAddr("93.184.216.34")},
		"evil.example.net":  {netip.MustParseAddr("93.184.216.66")},
		"raw.example.com":   {netip.MustParseAddr("93.184.216.35")},
		"other.example.com": {netip.MustParseAddr("93.184.216.36")},
		"mixed.wild.test":   {netip.MustParseAddr("93.184.216.37"), netip.MustParseAddr("10.0.0.5")},
		"meta.wild.test":    {netip.MustParseAddr("169.254.169.254")},
		"named.test":        {netip.MustParseAddr("10.0.0.6")},
		"twin.test":         {netip.MustParseAddr("10.0.0.6")},
	}
	synthetic = map[netip.Addr]string{
		netip.MustParseAddr("198.18.0.1"): "api.example.com",
		netip.MustParseAddr("198.18.0.2"): "evil.example.net",
		netip.MustParseAddr("198.18.0.3"): "raw.example.com",
	}
)

func addrPortOf(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(hosts[host][0], port)
}

func newWorld(t testing.TB, policyText string) *world {
	t.Helper()
	return newWorldOf(t, policyText, 0)
}

// newWorldOf is newWorld for a proxy with a memory budget, in bytes; 0 is the default.
func newWorldOf(t testing.TB, policyText string, memory int64) *world {
	t.Helper()
	authority, err := ca.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	servers, err := ca.New("internet", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, id: &fakeIdentity{}, log: &journal{}, upstream: servers, roots: pool(authority),
		servers: map[netip.AddrPort]string{}, redirected: map[netip.AddrPort]netip.AddrPort{},
	}
	w.id.set(nil, curl)
	w.s = New(Config{Identity: w.id, Log: w.log, Memory: memory})
	w.sandbox, err = w.s.Add(SandboxConfig{
		Container:       container,
		MayNamePrograms: true,
		CA:              authority, Roots: func() *x509.CertPool { return pool(servers) }, Log: w.log, Hosts: map[string][]netip.Addr{"named.test": hosts["named.test"]},
		Upstream: upstream.New(upstream.Config{Hosts: hosts, Connect: w.connect}),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.sandbox.nameOf = func(a netip.Addr) (string, bool) { n, ok := synthetic[a]; return n, ok }
	w.s.timeouts = timeouts{head: 2 * time.Second, idle: patience, handshake: 2 * time.Second, serverFirst: 50 * time.Millisecond, gone: 50 * time.Millisecond}
	w.s.ends = func(c *net.TCPConn) (local, wanted netip.AddrPort, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		wanted = addrPort(c.LocalAddr())
		if to, ok := w.redirected[wanted]; ok {
			wanted = to
		}
		return addrPort(c.RemoteAddr()), wanted, nil
	}
	if policyText != "" {
		w.load(policyText)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx, w.end = ctx, cancel
	t.Cleanup(func() {
		cancel()
		w.serving.Wait()
		ended := make(chan struct{})
		go func() { w.s.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(patience):
			buf := make([]byte, 1<<20)
			t.Errorf("%d connections do not end\n%s", w.sandbox.Connections(), buf[:runtime.Stack(buf, true)])
		}
		if !settles(func() bool { return w.s.memory.Used() == 0 }) {
			t.Errorf("%d bytes of memory are not given back", w.s.memory.Used())
		}
	})
	w.addr = w.listen()
	return w
}

func pool(a *ca.Authority) *x509.CertPool {
	p := x509.NewCertPool()
	cert, _ := a.PEM()
	p.AppendCertsFromPEM(cert)
	return p
}

// endpoints is a policy that allows curl some endpoints.
func endpoints(list ...string) string {
	s := "version: 1\nnetwork_policies:\n  web:\n    binaries: [{path: " + curl + "}]\n    endpoints:\n"
	for _, e := range list {
		s += "      - {" + e + "}\n"
	}
	return s
}

func (w *world) load(text string) {
	w.t.Helper()
	w.revision++
	if err := w.sandbox.Load("test", []byte(text), w.revision); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) listen() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.serving.Go(func() {
		if err := w.s.Serve(w.ctx, l); err != nil {
			w.t.Error(err)
		}
	})
	return l.Addr().String()
}

// connect stands for the network.
func (w *world) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, to)
	addr, ok := w.servers[to]
	w.mu.Unlock()
	if !ok {
		return nil, errors.New("connection refused")
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// recorded is the last decision once there are more than before.
func (w *world) recorded(before int) decisionlog.Record {
	w.t.Helper()
	if !settles(func() bool { return len(w.log.all()) > before }) {
		w.t.Fatal("nothing was recorded")
	}
	all := w.log.all()
	return all[len(all)-1]
}

func (w *world) dials() []netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]netip.AddrPort(nil), w.dialled...)
}

// raw serves host:port with handle, one goroutine a connection.
func (w *world) raw(host string, port uint16, handle func(net.Conn)) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var tasks sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.accepts.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			tasks.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	w.mu.Lock()
	w.servers[addrPortOf(host, port)] = l.Addr().String()
	w.mu.Unlock()
}

// seen is a request as a server got it.
type seen struct {
	Method, URI, Host, Proto string
	Header                   http.Header
	Body                     string
}

// site is an HTTP server that keeps what it is asked.
type site struct {
	mu   sync.Mutex
	list []seen
	// handler answers; nil answers 200 and "hello".
	handler http.Handler
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := seen{Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header.Clone()}
	if s.handler == nil {
		b, _ := io.ReadAll(r.Body)
		got.Body = string(b)
	}
	s.mu.Lock()
	s.list = append(s.list, got)
	s.mu.Unlock()
	if s.handler != nil {
		s.handler.ServeHTTP(w, r)
		return
	}
	_, _ = io.WriteString(w, "hello")
}

func (s *site) got() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.list...)
}

// site serves host on port, with TLS if protocols are given.
func (w *world) site(host string, port uint16, handler http.Handler, protocols ...string) *site {
	w.t.Helper()
	s := &site{handler: handler}
	conns := make(chan net.Conn)
	l := &chanListener{conns: conns, done: make(chan struct{})}
	server := &http.Server{Handler: s, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.ErrorLog = discard
	var tl net.Listener = l
	if len(protocols) > 0 {
		leaf, err := w.upstream.Leaf(host)
		if err != nil {
			w.t.Fatal(err)
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: protocols}
		tl = tls.NewListener(l, server.TLSConfig)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(tl) }()
	w.raw(host, port, func(c net.Conn) {
		done := make(chan struct{})
		select {
		case conns <- &notedConn{Conn: c, done: done}:
			<-done
		case <-l.done:
		}
	})
	w.t.Cleanup(func() { server.Close(); <-ended })
	return s
}

// chanListener gives connections that were accepted elsewhere.
type chanListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *chanListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *chanListener) Addr() net.Addr { return &net.TCPAddr{} }

type notedConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *notedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// dial connects to the explicit proxy.
func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	return w.dialTo(w.addr)
}

func (w *world) dialTo(addr string) *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// to is a connection that was made to an address and led to the proxy.
func (w *world) to(address string) *net.TCPConn {
	w.t.Helper()
	return w.dialTo(w.redirect(address))
}

// redirect is where connections to an address are led.
func (w *world) redirect(address string) string {
	w.t.Helper()
	want := netip.MustParseAddrPort(address)
	w.mu.Lock()
	for l, to := range w.redirected {
		if to == want {
			w.mu.Unlock()
			return l.String()
		}
	}
	w.mu.Unlock()
	l := w.listen()
	w.mu.Lock()
	w.redirected[netip.MustParseAddrPort(l)] = want
	w.mu.Unlock()
	return l
}

// tunnel is a connection after a CONNECT that succeeded.
func (w *world) tunnel(authority string) *net.TCPConn {
	w.t.Helper()
	c := w.dial()
	status, head := connect(w.t, c, authority)
	if status != 200 {
		w.t.Fatalf("CONNECT %s: %s", authority, head)
	}
	return c
}

func connect(t testing.TB, c net.Conn, authority string) (int, string) {
	t.Helper()
	status, head, err := tryConnect(c, authority)
	if err != nil {
		t.Fatal(err)
	}
	return status, head
}

// tryConnect is connect for other goroutines than the test's.
func tryConnect(c net.Conn, authority string) (status int, head string, err error) {
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority)
	for b := make([]byte, 1); !strings.HasSuffix(head, "\r\n\r\n"); {
		if _, err := c.Read(b); err != nil {
			return 0, "", fmt.Errorf("CONNECT %s: %w after %q", authority, err, head)
		}
		head += string(b)
	}
	if _, err := fmt.Sscanf(head, "HTTP/1.1 %d", &status); err != nil {
		return 0, "", fmt.Errorf("CONNECT %s: %w in %q", authority, err, head)
	}
	return status, head, nil
}

// ask sends bytes and reads one answer.
func ask(t testing.TB, c net.Conn, text string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	return answerOf(t, bufio.NewReader(c), method)
}

func answerOf(t testing.TB, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read an answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read an answer's body: %v", err)
	}
	resp.Body.Close()
	return resp, string(b)
}

// secure begins TLS as a client.
func (w *world) secure(c net.Conn, name string, protocols ...string) *tls.Conn {
	return tls.Client(c, &tls.Config{ServerName: name, RootCAs: w.roots, NextProtos: protocols})
}
