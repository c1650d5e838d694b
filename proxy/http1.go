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
		if !h.request(ctx, req) || ctx.Err() != nil {
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

// protocol returns the name that records give to HTTP/1 with the target.
func (t target) protocol() string {
	if t.tls {
		return "https"
	}
	return "http"
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

// refuse answers a request that is not carried and ends the connection.
func (h *http1) refuse(req *http.Request, to target, asked *policy.HTTP, a answer, dec policy.Decision) {
	h.c.record(record{dec: dec, to: to, protocol: to.protocol(), http: asked, status: a.status})
	h.end(a, req.Method == http.MethodHead)
}

// refuseJudged is refuse for a request that was judged and not carried all the same.
func (h *http1) refuseJudged(req *http.Request, j *request, a answer, dec policy.Decision) {
	h.failed(req, record{dec: dec, to: j.to, protocol: j.to.protocol(), http: j.asked, steps: j.steps}, a)
}

// failed records a request that ended before it was answered, and answers it if the client
// is still there.
func (h *http1) failed(req *http.Request, rec record, a answer) {
	if errors.Is(rec.err, errClientGone) {
		h.c.record(rec)
		return
	}
	rec.status = a.status
	h.c.record(rec)
	h.end(a, req.Method == http.MethodHead)
}

// reading gets the client to send a request's body, by a deadline.
func (h *http1) reading(req *http.Request) func(until time.Time) error {
	return func(until time.Time) error {
		err := h.conn.SetReadDeadline(until)
		if err == nil && !until.IsZero() && req.ProtoAtLeast(1, 1) && strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
			_, err = io.WriteString(h.conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		return err
	}
}

// end answers and ends the connection such that the answer arrives.
func (h *http1) end(a answer, head bool) {
	if a.write(h.conn, head) == nil {
		drain(h.conn, h.br)
	}
}

// request judges one request and carries it; it says whether another may follow.
func (h *http1) request(ctx context.Context, req *http.Request) (more bool) {
	c, to, uri := h.c, h.to, req.RequestURI
	refuse := func(a answer, reason string) bool {
		h.refuse(req, to, nil, a, c.sandbox.denial(policy.L7, reason))
		return false
	}
	switch {
	case h.forward:
		var err error
		if to, uri, err = absolute(uri); err != nil {
			return refuse(badRequest(err.Error()), err.Error())
		}
		to.own = len(c.sandbox.ownAddresses(to.host)) > 0
	case uri == "*":
		return refuse(badTarget("OPTIONS * is for no path"), "no request for a path")
	default:
		rest, err := inTunnel(uri, to)
		if err != nil {
			return refuse(wrongAuthority(uri, to), err.Error())
		}
		if uri = rest; !to.named(req) {
			return refuse(wrongAuthority(req.Host, to), fmt.Sprintf("Host is %q, the connection is for %s", req.Host, to))
		}
	}
	if err := c.identify(); err != nil {
		if clientClosed(c.client.TCPConn) {
			c.recordLeft(c.sandbox, to, to.protocol(), err)
			return false
		}
		return refuse(refusedConnection(req.Method, to, err.Error()), err.Error())
	}
	j, a := c.judgeRequest(to, req, uri, h.forward, handshake(req))
	j.hold = h.hold
	if a != nil {
		h.refuse(req, to, j.asked, *a, j.dec)
		return false
	}
	if h.up == nil || h.up.to != to {
		if h.up != nil {
			h.up.close()
		}
		h.up = newUpstreamHTTP(c, to, nil)
		var ok bool
		if j.l4, ok = c.begin(to, j.l4, true); !ok {
			return false
		}
	}
	if to.own {
		return h.carry(ctx, req, j)
	}
	if a := j.notUpgraded(req); a != nil {
		h.refuseJudged(req, j, *a, j.dec)
		return false
	}
	out, a := c.transform(ctx, req, j, h.reading(req))
	if a == nil {
		out, a = c.inject(out, j, h.conn)
	}
	if a != nil {
		h.refuseJudged(req, j, *a, j.dec)
		return false
	}
	return h.carry(ctx, out, j)
}

// inTunnel is the path and query of a request on a connection to one target.
func inTunnel(uri string, to target) (string, error) {
	if strings.HasPrefix(uri, "/") {
		return uri, nil
	}
	scheme, after, ok := strings.Cut(uri, "://")
	authority, rest := cutAuthority(after)
	if !ok || !to.is(authority) || strings.EqualFold(scheme, "https") != to.tls {
		return "", fmt.Errorf("request target %.80q is not on %s", uri, to)
	}
	return rest, nil
}

// cutAuthority parts what follows :// in a URL.
func cutAuthority(s string) (authority, rest string) {
	end := strings.IndexAny(s, "/?")
	if end < 0 {
		return s, "/"
	}
	if s[end] == '?' {
		return s[:end], "/" + s[end:]
	}
	return s[:end], s[end:]
}

// is says whether an authority in a request names the target.
func (t target) is(authority string) bool {
	if authority == t.header() {
		return true // as nearly all are
	}
	host, port, err := splitHost(authority, t.standardPort())
	return err == nil && host == t.host && port == t.port
}

// named reports whether a request over HTTP/1 is for the target. A request of HTTP/1.0
// without Host is, too: it is forwarded with the name of the target.
func (t target) named(req *http.Request) bool {
	return t.is(req.Host) || req.Host == "" && !req.ProtoAtLeast(1, 1)
}

func (t target) standardPort() uint16 {
	if t.tls {
		return 443
	}
	return 80
}

// header is the target as a Host header says it.
func (t target) header() string {
	switch {
	case t.port != t.standardPort():
		return t.String()
	case strings.Contains(t.host, ":"):
		return "[" + t.host + "]"
	}
	return t.host
}
