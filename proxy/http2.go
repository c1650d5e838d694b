// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
)

// serveHTTP2 serves the streams of one HTTP/2 connection, each judged on its own.
// With why, every one gets that answer.
func serveHTTP2(ctx context.Context, c *connection, conn *tls.Conn, to target, up *upstreamHTTP, why *answer) {
	h := &http2Handler{c: c, to: to, up: up, why: why}
	c.serveStreams(ctx, conn, to, h.serve)
}

// serveStreams serves an HTTP/2 connection. Each request is served once there is memory
// for it.
func (c *connection) serveStreams(ctx context.Context, conn *tls.Conn, to target, serve heldHandler) {
	refuse := func(err error) { c.recordExhausted(to, "h2", 0, err) }
	if err := c.account.Take(ctx, http2Cost); err != nil {
		refuse(err)
		return
	}
	defer c.account.Release(http2Cost)
	gate := newStreamGate(ctx, c, conn, refuse)
	gate.malformed = func(reason string, status int) {
		c.record(record{dec: c.malformed(reason), to: to, protocol: "h2", status: status})
	}
	defer gate.finish()
	server := &http2.Server{
		CountError: gate.counted, MaxConcurrentStreams: MaxStreams, IdleTimeout: IdleTimeout, ReadIdleTimeout: IdleTimeout,
		MaxReadFrameSize: frameSize, MaxUploadBufferPerConnection: uploadWindow, MaxUploadBufferPerStream: uploadWindow,
	}
	server.ServeConn(gate, &http2.ServeConnOpts{
		Context: ctx, Handler: &gatedHandler{c, to, gate, serve},
		BaseConfig: &http.Server{MaxHeaderBytes: maxFieldBytes, ErrorLog: log.New(io.Discard, "", 0)},
	})
}

// heldHandler serves a request that has memory.
type heldHandler func(w http.ResponseWriter, req *http.Request, hold *memory.Hold)

// gatedHandler calls serve with the memory that the gate has taken for the request.
type gatedHandler struct {
	c     *connection
	to    target
	gate  *streamGate
	serve heldHandler
}

func (g *gatedHandler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !g.c.server.begin() { // the sandbox has ended
		panic(http.ErrAbortHandler)
	}
	defer g.c.server.tasks.Done()
	hold, refused := g.gate.begin()
	defer g.gate.end(hold, refused)
	if refused {
		g.c.recordExhausted(g.to, "h2", http.StatusServiceUnavailable, memory.ErrExhausted)
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(refusalTime))
		outOfMemory().serve(w)
		_ = rc.Flush() // the memory is held until the client has the answer
		return
	}
	cost, fields := headCost(req.Header)
	if cost > maxHeadCost { // the gate has taken the difference until the stream ends
		g.c.account.Force(cost - maxHeadCost)
		hold.Add(cost - maxHeadCost)
	}
	hold.Shrink(maxHeadCost - min(cost, maxHeadCost))
	if size := (cost-fields*fieldCost)/byteCost + fields*fieldOverhead; size > MaxHead || fields > inspect.MaxFields {
		a := badRequest(inspect.ErrHeadTooLarge.Error())
		a.status = http.StatusRequestHeaderFieldsTooLarge
		g.c.record(record{dec: g.c.malformed(inspect.ErrHeadTooLarge.Error()), to: g.to, protocol: "h2", status: a.status})
		a.serve(w)
		return
	}
	g.serve(w, req, hold)
}

// fieldOverhead is the size that a field has in MaxHead in addition to its name and value:
// that of the separators of HTTP/1.
const fieldOverhead = int64(len(": \r\n"))

// headCost returns the memory that a head takes, in bytes, and the number of its fields.
func headCost(h http.Header) (cost, fields int64) {
	for name, values := range h {
		for _, v := range values {
			cost += fieldCost + byteCost*int64(len(name)+len(v))
			fields++
		}
	}
	return cost, fields
}

type http2Handler struct {
	c   *connection
	to  target
	up  *upstreamHTTP
	why *answer
}

// http2Request is one request over HTTP/2.
type http2Request struct {
	*http2Handler
	w http.ResponseWriter
	r request
}

func (h *http2Handler) serve(w http.ResponseWriter, req *http.Request, hold *memory.Hold) {
	if h.why != nil {
		h.why.serve(w)
		return
	}
	s := &http2Request{h, w, request{to: h.to, protocol: "h2", began: time.Now(), hold: hold}}
	h.c.serveRequest(req.Context(), s, req, &s.r)
}

// locate implements [httpClient].
func (s *http2Request) locate(req *http.Request, r *request) (uri string, no *refusal) {
	refuse := func(a answer, reason string) (string, *refusal) {
		return "", &refusal{a, s.c.sandbox.denial(policy.L7, reason)}
	}
	if !r.to.is(req.Host) {
		a := wrongAuthority(req.Host, r.to)
		a.status = http.StatusMisdirectedRequest
		return refuse(a, fmt.Sprintf(":authority is %.300q, the connection is for %s", req.Host, r.to))
	}
	if !inspect.Method(req.Method) || req.Method == http.MethodConnect || !strings.HasPrefix(req.RequestURI, "/") {
		return refuse(badTarget("no request for a path"), "no request for a path")
	}
	if v := req.Header["Content-Length"]; len(v) > 1 || len(v) == 1 && !inspect.Length(v[0]) {
		return refuse(badRequest("Content-Length is not one plain number"), "Content-Length is not one plain number")
	}
	return req.RequestURI, nil
}

// judge implements [httpClient].
func (s *http2Request) judge(req *http.Request, r *request, uri string) *answer {
	return s.c.judgeRequest(r, req, uri, false)
}

func (s *http2Request) reach(*request) bool { return true }

// receive implements [httpClient].
func (s *http2Request) receive(_ *http.Request, until time.Time) error {
	return http.NewResponseController(s.w).SetReadDeadline(until)
}

func (s *http2Request) interim() io.Writer { return nil }

// abort implements [httpClient]: it resets the stream.
func (s *http2Request) abort() { panic(http.ErrAbortHandler) }

// refuse implements [httpClient].
func (s *http2Request) refuse(_ *http.Request, a answer) { a.serve(s.w) }

// carry implements [httpClient].
func (s *http2Request) carry(ctx context.Context, req *http.Request, r *request) (more bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.c.track(r, cancel)
	defer s.c.untrack(r)
	rec := r.record()
	resp, x, err := s.roundTrip(ctx, req, r)
	defer s.up.finish(x)
	if err == nil {
		err = r.scrub(resp)
	}
	if err != nil {
		rec.err = failure(ctx, err)
		var a answer
		a, rec.dec = r.outcome(req.Method, rec.err)
		s.c.failRequest(s, req, rec, a)
		return false
	}
	defer resp.Body.Close()
	rec.status, rec.sent = resp.StatusCode, r.injected
	rec.in, err = respond(s.w, resp)
	rec.err = failure(ctx, copied(err))
	rec.dec = r.cutOff(rec.dec, rec.err)
	s.c.record(rec)
	if err != nil {
		s.abort() // a cut-off answer must not look whole
	}
	return true
}

// roundTrip returns the answer, and the request as it was sent, for which the caller calls
// finish. A request that the server has not processed is sent again, with the part of its
// body that was kept.
//
// Preconditions: j.cancel ends ctx.
func (h *http2Handler) roundTrip(ctx context.Context, req *http.Request, j *request) (*http.Response, *exchange, error) {
	body := keepBody(req, j.hold)
	defer body.forget()
	for repeats := 0; ; repeats++ {
		x, err := h.up.http2(ctx, j.cancel, j.l4)
		if err != nil {
			return nil, nil, err
		}
		resp, err := x.RoundTrip(h.outgoing(x.context(ctx), req, j, body))
		if err == nil || ctx.Err() != nil {
			return resp, x, err
		}
		unprocessed := unprocessed(err)
		// Connections often end between two requests. A request that the server may have
		// processed is repeated only then, once, and only if it is idempotent and has no
		// body.
		again := unprocessed || repeats == 0 && body == nil && idempotent(req.Method) && !x.CanTakeNewRequest()
		if !again || repeats == maxRepeats || !body.rewind() {
			if unprocessed {
				err = fmt.Errorf("%w: %w", errUnprocessed, err)
			}
			return nil, x, err
		}
		if unprocessed && x.CanTakeNewRequest() {
			pause(ctx, repeats)
		}
		h.up.finish(x)
	}
}

// outgoing returns the request as it is sent.
func (h *http2Handler) outgoing(ctx context.Context, req *http.Request, j *request, body *keptBody) *http.Request {
	path, query := j.target()
	out := (&http.Request{}).WithContext(ctx) // which copies the request
	out.Method, out.Host, out.Header = req.Method, h.to.header(), make(http.Header, len(req.Header))
	// Opaque keeps the path as it was judged.
	out.URL = &url.URL{Scheme: "https", Host: h.to.header(), Opaque: "//" + h.to.header() + path, RawQuery: query}
	out.Body, out.ContentLength, out.Trailer = http.NoBody, req.ContentLength, req.Trailer
	drop := exclude(req.Header)
	for k, v := range req.Header {
		if !drop[k] {
			out.Header[k] = v
		}
	}
	if req.Header.Get("Te") == "trailers" {
		out.Header.Set("Te", "trailers") // gRPC asks for it
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // or one of the library's is sent
	}
	if body != nil {
		out.Body = body.attempt()
	}
	return out
}

// respond copies the answer as it comes, trailers last.
func respond(w http.ResponseWriter, resp *http.Response) (n int64, err error) {
	header := w.Header()
	drop := exclude(resp.Header)
	for k, v := range resp.Header {
		if !drop[k] || k == "Content-Length" {
			header[k] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	flush := http.NewResponseController(w).Flush
	if resp.ContentLength >= 0 && resp.ContentLength <= smallAnswer {
		// Head and body go together.
		flush = func() error { return nil }
	}
	if err := flush(); err != nil {
		return 0, &writeError{err}
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		k, rerr := resp.Body.Read(*buf)
		if k > 0 {
			if _, err := w.Write((*buf)[:k]); err != nil {
				return n, &writeError{err}
			}
			n += int64(k)
			if err := flush(); err != nil {
				return n, &writeError{err}
			}
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return n, rerr
		}
	}
	for k, v := range resp.Trailer {
		if !hopByHop[k] {
			header[http.TrailerPrefix+k] = v
		}
	}
	return n, nil
}
