// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
)

// entry is a way into the proxy.
type entry struct {
	name  string
	tls   bool
	proto string
	// client makes one for a host that has the synthetic address.
	client func(w *world) *http.Client
}

var entries = []entry{
	{"CONNECT and TLS, HTTP/1", true, "HTTP/1.1", func(w *world) *http.Client { return w.client(w.byConnect, "http/1.1") }},
	{"CONNECT and TLS, HTTP/2", true, "HTTP/2.0", func(w *world) *http.Client { return w.client(w.byConnect, "h2") }},
	{"CONNECT and HTTP", false, "HTTP/1.1", func(w *world) *http.Client { return w.client(w.byConnect) }},
	{"absolute form", false, "HTTP/1.1", func(w *world) *http.Client {
		u, _ := url.Parse("http://" + w.addr)
		t := &http.Transport{Proxy: http.ProxyURL(u), DisableCompression: true}
		w.t.Cleanup(t.CloseIdleConnections)
		return &http.Client{Transport: t, CheckRedirect: noRedirect, Timeout: patience}
	}},
	{"absolute form of https", true, "HTTP/1.1", func(w *world) *http.Client {
		t := &http.Transport{DisableCompression: true}
		w.t.Cleanup(t.CloseIdleConnections)
		return &http.Client{Transport: &absoluteForm{w.addr, t}, CheckRedirect: noRedirect, Timeout: patience}
	}},
	{"transparent TLS, HTTP/1", true, "HTTP/1.1", func(w *world) *http.Client { return w.client(w.bySynthetic, "http/1.1") }},
	{"transparent TLS, HTTP/2", true, "HTTP/2.0", func(w *world) *http.Client { return w.client(w.bySynthetic, "h2") }},
	{"transparent HTTP", false, "HTTP/1.1", func(w *world) *http.Client { return w.client(w.bySynthetic) }},
}

// absoluteForm asks the proxy for https URLs in absolute form, as old clients do.
type absoluteForm struct {
	proxy string
	*http.Transport
}

func (a *absoluteForm) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Host, out.URL = req.URL.Host, &url.URL{Scheme: "http", Host: a.proxy, Opaque: req.URL.String()}
	return a.Transport.RoundTrip(out)
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (w *world) byConnect(authority string) (net.Conn, error) {
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		return nil, err
	}
	status, head, err := tryConnect(c, authority)
	if err == nil && status != 200 {
		err = errors.New(head)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (w *world) bySynthetic(authority string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(authority)
	for a, name := range synthetic {
		if name == host {
			return net.Dial("tcp", w.redirect(a.String()+":"+port))
		}
	}
	return nil, errors.New("no synthetic address for " + host)
}

func (w *world) client(dial func(authority string) (net.Conn, error), protocols ...string) *http.Client {
	t := &http.Transport{
		DialContext:        func(_ context.Context, _, authority string) (net.Conn, error) { return dial(authority) },
		TLSClientConfig:    &tls.Config{RootCAs: w.roots, NextProtos: protocols},
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP1(len(protocols) == 0 || protocols[0] != "h2")
	t.Protocols.SetHTTP2(len(protocols) > 0 && protocols[0] == "h2")
	w.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: noRedirect, Timeout: patience}
}

// url is a place on api.example.com for an entry.
func (e *entry) url(rest string) string {
	if e.tls {
		return "https://api.example.com" + rest
	}
	return "http://api.example.com" + rest
}

// get asks and reads the whole answer.
func get(t testing.TB, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}

// both serves api.example.com with and without TLS.
func (w *world) both(handler http.Handler, protocols ...string) (plain, secure *site) {
	return w.site("api.example.com", 80, handler), w.site("api.example.com", 443, handler, protocols...)
}
