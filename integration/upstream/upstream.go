// SPDX-License-Identifier: Apache-2.0

// Package upstream is the other side of a sandbox's connections: a host of its
// own (a network namespace joined to this one by a veth pair) with an HTTP and an
// HTTPS server behind a real certificate chain (root, intermediate, leaf).
//
// It keeps a log of every connection it accepted and every request it received,
// because that, and not the client's error, shows whether a refusal held. It
// needs root.
package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// maxBody bounds the request body that is kept.
const maxBody = 1 << 20

// Request is one request as the server received it.
type Request struct {
	Method, Host, Path, Query, Proto, Body string
}

// Host is a running upstream.
type Host struct {
	// Addr is the host's address, reachable from the namespace Start ran in.
	Addr netip.Addr
	// CA is the PEM of the root that signed the chain.
	CA []byte

	link     string
	servers  []*http.Server
	done     sync.WaitGroup
	mu       sync.Mutex
	requests []Request
	accepted []string
}

// Start makes the host at 10.231.NET.2 (this side is .1) and serves names.
// net keeps hosts of concurrent users apart, 0 to 255.
func Start(net byte, names ...string) (_ *Host, err error) {
	h := &Host{
		Addr: netip.AddrFrom4([4]byte{10, 231, net, 2}),
		link: fmt.Sprintf("osup%d", net),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	cert, root, err := chain(append(names, h.Addr.String()))
	if err != nil {
		return nil, err
	}
	h.CA = root
	listeners, err := h.plug(net)
	if err != nil {
		return nil, err
	}
	for port, l := range listeners {
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
	return h, nil
}

// plug makes the namespace and its link, and opens the listeners inside it.
func (h *Host) plug(n byte) (map[int]net.Listener, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open this network namespace: %w", err)
	}
	defer here.Close()
	// netns.New moves this thread into the new namespace.
	there, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("create upstream's network namespace: %w", err)
	}
	defer there.Close()
	defer func() {
		if err := netns.Set(here); err != nil {
			panic(fmt.Sprintf("return to network namespace: %v", err))
		}
	}()
	inner := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: h.link, PeerNamespace: netlink.NsFd(here)}
	if err := netlink.LinkAdd(inner); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", h.link, err)
	}
	if err := up("lo", ""); err != nil {
		return nil, err
	}
	if err := up("eth0", fmt.Sprintf("10.231.%d.2/24", n)); err != nil {
		return nil, err
	}
	out := map[int]net.Listener{}
	for _, port := range []int{80, 443} {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return nil, fmt.Errorf("listen in upstream: %w", err)
		}
		out[port] = l
	}
	if err := netns.Set(here); err != nil {
		return nil, fmt.Errorf("return to network namespace: %w", err)
	}
	return out, up(h.link, fmt.Sprintf("10.231.%d.1/24", n))
}

func up(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if address != "" {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add address %s to %s: %w", address, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func (h *Host) handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	h.requests = append(h.requests, Request{r.Method, r.Host, r.URL.Path, r.URL.RawQuery, r.Proto, string(body)})
	h.mu.Unlock()
	fmt.Fprintf(w, "upstream saw %s %s\n", r.Method, r.URL.Path)
}

// Requests are the requests received so far.
func (h *Host) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Accepted are the connections accepted so far, "port from-address" each.
func (h *Host) Accepted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.accepted)
}

// WriteCA writes the root's PEM to file.
func (h *Host) WriteCA(file string) error { return os.WriteFile(file, h.CA, 0o644) }

// Close stops the servers and removes the link; the namespace goes with its
// last socket.
func (h *Host) Close() error {
	var errs []error
	for _, s := range h.servers {
		errs = append(errs, s.Close())
	}
	h.done.Wait()
	if link, err := netlink.LinkByName(h.link); err == nil {
		errs = append(errs, netlink.LinkDel(link))
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
		l.host.accepted = append(l.host.accepted, fmt.Sprintf("%d %s", l.port, c.RemoteAddr()))
		l.host.mu.Unlock()
	}
	return c, err
}

// chain makes a root, an intermediate and a leaf for names, valid for a day.
func chain(names []string) (tls.Certificate, []byte, error) {
	var zero tls.Certificate
	sign := func(t, parent *x509.Certificate, key any, signer any) (*x509.Certificate, error) {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return nil, err
		}
		t.SerialNumber, t.NotBefore, t.NotAfter = n, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, t, parent, key, signer)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	var keys [3]*ecdsa.PrivateKey
	for i := range keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return zero, nil, fmt.Errorf("make upstream's keys: %w", err)
		}
		keys[i] = k
	}
	authority := func(cn string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	rootT := authority("Upstream Test Root")
	root, err := sign(rootT, rootT, &keys[0].PublicKey, keys[0])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's root: %w", err)
	}
	middle, err := sign(authority("Upstream Test Intermediate"), root, &keys[1].PublicKey, keys[0])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's intermediate: %w", err)
	}
	leafT := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leafT.IPAddresses = append(leafT.IPAddresses, ip)
		} else {
			leafT.DNSNames = append(leafT.DNSNames, n)
		}
	}
	leaf, err := sign(leafT, middle, &keys[2].PublicKey, keys[1])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's leaf: %w", err)
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw, middle.Raw}, PrivateKey: keys[2], Leaf: leaf}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), nil
}

// Get asks the host directly, without a sandbox: a control for tests.
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
