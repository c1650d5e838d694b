// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
)

// http1 serves requests of one HTTP/1 connection, each judged on its own.
type http1 struct {
	c    *connection
	conn net.Conn
	// br is lent while there is something to read.
	br *bufio.Reader
	// to is where all requests go; forward means that each names its own target
	// in absolute form.
	to      target
	forward bool
	up      *upstreamHTTP
	// hold is the memory of the request that is served.
	hold *memory.Hold
	// named is the target that the request line of the request being read names, for
	// records of heads that are refused. It is the zero target if the line names none.
	named target

	// cancel ends the request that is carried, and with it the connection.
	cancel context.CancelCauseFunc
	// watcher waits to look after the client, watched says that it does, and looked
	// is told when it has.
	watcher *time.Timer
	watched bool
	looked  chan struct{}
}

func (h *http1) serve(whole context.Context) {
	ctx, cancel := context.WithCancelCause(whole)
	defer cancel(nil)
	h.cancel = func(why error) {
		cancel(why)
		h.c.cut()
	}
	h.hold = h.c.account.Hold(0)
	defer func() {
		h.hold.Release()
		h.giveReader()
		if h.up != nil {
			h.up.close()
		}
	}()
	for h.await() {
		if err := h.c.account.Take(ctx, streamCost); err != nil {
			h.c.recordExhausted(h.to, h.to.protocol(), http.StatusServiceUnavailable, err)
			h.end(outOfMemory(), false)
			return
		}
		h.hold.Add(streamCost)
		_ = h.conn.SetReadDeadline(time.Now().Add(h.c.server.timeouts.head))
		if err := h.checkHead(ctx); err != nil {
			h.named, _ = h.headTarget()
			h.malformed(err)
			return
		}
		var tunnel bool
		h.named, tunnel = h.headTarget()
		if h.forward && !tunnel && h.c.sandbox.isRouter(h.named.host) {
			h.hold.Release()
			h.route(ctx, h.named)
			return
		}
		req, err := http.ReadRequest(h.br)
		if err != nil {
			h.malformed(err)
			return
		}
		_ = h.conn.SetReadDeadline(time.Time{})
		cost, _ := headCost(req.Header)
		h.hold.Shrink(maxHeadCost - min(cost, maxHeadCost))
		if req.Method == http.MethodConnect && h.forward {
			h.hold.Release()
			h.connect(whole, req) // which outlives this
			return
		}
		if !h.c.serveRequest(ctx, h, req, &request{to: h.to, hold: h.hold}) || ctx.Err() != nil {
			return
		}
		h.hold.Release()
	}
}

// await returns when the client says something. For one that is silent no buffer
// is kept.
func (h *http1) await() bool {
	if h.br == nil {
		h.br = takeReader(&smallReaders, h.conn)
	}
	if h.br.Size() > smallHead && h.br.Buffered() <= smallHead {
		h.resize(&smallReaders)
	}
	quiet := min(quietAfter, h.c.server.timeouts.idle)
	_ = h.conn.SetReadDeadline(time.Now().Add(quiet))
	_, err := h.br.Peek(1)
	if !timedOut(err) {
		return err == nil
	}
	h.br = nil // the pool would keep it
	if h.up != nil {
		h.up.rest()
	}
	tidySoon()
	_ = h.conn.SetReadDeadline(time.Now().Add(h.c.server.timeouts.idle - quiet))
	var first [1]byte
	if _, err := io.ReadFull(h.conn, first[:]); err != nil {
		return false
	}
	h.br = takeReader(&smallReaders, io.MultiReader(bytes.NewReader(first[:]), h.conn))
	_, err = h.br.Peek(1)
	return err == nil
}

// giveReader gives the buffer back. Nothing that was read may be needed any more.
func (h *http1) giveReader() {
	if h.br != nil {
		giveReader(poolOf(h.br), h.br)
		h.br = nil
	}
}

// checkHead looks at a request's head, for which it gets a larger buffer if that is
// needed.
func (h *http1) checkHead(ctx context.Context) error {
	err := inspect.CheckHead(h.br, MaxHead)
	if !errors.Is(err, inspect.ErrHeadTooLarge) || h.br.Size() >= MaxHead || h.br.Buffered() < h.br.Size() {
		return err
	}
	if err := h.c.account.Take(ctx, largeHeadCost); err != nil {
		return err
	}
	h.hold.Add(largeHeadCost)
	h.resize(&readers)
	return inspect.CheckHead(h.br, MaxHead)
}

// resize replaces the buffer by one of another pool and keeps its content.
func (h *http1) resize(pool *sync.Pool) {
	held, _ := h.br.Peek(h.br.Buffered())
	held = bytes.Clone(held)
	giveReader(poolOf(h.br), h.br)
	h.br = takeReader(pool, io.MultiReader(bytes.NewReader(held), h.conn))
	_, _ = h.br.Peek(len(held)) // into the buffer, so that the MultiReader reads only from the connection
}

func poolOf(br *bufio.Reader) *sync.Pool {
	if br.Size() > smallHead {
		return &readers
	}
	return &smallReaders
}

// malformed refuses what is not one clear request.
func (h *http1) malformed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || timedOut(err) && h.br.Buffered() <= len("\r\n") { // nothing, or an empty line
		return
	}
	if errors.Is(err, memory.ErrExhausted) {
		h.c.recordExhausted(h.named, h.named.protocol(), http.StatusServiceUnavailable, err)
		h.end(outOfMemory(), false)
		return
	}
	a := badRequest(err.Error())
	switch {
	case errors.Is(err, inspect.ErrHeadTooLarge):
		a.status = http.StatusRequestHeaderFieldsTooLarge
	case timedOut(err):
		a.status = http.StatusRequestTimeout
	}
	dec := h.c.sandbox.denial(policy.L7, "malformed request: "+err.Error())
	h.c.record(record{dec: dec, to: h.named, protocol: h.named.protocol(), status: a.status})
	h.end(a, false)
}

// receive implements [httpClient]. It tells a client that waits for that to send the body.
func (h *http1) receive(req *http.Request, until time.Time) error {
	err := h.conn.SetReadDeadline(until)
	if err == nil && !until.IsZero() && req.ProtoAtLeast(1, 1) && strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		_, err = io.WriteString(h.conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	return err
}

func (h *http1) interim() io.Writer { return h.conn }

func (h *http1) abort() {}

// refuse implements [httpClient]: it ends the connection.
func (h *http1) refuse(req *http.Request, a answer) { h.end(a, req.Method == http.MethodHead) }

// refuseConnect records and answers a CONNECT request that is refused.
func (h *http1) refuseConnect(to target, a answer, dec policy.Decision) {
	h.c.record(record{dec: dec, to: to, protocol: to.protocol(), status: a.status})
	h.end(a, false)
}

// end answers and ends the connection such that the answer arrives.
func (h *http1) end(a answer, head bool) {
	if a.write(h.conn, head) == nil {
		drain(h.conn, h.br)
	}
}

// locate implements [httpClient].
func (h *http1) locate(req *http.Request, r *request) (uri string, no *refusal) {
	refuse := func(a answer, reason string) (string, *refusal) {
		return "", &refusal{a, h.c.sandbox.denial(policy.L7, reason)}
	}
	uri = req.RequestURI
	if h.forward {
		var err error
		if r.to, uri, err = absolute(uri); err != nil {
			return refuse(badRequest(err.Error()), err.Error())
		}
		r.to.own = h.c.sandbox.isOwn(r.to.host)
		return uri, nil
	}
	if uri == "*" {
		return refuse(badTarget("OPTIONS * is for no path"), "no request for a path")
	}
	rest, err := inTunnel(uri, r.to)
	if err != nil {
		return refuse(wrongAuthority(uri, r.to), err.Error())
	}
	if !r.to.named(req) {
		return refuse(wrongAuthority(req.Host, r.to), fmt.Sprintf("Host is %q, the connection is for %s", req.Host, r.to))
	}
	return rest, nil
}

// judge implements [httpClient].
func (h *http1) judge(req *http.Request, r *request, uri string) *answer {
	return h.c.judgeRequest(r, req, uri, h.forward)
}

// reach implements [httpClient]: the other side is another one if the target is.
func (h *http1) reach(r *request) bool {
	if h.up != nil && h.up.to == r.to {
		return true
	}
	if h.up != nil {
		h.up.close()
	}
	h.up = newUpstreamHTTP(h.c, r.to, nil)
	var ok bool
	r.l4, ok = h.c.begin(r.to, r.l4, true)
	return ok
}

// headTarget returns the target of the request whose head was read ahead. Of a client that
// speaks to the proxy itself, that is the target that the request line names; the zero
// target if it names none. tunnel is true for CONNECT.
func (h *http1) headTarget() (to target, tunnel bool) {
	if !h.forward {
		return h.to, false
	}
	head, _ := h.br.Peek(h.br.Buffered())
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	uri, _, _ := bytes.Cut(rest, []byte(" "))
	var err error
	if tunnel = string(method) == http.MethodConnect; tunnel {
		to.host, to.port, err = splitHost(string(uri), 0)
	} else {
		to, _, err = absolute(string(uri))
	}
	if err != nil {
		return target{}, tunnel
	}
	return to, tunnel
}

// route has the router answer one request in absolute form. The connection ends
// then: the next request may be for another host.
func (h *http1) route(ctx context.Context, to target) {
	c := h.c
	if to.port != to.standardPort() {
		c.refuseRaw(to, c.sandbox.denial(policy.L4, routerPorts))
		return
	}
	c.client.unread(h.br)
	h.br.Reset(nil)
	router := c.routed(to)
	c.serveOne(ctx, c.client, to, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Connection", "close")
		router.ServeHTTP(w, req)
	}))
}
