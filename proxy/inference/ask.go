// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"openshell.dev/runtime/proxy/memory"
)

var errLate = errors.New("the backend took too long")

// answer is what a backend answered: a stream, or all of its body.
type answer struct {
	rt     *route
	resp   *http.Response
	stream stream
	body   []byte
	held   *memory.Hold // the memory of body
	timer  *time.Timer
	ctx    context.Context //nolint:containedctx // an answer lives as long as the call that it is of
	cancel context.CancelCauseFunc
}

func (a *answer) close() {
	a.timer.Stop()
	a.cancel(nil)
	if a.resp != nil {
		a.resp.Body.Close()
	}
	a.held.Release()
}

// ask asks the backends in order until one answers, and passes its answer on.
func (x *exchange) ask(routes []*route, doc *document, model string, stream bool) *failure {
	for i, rt := range routes {
		x.usage.Route, x.usage.Tried = rt.Name, i+1
		x.usage.ModelUsed = rt.modelFor(model)
		if i > 0 {
			x.r.meter.fallBack()
		}
		last := i == len(routes)-1
		a, f := x.try(rt, doc, model, stream)
		switch {
		case f != nil && (last || f.status < http.StatusInternalServerError):
			return f
		case f != nil:
			continue
		case !last && overloaded(a.resp.StatusCode):
			a.close()
			continue
		}
		defer a.close()
		x.body.finish()
		return x.pass(a)
	}
	return nil // there is at least one route
}

// overloaded reports whether another backend may do better.
func overloaded(status int) bool {
	return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// try asks one backend. A failure of status 5xx is the backend's.
func (x *exchange) try(rt *route, doc *document, model string, stream bool) (*answer, *failure) {
	a := &answer{rt: rt, held: memory.FromContext(x.req.Context()).New()}
	a.ctx, a.cancel = context.WithCancelCause(x.req.Context())
	limit := rt.Timeout
	if stream {
		limit = rt.IdleTimeout
	}
	a.timer = time.AfterFunc(limit, func() { a.cancel(errLate) })
	f := x.send(a, doc, model, stream)
	if f == nil {
		f = x.receive(a)
	}
	if f != nil {
		a.close()
		if x.req.Context().Err() != nil {
			f = errGone
		}
		return nil, f
	}
	return a, nil
}

// send sends the request to a's backend.
func (x *exchange) send(a *answer, doc *document, model string, stream bool) *failure {
	rt, c := a.rt, x.call
	to := rt.modelFor(model)
	if to == "" && c.method == http.MethodPost {
		return bad(errors.New("\"model\" is missing"))
	}
	if rt.decides(model) && c.dialect == OpenAI && doc != nil {
		// Some backends let it choose another model than "model".
		if m, err := doc.find("models"); m != nil || err != nil {
			return bad(errors.New("\"models\" is not allowed: the route decides the model"))
		}
	}
	u, err := rt.target(c, to, stream)
	if err != nil {
		return unavailable(err.Error())
	}
	out := &http.Request{Method: c.method, URL: u, Host: u.Host, Header: rt.requestHeader(x.req.Header), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	maps.Copy(out.Header, x.written)
	parts := rt.parts(c, doc, to)
	if parts != nil {
		for _, p := range parts {
			out.ContentLength += int64(len(p))
		}
		out.Body = x.body.open(parts)
		out.GetBody = func() (io.ReadCloser, error) {
			d := x.body.document()
			if d == nil {
				return nil, errReleased
			}
			return x.body.open(rt.parts(c, d, to)), nil
		}
	}
	if err := rt.authenticate(out, func() ([]byte, error) { return slices.Concat(parts...), nil }); err != nil {
		if out.Body != nil {
			out.Body.Close()
		}
		return unavailable(rt.Auth.redact(err.Error()))
	}
	a.resp, err = x.r.do(out.WithContext(a.ctx)) //nolint:bodyclose // a.close does
	if err != nil {
		if cause := context.Cause(a.ctx); cause != nil {
			err = cause
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its URL can hold the credential
		}
		return unavailable(rt.Auth.redact(err.Error()))
	}
	return nil
}

// parts is the body that r's backend is sent.
func (r *route) parts(c *call, doc *document, model string) [][]byte {
	switch {
	case doc == nil:
		return nil
	case r.Dialect == VertexClaude && c.pattern != countTokens:
		return doc.forVertex()
	case c.modelInBody():
		return doc.withModel(model)
	}
	return [][]byte{doc.raw}
}

func unavailable(detail string) *failure {
	return &failure{status: http.StatusServiceUnavailable, message: "inference service unavailable", detail: detail}
}

func broken(detail string) *failure {
	return &failure{status: http.StatusBadGateway, message: "inference service error", detail: detail}
}

// receive judges the answer's head, and reads its body if it is not a stream.
func (x *exchange) receive(a *answer) *failure {
	resp, rt := a.resp, a.rt
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired:
		// Its text may show the operator's credential.
		return &failure{status: http.StatusUnauthorized, message: "unauthorized", detail: "the backend refuses the route's credential"}
	case status < http.StatusOK || status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return broken(fmt.Sprintf("the backend answers with status %d", status))
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return broken("the backend compresses its answer, which it was not asked to")
	}
	if x.r.scrub != nil && !rt.Auth.Value.IsZero() {
		resp.Body = x.r.scrub(resp.Body, rt.Auth.Value)
	}
	o := newObserver(x.call.ending)
	if a.stream = follow(x.call, resp, o); a.stream == nil {
		return x.receiveWhole(a, o)
	}
	x.watched = o
	return nil
}

func (x *exchange) receiveWhole(a *answer, o *observer) *failure {
	var err error
	a.body, err = memory.ReadAll(a.ctx, a.held, a.resp.Body, a.resp.ContentLength, MaxResponse)
	switch {
	case errors.Is(err, memory.ErrExhausted):
		return noRoom
	case errors.Is(err, memory.ErrTooLong):
		return broken("the backend's answer is larger than 32 MiB")
	case err != nil && errors.Is(context.Cause(a.ctx), errLate):
		return unavailable(errLate.Error())
	case err != nil:
		return broken("the backend's answer breaks off: " + a.rt.Auth.redact(err.Error()))
	}
	status := a.resp.StatusCode
	if a.rt.Auth.shows(string(a.body)) {
		return broken("the backend's answer shows the route's credential")
	}
	if status >= http.StatusBadRequest && !json.Valid(a.body) {
		if status >= http.StatusInternalServerError {
			return broken(fmt.Sprintf("the backend answers with status %d", status))
		}
		return &failure{status: status, message: "the backend refuses the request: " + http.StatusText(status)}
	}
	if status < http.StatusBadRequest {
		x.watched = o
		o.walker().feed(a.body)
	}
	return nil
}

// pass passes an answer on to the caller.
func (x *exchange) pass(a *answer) *failure {
	a.rt.responseHeader(x.w.Header(), a.resp.Header)
	x.usage.Status = a.resp.StatusCode
	if x.usage.Status >= http.StatusBadRequest {
		x.usage.Error = fmt.Sprintf("the backend answers with status %d", x.usage.Status)
	}
	x.began = true
	if a.stream != nil {
		return x.relay(a)
	}
	x.w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
	x.w.WriteHeader(a.resp.StatusCode)
	x.usage.FirstByte = x.r.now().Sub(x.usage.Began)
	n, err := io.Copy(x.w, bytes.NewReader(a.body))
	x.usage.BytesOut = n
	if err != nil {
		return errGone
	}
	return nil
}
