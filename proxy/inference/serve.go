// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/middleware"
)

// statusGone is what is recorded of a caller that went away.
const statusGone = 499

var errGone = &failure{status: statusGone, message: "the caller went away"}

// exchange is one request and its answer.
type exchange struct {
	r       *Router
	w       http.ResponseWriter
	rc      *http.ResponseController
	req     *http.Request
	call    *call
	body    *payload
	usage   Usage
	charge  *charge
	watched *observer   // nil until a backend has answered
	written http.Header // by middlewares, for the backend
	read    bool        // the request's body is read
	began   bool        // the answer has begun
	cut     bool        // the answer was cut off
}

// ServeHTTP answers one request to [policy.RouterHost].
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path, _, _ := strings.Cut(req.RequestURI, "?")
	x := &exchange{r: r, w: w, rc: http.NewResponseController(w), req: req}
	x.usage = Usage{Began: r.now(), Method: short(req.Method), Path: short(path)}
	x.r.meter.begin()
	defer x.end()
	if r.exchanges.Add(1) > MaxExchanges {
		x.refuse(&failure{status: http.StatusServiceUnavailable, message: "too many requests are under way", retry: time.Second})
		return
	}
	if f := x.serve(); f != nil {
		x.refuse(f)
	}
	if x.cut {
		panic(http.ErrAbortHandler) // resets the stream: a cut-off answer must not look whole
	}
}

// serve answers the request, or says why not.
func (x *exchange) serve() *failure {
	if !isHost(x.req.Host) {
		return &failure{status: http.StatusMisdirectedRequest, message: "the request is not for " + policy.RouterHost}
	}
	var ok bool
	if x.call, ok = readCall(x.req); !ok {
		return &failure{status: http.StatusForbidden, message: "connection not allowed by policy"}
	}
	x.usage.Dialect = x.call.dialect
	if len(x.r.routes) == 0 {
		return &failure{status: http.StatusServiceUnavailable, message: "inference is not configured; set a route with: openshell inference set"}
	}
	if f := x.readBody(); f != nil {
		return f
	}
	doc := x.body.document()
	model, stream, err := x.call.asks(doc)
	if err != nil {
		return bad(err)
	}
	x.usage.ModelAsked, x.usage.Stream = model, stream
	routes := x.r.choose(x.call, model)
	if routes == nil {
		return &failure{status: http.StatusBadRequest, message: "no compatible inference route available"}
	}
	guess := x.usage.BytesIn / bytesPerToken
	c, over := x.r.meter.admit(x.r.budget, x.usage.Began, guess)
	if over != nil {
		return &failure{status: http.StatusTooManyRequests, message: "the sandbox's budget of " + over.what + " is used up", retry: over.retry, spent: over.total}
	}
	x.charge = &c
	return x.ask(routes, doc, model, stream)
}

// bytesPerToken is the guess that is charged where an answer does not say.
const bytesPerToken = 4

// readBody reads the request's body, which a GET does not have.
func (x *exchange) readBody() *failure {
	x.body = &payload{held: memory.FromContext(x.req.Context()).New()}
	if x.call.method == http.MethodGet {
		if x.req.ContentLength != 0 {
			return bad(errors.New("a GET has no body"))
		}
		x.read = true
		return x.change(nil)
	}
	if e := x.req.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return &failure{status: http.StatusUnsupportedMediaType, message: "the request's body is compressed; send it as it is"}
	}
	if x.req.ContentLength > MaxRequest {
		return tooLarge
	}
	// Not every writer has deadlines; the proxy's own connections do.
	_ = x.rc.SetReadDeadline(time.Now().Add(RequestTimeout))
	raw, err := memory.ReadAll(x.req.Context(), x.body.held, x.req.Body, x.req.ContentLength, MaxRequest)
	_ = x.rc.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, memory.ErrTooLong):
		return tooLarge
	case errors.Is(err, memory.ErrExhausted):
		return noRoom
	case x.req.Context().Err() != nil:
		return errGone
	case err != nil:
		return bad(errors.New("the request's body breaks off"))
	}
	x.read, x.usage.BytesIn = true, int64(len(raw))
	if x.body.doc, err = parseDocument(raw); err != nil {
		return bad(err)
	}
	return x.change(raw)
}

// change has the policy's middlewares change the body, which is then read again as
// what it has become.
func (x *exchange) change(raw []byte) *failure {
	if x.r.change == nil {
		return nil
	}
	changed, header, steps, err := x.r.change(x.req, raw)
	x.usage.Middlewares, x.written = steps, header
	var denied *middleware.DeniedError
	switch {
	case errors.As(err, &denied):
		return &failure{status: http.StatusForbidden, message: err.Error()}
	case errors.Is(err, memory.ErrExhausted):
		return noRoom
	case errors.Is(err, middleware.ErrBusy):
		return &failure{status: http.StatusServiceUnavailable, message: err.Error(), retry: time.Second}
	case err == nil && len(changed) > MaxRequest:
		err = memory.ErrTooLong
	case err == nil && raw == nil && len(changed) > 0:
		err = errors.New("a GET has no body")
	case err == nil && raw != nil:
		x.body.doc, err = parseDocument(changed)
	}
	if err != nil {
		return &failure{status: http.StatusForbidden, message: "the request could not be processed by the policy's middleware", detail: err.Error()}
	}
	return nil
}

var (
	tooLarge = &failure{status: http.StatusRequestEntityTooLarge, message: "the request's body is larger than 10 MiB"}
	noRoom   = &failure{status: http.StatusServiceUnavailable, message: memory.ErrExhausted.Error(), retry: time.Second}
)

// asks is what a call asks for: which model, and whether as a stream.
func (c *call) asks(doc *document) (model string, stream bool, err error) {
	model, stream = c.model, c.stream
	if c.modelInBody() {
		if model, err = doc.text("model"); err != nil {
			return "", false, err
		}
		if c.ending != endNone {
			if stream, err = doc.flag("stream", c.dialect == Ollama); err != nil {
				return "", false, err
			}
		}
	}
	if model != "" && !validModel(model) {
		return "", false, errors.New("\"model\" is not a model's name")
	}
	return model, stream, nil
}

// refuse answers f in the caller's dialect.
func (x *exchange) refuse(f *failure) {
	x.usage.Status, x.usage.Error = f.status, short(f.Error())
	if f.status == statusGone || x.began {
		return
	}
	var d Dialect
	if x.call != nil {
		d = x.call.dialect
	}
	body, header := f.answer(d)
	for k, v := range header {
		x.w.Header()[k] = v
	}
	if !x.read {
		x.w.Header().Set("Connection", "close")
	}
	x.w.WriteHeader(f.status)
	n, err := x.w.Write(body)
	x.usage.BytesOut = int64(n)
	if err != nil {
		x.usage.Error = short(f.Error() + "; the caller went away")
	}
}

// end settles and records the exchange, however it ended.
func (x *exchange) end() {
	x.r.exchanges.Add(-1)
	if x.body != nil {
		x.body.finish()
	}
	now := x.r.now()
	u := &x.usage
	u.Duration = now.Sub(u.Began)
	x.count()
	if x.charge != nil {
		x.r.meter.settle(*x.charge, now, u.TokensIn+u.TokensOut)
	}
	x.r.meter.observe(u, x.cut)
	x.r.record(*u)
}

// count takes the tokens from the answer. What it does not say is guessed, also where
// the caller went away before it was said: to leave early is not free.
func (x *exchange) count() {
	u := &x.usage
	if x.watched == nil {
		if u.Status == statusGone && u.Tried > 0 && x.call.text {
			u.Estimated, u.TokensIn = true, u.BytesIn/bytesPerToken
		}
		return
	}
	t := x.watched.tokens
	u.TokensIn, u.TokensOut = t.total()
	if t.known && !x.cut || !x.call.text {
		return
	}
	u.Estimated = true
	if !t.known {
		u.TokensIn = u.BytesIn / bytesPerToken
	}
	if x.watched.parts > 0 {
		u.TokensOut = max(u.TokensOut, x.watched.parts)
	} else {
		u.TokensOut = max(u.TokensOut, u.BytesOut/bytesPerToken)
	}
}

// isHost reports whether an authority is the router's, on a port that it is behind.
func isHost(authority string) bool {
	host := authority
	if h, port, err := net.SplitHostPort(authority); err == nil {
		if port != "443" && port != "80" {
			return false
		}
		host = h
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), policy.RouterHost)
}

// short cuts off a text for the record.
func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxRecorded)], "?") }
