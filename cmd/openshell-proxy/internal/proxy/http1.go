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
	"time"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/inspect"
	"openshell.dev/runtime/cmd/openshell-proxy/internal/memory"
	"openshell.dev/runtime/policy"
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
			h.c.recordExhausted(h.to, h.protocol(), http.StatusServiceUnavailable, err)
			h.end(outOfMemory(), false)
			return
		}
		h.hold.Add(streamCost)
		_ = h.conn.SetReadDeadline(time.Now().Add(h.c.s.waits.head))
		if err := inspect.CheckHead(h.br, MaxHead); err != nil {
			h.malformed(err)
			return
		}
		if to, ok := h.forRouter(); ok {
			h.hold.Release()
			h.route(ctx, to)
			return
		}
		req, err := http.ReadRequest(h.br)
		if err != nil {
			h.malformed(err)
			return
		}
		_ = h.conn.SetReadDeadline(time.Time{})
		h.hold.Shrink(maxHeadCost - min(headCost(req.Header), maxHeadCost))
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
	quiet := min(quietAfter, h.c.s.waits.idle)
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
	_ = h.conn.SetReadDeadline(time.Now().Add(h.c.s.waits.idle - quiet))
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
		giveReader(&smallReaders, h.br)
		h.br = nil
	}
}

func (h *http1) protocol() string {
	if h.to.tls {
		return "https"
	}
	return "http"
}

// malformed refuses what is not one clear request.
func (h *http1) malformed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	a := badRequest(err.Error())
	switch {
	case errors.Is(err, inspect.ErrHeadTooLarge):
		a.status = http.StatusRequestHeaderFieldsTooLarge
	case timedOut(err):
		a.status = http.StatusRequestTimeout
	}
	dec := policy.Decision{Reason: "malformed request: " + err.Error(), Layer: policy.L7, Revision: h.c.s.engine.Load().engine.Revision()}
	h.c.record(record{dec: dec, to: h.to, protocol: h.protocol(), status: a.status})
	h.end(a, false)
}

// refuse answers a request that is not carried and ends the connection.
func (h *http1) refuse(req *http.Request, to target, asked *policy.HTTP, a answer, dec policy.Decision) {
	h.c.record(record{dec: dec, to: to, protocol: h.protocol(), http: asked, status: a.status})
	h.end(a, req.Method == http.MethodHead)
}

// refuseJudged is refuse for a request that was judged and not carried all the same.
func (h *http1) refuseJudged(req *http.Request, j *judged, a answer, dec policy.Decision) {
	h.c.record(record{dec: dec, to: j.to, protocol: h.protocol(), http: j.asked, status: a.status, steps: j.steps})
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
		h.refuse(req, to, nil, a, policy.Decision{Reason: reason, Layer: policy.L7, Revision: c.s.engine.Load().engine.Revision()})
		return false
	}
	switch {
	case h.forward:
		var err error
		if to, uri, err = absolute(uri); err != nil {
			return refuse(badRequest(err.Error()), err.Error())
		}
		to.own = len(c.s.ownAddresses(to.host)) > 0
	case uri == "*":
		return refuse(badTarget("OPTIONS * is for no path"), "no request for a path")
	default:
		rest, err := inTunnel(uri, to)
		if err != nil {
			return refuse(wrongAuthority(uri, to), err.Error())
		}
		if uri = rest; !to.is(req.Host) {
			return refuse(wrongAuthority(req.Host, to), fmt.Sprintf("Host is %q, the connection is for %s", req.Host, to))
		}
	}
	if err := c.identify(); err != nil {
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

// checkQuery refuses bytes that a query may not have and servers take for
// something else.
func checkQuery(q string) error {
	for i := range len(q) {
		if b := q[i]; b <= ' ' || b >= 0x7f || b == '#' {
			return fmt.Errorf("query: byte %#02x must be percent-encoded", b)
		}
	}
	return nil
}
