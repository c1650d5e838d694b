// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"syscall"
	"time"

	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/header"
)

// hopByHop are headers of one connection, not of the message, and those that are written
// anew.
var hopByHop = func() map[string]bool {
	out := map[string]bool{"Proxy-Authenticate": true, "Proxy-Authorization": true, "Content-Length": true, "Host": true}
	for _, name := range header.HopByHop {
		out[name] = true
	}
	return out
}()

// exclude are the headers of h that are not sent on.
func exclude(h http.Header) map[string]bool {
	named := header.Nominated(h)
	if len(named) == 0 {
		return hopByHop
	}
	out := maps.Clone(hopByHop)
	for _, name := range named {
		out[name] = true
	}
	return out
}

// carry implements [httpClient].
func (h *http1) carry(ctx context.Context, req *http.Request, j *request) (more bool) {
	h.c.track(j, h.cancel)
	defer h.c.untrack(j)
	rec := j.record()
	rec.began = time.Now()
	protocol := upgradeTo(req, j)
	defer h.c.carries(nil)
	up, sent, err := h.send(ctx, req, j, protocol)
	if err != nil {
		h.unwatch()
		var a answer
		rec.err = failure(ctx, err)
		a, rec.dec = j.outcome(req.Method, rec.err)
		h.c.failRequest(h, req, rec, a)
		return false
	}
	resp, err := h.response(up, req, j)
	if err != nil {
		h.up.drop()
		var unsent error
		rec.out, unsent = h.settle(up, sent)
		if a := badBody(unsent); a != nil {
			rec.dec = denied(rec.dec, "malformed request: "+unsent.Error())
			h.c.failRequest(h, req, rec, *a)
			return false
		}
		var a answer
		rec.err = failure(ctx, cmp.Or(clientGone(unsent), fmt.Errorf("read the answer of %s: %w", j.to, err)))
		a, rec.dec = j.outcome(req.Method, rec.err)
		h.c.failRequest(h, req, rec, a)
		return false
	}
	defer resp.Body.Close()
	rec.status, rec.sent = resp.StatusCode, j.injected
	if resp.StatusCode == http.StatusSwitchingProtocols {
		h.upgraded(ctx, up, req, resp, j, protocol, sent, rec)
		return false
	}
	more = !req.Close
	rec.in, err = h.answer(req, resp, &more)
	var unsent error
	if rec.out, unsent = h.settle(up, sent); unsent != nil {
		more = false // neither side can be used again
	}
	whole := unsent == nil
	if err != nil || !whole || resp.Close {
		h.up.drop()
	}
	up.answered = true
	rec.err = failure(ctx, copied(err))
	rec.dec = j.cutOff(rec.dec, rec.err)
	if err != nil {
		reset(h.conn) // a cut-off answer must not look whole
	} else if !whole {
		drain(h.conn, h.br)
	}
	h.c.record(rec)
	return more && err == nil
}

// sentBody is how a request's body went out.
type sentBody struct {
	n   int64
	err error
}

// send writes the request to the other side. A connection that was idle may have
// ended: a request that may be repeated is then sent once more. sent tells when the
// body has gone out; it is nil if there is none. The client is watched as soon as nothing
// more is read from it: from the beginning if there is no body.
func (h *http1) send(ctx context.Context, req *http.Request, j *request, upgrade string) (_ *upConn, sent <-chan sentBody, _ error) {
	bodiless := req.ContentLength == 0
	if bodiless {
		h.watch()
	}
	for {
		up, idle, err := h.up.http1(ctx, j.l4)
		if err != nil {
			return nil, nil, err
		}
		h.c.carries(up) // before the check: cut ends this connection if ctx ends after it
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		again := idle && bodiless && idempotent(req.Method)
		w := takeWriter(up.conn)
		err = writeHead(w, req, j, upgrade)
		if err == nil {
			err = w.Flush()
		}
		if err != nil || bodiless {
			giveWriter(w)
		}
		if err == nil && again {
			_, err = up.br.Peek(1) // it may only now show that it had ended
		}
		if err != nil {
			h.up.drop()
			if again && ctx.Err() == nil {
				continue
			}
			return nil, nil, err
		}
		if bodiless {
			return up, nil, nil
		}
		sent := make(chan sentBody, 1)
		go func() {
			n, err := writeBody(w, req)
			giveWriter(w)
			if err != nil {
				reset(up.conn) // a cut-off request must not look whole
			} else {
				h.watch()
			}
			sent <- sentBody{n, err}
		}()
		return up, sent, nil
	}
}

// errUnsent is the error of a body whose answer came before all of it was sent.
var errUnsent = errors.New("the answer has come before the end of the body")

// settle stops the sending of the body if it has not ended, which makes both connections
// useless. It returns the number of bytes sent, and an error if that is not the whole body.
func (h *http1) settle(up *upConn, sent <-chan sentBody) (n int64, unsent error) {
	defer h.unwatch()
	if sent == nil {
		return 0, nil
	}
	// An answer may be here before the sender of the last bytes goes on.
	late := time.NewTimer(settleTime)
	defer late.Stop()
	select {
	case s := <-sent:
		return s.n, s.err
	case <-late.C:
	}
	reset(up.conn)
	_ = h.conn.SetReadDeadline(past)
	s := <-sent
	_ = h.conn.SetReadDeadline(time.Time{})
	return s.n, errUnsent
}

// clientGone returns errClientGone if a body was not sent because its client has ended the
// connection.
func clientGone(unsent error) error {
	var w *writeError
	if unsent == nil || errors.As(unsent, &w) {
		return nil
	}
	if errors.Is(unsent, io.ErrUnexpectedEOF) || errors.Is(unsent, syscall.ECONNRESET) || errors.Is(unsent, net.ErrClosed) {
		return errClientGone
	}
	return nil
}

// badBody returns the answer to a request whose chunked body is malformed; nil if unsent is
// another error.
func badBody(unsent error) *answer {
	var w *writeError
	var refusal credentials.Refusal
	switch {
	case unsent == nil, errors.As(unsent, &w), errors.As(unsent, &refusal), !strings.Contains(unsent.Error(), "chunk"): // net/http's errors have no type
		return nil
	}
	a := badRequest("the body is not in proper chunks")
	return &a
}

// watch looks after the client while its request is answered, for which nothing is
// read from it otherwise: if it leaves, the request ends. Nobody may read from it
// until unwatch.
func (h *http1) watch() {
	if h.br.Buffered() > 0 {
		return // it has sent the next request
	}
	h.watched = true
	if h.watcher != nil {
		h.watcher.Reset(h.c.server.timeouts.gone)
		return
	}
	h.looked = make(chan struct{})
	h.watcher = time.AfterFunc(h.c.server.timeouts.gone, func() {
		if _, err := h.br.Peek(1); err != nil && !timedOut(err) {
			h.cancel(errClientGone)
		}
		h.looked <- struct{}{}
	})
}

func (h *http1) unwatch() {
	if !h.watched {
		return
	}
	h.watched = false
	if h.watcher.Stop() {
		return
	}
	_ = h.conn.SetReadDeadline(past)
	<-h.looked
	_ = h.conn.SetReadDeadline(time.Time{})
}

// idempotent says whether a request may be sent twice (RFC 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// upgrade is the protocol that a request asks to go on with, if it is one that
// requests cannot be smuggled in: h2c would be.
func upgrade(req *http.Request) string {
	const websocket = "websocket"
	if req.Method != http.MethodGet || req.ContentLength != 0 || !strings.EqualFold(req.Header.Get("Upgrade"), websocket) || len(req.Header["Upgrade"]) != 1 {
		return ""
	}
	for _, list := range req.Header["Connection"] {
		for option := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "upgrade") {
				return websocket
			}
		}
	}
	return ""
}

func writeHead(w *bufio.Writer, req *http.Request, j *request, upgrade string) error {
	_, _ = w.WriteString(j.asked.Method)
	_ = w.WriteByte(' ')
	_, _ = w.WriteString(j.uri())
	_, _ = w.WriteString(" HTTP/1.1\r\nHost: ")
	_, _ = w.WriteString(j.to.header())
	_, _ = w.WriteString("\r\n")
	if err := req.Header.WriteSubset(w, exclude(req.Header)); err != nil {
		return err
	}
	switch {
	case upgrade != "":
		_, _ = w.WriteString("Connection: Upgrade\r\nUpgrade: " + upgrade + "\r\n")
	case req.ContentLength > 0:
		_, _ = w.WriteString("Content-Length: " + strconv.FormatInt(req.ContentLength, 10) + "\r\n")
	case req.ContentLength < 0:
		writeTrailerNames(w, req.Trailer)
		_, _ = w.WriteString("Transfer-Encoding: chunked\r\n")
	case req.Header.Get("Content-Length") != "":
		_, _ = w.WriteString("Content-Length: 0\r\n")
	}
	_, err := w.WriteString("\r\n")
	return err
}

func writeTrailerNames(w *bufio.Writer, t http.Header) {
	for name := range t {
		_, _ = w.WriteString("Trailer: " + name + "\r\n")
	}
}

func writeBody(w *bufio.Writer, req *http.Request) (int64, error) {
	if req.ContentLength > 0 {
		return copyFlush(w, w, req.Body)
	}
	return chunked(w, req.Body, func() http.Header { return req.Trailer })
}

// chunked writes body in chunks as they come, and the trailers after it.
func chunked(w *bufio.Writer, body io.Reader, trailer func() http.Header) (int64, error) {
	cw := httputil.NewChunkedWriter(w)
	n, err := copyFlush(cw, w, body)
	if err != nil {
		return n, err
	}
	// Fields that say how to read a message may not come after it.
	if err = cmp.Or(cw.Close(), trailer().WriteSubset(w, hopByHop)); err == nil {
		_, _ = w.WriteString("\r\n")
		err = w.Flush()
	}
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// copyFlush copies without holding anything back. The error is a *writeError if w is the
// reason.
func copyFlush(w io.Writer, flush *bufio.Writer, r io.Reader) (n int64, err error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		k, rerr := r.Read(*buf)
		if k > 0 {
			_, err := w.Write((*buf)[:k])
			if err == nil {
				n += int64(k)
				err = flush.Flush()
			}
			if err != nil {
				return n, &writeError{err}
			}
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// response reads the answer's head; interim answers go on to the client.
func (h *http1) response(up *upConn, req *http.Request, j *request) (*http.Response, error) {
	for range maxInterim {
		resp, err := up.readAnswer(req, j.hold)
		if err != nil {
			return nil, err
		}
		if err := j.scrub(resp); err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if req.ProtoAtLeast(1, 1) {
			w := takeWriter(h.conn)
			err = writeStatus(w, resp)
			if err == nil {
				_, _ = w.WriteString("\r\n")
				err = w.Flush()
			}
			giveWriter(w)
			if err != nil {
				return nil, errClientGone
			}
		}
	}
	return nil, &answerError{fmt.Errorf("more than %d interim answers", maxInterim)}
}

// writeStatus writes the status and the fields that are sent on.
func writeStatus(w *bufio.Writer, resp *http.Response) error {
	code := resp.StatusCode // of three digits
	_, _ = w.WriteString("HTTP/1.1 ")
	_, _ = w.Write([]byte{'0' + byte(code/100), '0' + byte(code/10%10), '0' + byte(code%10), ' '})
	_, _ = w.WriteString(http.StatusText(code))
	_, _ = w.WriteString("\r\n")
	return resp.Header.WriteSubset(w, exclude(resp.Header))
}

// answer writes the response to the client. An error says that not all of it came
// or went.
func (h *http1) answer(req *http.Request, resp *http.Response, more *bool) (n int64, err error) {
	w := takeWriter(h.conn)
	defer giveWriter(w)
	bodiless := req.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	chunks := !bodiless && resp.ContentLength < 0 && req.ProtoAtLeast(1, 1)
	if !bodiless && resp.ContentLength < 0 && !chunks {
		*more = false
	}
	if err := writeStatus(w, resp); err != nil {
		return 0, &writeError{err}
	}
	switch {
	case bodiless:
		// It says how long the body would be; ReadResponse has seen that it is a
		// number.
		if v := resp.Header.Get("Content-Length"); v != "" && resp.StatusCode != http.StatusNoContent {
			_, _ = w.WriteString("Content-Length: " + v + "\r\n")
		}
	case chunks:
		writeTrailerNames(w, resp.Trailer)
		_, _ = w.WriteString("Transfer-Encoding: chunked\r\n")
	case resp.ContentLength >= 0:
		_, _ = w.WriteString("Content-Length: " + strconv.FormatInt(resp.ContentLength, 10) + "\r\n")
	}
	switch {
	case !*more:
		_, _ = w.WriteString("Connection: close\r\n")
	case !req.ProtoAtLeast(1, 1):
		_, _ = w.WriteString("Connection: keep-alive\r\n")
	}
	_, _ = w.WriteString("\r\n")
	if bodiless || resp.ContentLength == 0 {
		if err := w.Flush(); err != nil {
			return 0, &writeError{err}
		}
		return 0, nil
	}
	if resp.ContentLength < 0 || resp.ContentLength > int64(w.Available()) {
		// Who waits for the head must not wait for the body.
		if err := w.Flush(); err != nil {
			return 0, &writeError{err}
		}
	}
	if chunks {
		return chunked(w, resp.Body, func() http.Header { return resp.Trailer })
	}
	return copyFlush(w, w, resp.Body)
}

// upgraded carries what follows a 101 that was asked for.
func (h *http1) upgraded(ctx context.Context, up *upConn, req *http.Request, resp *http.Response, j *request, protocol string, sent <-chan sentBody, rec record) {
	defer h.up.drop()
	rec.out, _ = h.settle(up, sent)
	looks := j.looksAtMessages()
	var err error
	if protocol == "" || !strings.EqualFold(resp.Header.Get("Upgrade"), protocol) {
		err = errors.New("the other side switched protocols unasked")
	} else if looks {
		err = accepted(req, resp)
	}
	if err != nil {
		rec.dec, rec.status = denied(rec.dec, err.Error()), http.StatusBadGateway
		h.c.record(rec)
		h.end(answer{status: rec.status, body: simpleBody{malformedCode, rec.dec.Reason, ""}}, false)
		return
	}
	if !h.c.becomes(j, rec, looks) {
		return
	}
	w := takeWriter(h.conn)
	err = writeStatus(w, resp)
	_, _ = w.WriteString("Connection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n")
	err = errors.Join(err, w.Flush())
	giveWriter(w)
	switch {
	case err != nil:
	case looks:
		s := &webSocket{c: h.c, j: j, client: frameWriter{conn: h.conn}, up: frameWriter{conn: up.conn, mask: true}}
		err = s.carry(ctx, h.br, up.br)
		rec.in = s.client.n
		rec.out += s.up.n
	default:
		client := &pushedBack{Conn: h.conn, br: h.br}
		greeting, _ := up.br.Peek(up.br.Buffered())
		var out int64
		rec.in, out, err = relay(ctx, h.c.account, client, up.conn, greeting)
		rec.out += out
	}
	if err = failure(ctx, err); err != nil {
		rec.dec.Reason = j.mask(err).Error()
	}
	if errors.Is(err, errClientGone) {
		rec.err = err
	}
	h.c.record(rec)
}

// pushedBack is a connection of which br holds the next bytes.
type pushedBack struct {
	net.Conn
	br *bufio.Reader
}

func (p *pushedBack) Read(b []byte) (int, error) { return p.br.Read(b) }
func (p *pushedBack) NetConn() net.Conn          { return p.Conn }
func (p *pushedBack) CloseWrite() error          { closeWrite(p.Conn); return nil }
