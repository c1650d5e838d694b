// SPDX-License-Identifier: Apache-2.0

// Package upstream is the other side of a sandbox's connections: a host of its own (a
// network namespace joined to this one by a veth pair) with HTTP, HTTPS with a real
// certificate chain (root, intermediate, leaf), a TCP echo and a name server. Containers
// can be plugged in by a link of their own. For them it is the whole Internet: every packet
// that leaves them arrives here.
//
// It keeps a log of every packet that arrived and of every connection, request and query
// that it received, because the log, and not the client's error, shows whether a refusal
// worked. It needs root.
package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxBody is the largest part of a request body that is kept, in bytes.
	maxBody = 1 << 20
	// maxLog is the largest number of entries of each log: a flood must not fill the
	// memory.
	maxLog = 1 << 16
)

// PortEcho is the port that returns what it receives.
const PortEcho = 7000

// Request is one request as the server received it.
type Request struct {
	Method, Host, Path, Query, Proto, Body string
}

// Host is a running upstream.
type Host struct {
	// Addr and Addr6 are the host's addresses. They are reachable from the namespace in
	// which Start ran.
	Addr, Addr6 netip.Addr
	// Gateway is the address of this side of the link.
	Gateway netip.Addr
	// CA is the PEM of the root that signed the chain.
	CA []byte
	// Handler responds to requests after they are logged. If it is nil, the response is a
	// line that describes the request. Set it before the first request.
	Handler http.Handler

	net     byte
	link    string
	ns      *os.File
	servers []*http.Server
	closers []io.Closer
	names   []*dns.Server
	plugged []*os.File
	stop    closer
	done    sync.WaitGroup

	mu       sync.Mutex
	requests []Request
	accepted []string
	streams  int
	answers  map[string]func(nth int) []netip.Addr
	asked    map[string]int
	queries  []string
	packets  []Packet
}

// Open is Start with an unused number.
func Open(names ...string) (*Host, error) {
	first := rand.N(240)
	for i := range 240 {
		h, err := Start(byte((first+i)%240), names...)
		if !errors.Is(err, unix.EEXIST) {
			return h, err
		}
	}
	return nil, errors.New("no free number for an upstream")
}

// Start creates the host at 10.231.NET.2 and fd00:231:NET::2 (this side is .1 and ::1) and
// serves names. net, from 0 to 255, keeps the hosts of concurrent users apart.
func Start(net byte, names ...string) (_ *Host, err error) {
	h := &Host{
		Addr:    netip.AddrFrom4([4]byte{10, 231, net, 2}),
		Addr6:   netip.MustParseAddr(fmt.Sprintf("fd00:231:%x::2", net)),
		Gateway: netip.AddrFrom4([4]byte{10, 231, net, 1}),
		net:     net, link: fmt.Sprintf("osup%d", net),
		answers: map[string]func(int) []netip.Addr{}, asked: map[string]int{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	cert, root, err := chain(append(names, h.Addr.String(), h.Addr6.String()))
	if err != nil {
		return nil, err
	}
	h.CA = root
	s, err := h.plug()
	if err != nil {
		return nil, err
	}
	h.stop = make(closer)
	h.closers = append(h.closers, s.echo, h.stop)
	for port, l := range s.http {
		srv := &http.Server{
			Handler:           http.HandlerFunc(h.handle),
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          log.New(io.Discard, "", 0),
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		}
		h.servers = append(h.servers, srv)
		l := &logged{Listener: l, host: h, port: port}
		h.done.Go(func() {
			if port == 443 {
				_ = srv.ServeTLS(l, "", "")
			} else {
				_ = srv.Serve(l)
			}
		})
	}
	h.done.Go(func() { h.echo(&logged{Listener: s.echo, host: h, port: PortEcho}) })
	h.serveNames(s)
	h.done.Go(func() { h.sniff(s.sniffer) })
	return h, nil
}

func (h *Host) handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	keep(&h.requests, Request{r.Method, r.Host, r.URL.Path, r.URL.RawQuery, r.Proto, string(body)})
	h.mu.Unlock()
	if h.Handler != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.Handler.ServeHTTP(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/events") {
		h.stream(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/redirect") {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
		return
	}
	fmt.Fprintf(w, "upstream saw %s %s\n", r.Method, r.URL.Path)
}

// stream sends events until the client disconnects.
func (h *Host) stream(w http.ResponseWriter, r *http.Request) {
	h.count(1)
	defer h.count(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	for n := 0; ; n++ {
		fmt.Fprintf(w, "data: %d\n\n", n)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (h *Host) echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		h.done.Go(func() {
			h.count(1)
			defer h.count(-1)
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}

func (h *Host) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams += n
}

func keep[T any](log *[]T, entry T) {
	if len(*log) < maxLog {
		*log = append(*log, entry)
	}
}

// Requests returns the requests received so far.
func (h *Host) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Accepted returns the connections accepted so far, as "port from-address".
func (h *Host) Accepted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.accepted)
}

// Streams returns the number of open event streams and echoes.
func (h *Host) Streams() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams
}

// Reset empties every log.
func (h *Host) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests, h.accepted, h.queries, h.packets = nil, nil, nil, nil
	clear(h.asked)
}

// WriteCA writes the root certificate as PEM to file.
func (h *Host) WriteCA(file string) error { return os.WriteFile(file, h.CA, 0o644) }

// Close stops the servers and removes the links. The namespaces end with their last user.
func (h *Host) Close() error {
	var errs []error
	for _, s := range h.servers {
		errs = append(errs, s.Close())
	}
	for _, s := range h.names {
		_ = s.Shutdown() // it fails for a server that was not started
	}
	for _, c := range h.closers {
		errs = append(errs, c.Close())
	}
	// The link comes first: it ends hanging connections.
	if link, err := netlink.LinkByName(h.link); err == nil && h.ns != nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	for _, ns := range h.plugged {
		errs = append(errs, ns.Close())
	}
	if h.ns != nil {
		errs = append(errs, h.ns.Close())
	}
	return errors.Join(errs...)
}

type logged struct {
	net.Listener
	host *Host
	port int
}

func (l *logged) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.host.mu.Lock()
		keep(&l.host.accepted, fmt.Sprintf("%d %s", l.port, c.RemoteAddr()))
		l.host.mu.Unlock()
	}
	return c, err
}

// Get makes a request to the host directly, without a sandbox, as a control for tests.
func (h *Host) Get(ctx context.Context, name, path string) (int, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CA)
	var d net.Dialer
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, netip.AddrPortFrom(h.Addr, 443).String())
		},
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
