// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/middleware"
)

// prepareTimeout bounds the asking of services about a new policy.
const prepareTimeout = middleware.MaxTimeout

// prepare makes a policy's middlewares ready.
func (s *Sandbox) prepare(p *policy.Policy) (*middleware.Set, error) {
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	return s.middlewares.Prepare(ctx, p.Middlewares)
}

// hasMiddlewares says that requests to host must be read for the sake of
// middlewares, whatever the rules ask.
func (s *Sandbox) hasMiddlewares(host string) bool {
	return len(s.engine.Load().engine.Middlewares(host)) > 0
}

// mustSee returns the key of a middleware without which nothing may go to a target; empty
// if there is none. No middleware sees what goes to the container itself.
func (s *Sandbox) mustSee(to target) string {
	if to.own {
		return ""
	}
	return mustSee(s.engine.Load().engine.Middlewares(to.host))
}

func mustSee(chain []*policy.Middleware) string {
	for _, m := range chain {
		if !m.FailOpen {
			return m.Key
		}
	}
	return ""
}

// unseenReason begins the reason of what is refused because no middleware can see it.
const unseenReason = "only requests can be seen by the middleware "

func unseen(m string) string { return unseenReason + m + ", and it must see all that goes there" }

// passedOver are the middlewares of a host that did not see what was spliced to it.
func (s *Sandbox) passedOver(host string) (out []decisionlog.Middleware) {
	for _, m := range s.engine.Load().engine.Middlewares(host) {
		out = append(out, decisionlog.Middleware{Name: m.Key, Failed: "uninspectable"})
	}
	return out
}

// transform puts a judged request through the middlewares of its host. The request
// that it returns is the one to go on with; the answer is nil if it may.
func (c *connection) transform(ctx context.Context, h httpClient, req *http.Request, j *request) (*http.Request, *answer) {
	if len(j.chain) == 0 {
		return req, nil
	}
	refuse := func(err error) (*http.Request, *answer) {
		a := refusedByMiddleware(j, err)
		j.dec = denied(j.dec, err.Error())
		j.dec.Layer = policy.L7
		return nil, &a
	}
	leave, err := c.sandbox.middlewares.Enter(ctx)
	if err != nil {
		return refuse(err)
	}
	defer leave()
	m := &middleware.Request{
		Scheme: scheme(j.to), Host: j.to.host, Port: j.to.port, Method: j.asked.Method, Path: j.asked.Path, Query: j.asked.RawQuery,
		Header: callersHeader(req.Header),
	}
	if who := c.who(); len(who) > 0 {
		m.Process = processOf(&who[0])
	}
	reading := func(until time.Time) error { return h.receive(req, until) }
	if err := readWhole(ctx, req, m, j.hold, j.stages.Limit(j.chain), reading); err != nil {
		return refuse(err)
	}
	if err := j.hold.Grow(ctx, bodyCopies*int64(len(m.Body))); err != nil {
		return refuse(err)
	}
	var refusal *answer
	j.steps, err = j.stages.Run(ctx, j.chain, m, func() error {
		dec, who := c.judgeAll(&j.judged)
		if dec.Verdict != policy.Deny {
			return nil
		}
		a := refusedRequest(j.to, j.asked, dec, who.Binary, j.judged.Forward)
		j.dec, refusal = dec, &a
		return errors.New(dec.Reason)
	})
	switch {
	case refusal != nil:
		return nil, refusal
	case err != nil:
		return refuse(err)
	}
	return changed(req, m), nil
}

// readWhole reads the body of a request as far as a middleware may see it.
func readWhole(ctx context.Context, req *http.Request, m *middleware.Request, hold *memory.Hold, limit int, reading func(time.Time) error) error {
	if req.ContentLength == 0 {
		return nil
	}
	if err := reading(time.Now().Add(BodyTimeout)); err != nil {
		return &bodyError{err}
	}
	var err error
	if m.Body, err = memory.ReadAll(ctx, hold, io.LimitReader(req.Body, int64(limit)+1), req.ContentLength, limit+1); err == nil {
		err = reading(time.Time{})
	}
	switch {
	case errors.Is(err, memory.ErrExhausted):
		return err
	case err != nil:
		return &bodyError{err}
	}
	m.Over = len(m.Body) > limit
	for _, values := range req.Trailer {
		m.Trailers = m.Trailers || len(values) > 0
	}
	return nil
}

// bodyError is a body that did not come whole.
type bodyError struct{ error }

func (e *bodyError) Error() string { return "read the request's body: " + e.error.Error() }

// changed is req as the middlewares made it.
func changed(req *http.Request, m *middleware.Request) *http.Request {
	out := *req
	out.Header = m.Header
	if req.ContentLength == 0 && len(m.Body) == 0 {
		return &out
	}
	out.Header.Del("Expect") // what it asks for was done
	var body io.Reader = bytes.NewReader(m.Body)
	switch {
	case m.Over: // nobody has seen it, and nobody needed to
		body = io.MultiReader(body, req.Body)
	case m.Trailers:
		out.ContentLength = -1
	default:
		out.ContentLength = int64(len(m.Body))
		out.Trailer = nil
	}
	out.Body = struct {
		io.Reader
		io.Closer
	}{body, req.Body}
	return &out
}

// callersHeader is a request's header without what only middlewares may write.
func callersHeader(h http.Header) http.Header {
	out := h.Clone()
	for k := range out {
		if strings.HasPrefix(k, middleware.Prefix) {
			delete(out, k)
		}
	}
	return out
}

func scheme(to target) string {
	if to.tls {
		return "https"
	}
	return "http"
}

func processOf(p *identity.Process) middleware.Process {
	return middleware.Process{Binary: p.Binary, Pid: p.Pid, Ancestors: p.Ancestors}
}

type middlewareBody struct {
	Error      string `json:"error"`
	Detail     string `json:"detail"`
	Policy     string `json:"policy"`
	Middleware string `json:"middleware,omitempty"`
	ReasonCode string `json:"reason_code,omitempty"`
}

// refusedByMiddleware is the answer to a request that did not get through.
func refusedByMiddleware(j *request, err error) answer {
	var denied *middleware.DeniedError
	var body *bodyError
	b := middlewareBody{Error: "middleware_failed", Detail: "Request could not be processed by configured middleware", Policy: j.dec.Policy}
	status := http.StatusForbidden
	switch {
	case errors.As(err, &denied):
		b.Error, b.Detail = "middleware_denied", "Request rejected by configured middleware"
		b.Middleware, b.ReasonCode = denied.Middleware, denied.Code
	case errors.As(err, &body):
		a := badRequest(err.Error())
		if timedOut(err) {
			a.status = http.StatusRequestTimeout
		}
		return a
	case errors.Is(err, memory.ErrExhausted):
		return outOfMemory()
	case errors.Is(err, middleware.ErrBusy):
		status = http.StatusServiceUnavailable
	}
	return answer{status: status, policy: j.dec.Policy, body: b}
}

// callerKey is under which a request to the router has its process.
type callerKey struct{}

// Transform puts a request's body through the middlewares of the router's host. The
// header that it returns is what they wrote.
func (s *Sandbox) Transform(req *http.Request, body []byte) ([]byte, http.Header, []decisionlog.Middleware, error) {
	l := s.engine.Load()
	if l.closed { // since the request was let in; nobody knows what it must go through
		return nil, nil, nil, errors.New(deniesAll)
	}
	chain := l.engine.Middlewares(policy.RouterHost)
	if len(chain) == 0 {
		return body, nil, nil, nil
	}
	ctx := req.Context()
	leave, err := s.middlewares.Enter(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer leave()
	hold, copies := memory.FromContext(ctx), bodyCopies*int64(len(body))
	if err := hold.Grow(ctx, copies); err != nil {
		return nil, nil, nil, err
	}
	defer hold.Shrink(copies)
	m := &middleware.Request{
		Scheme: "https", Host: policy.RouterHost, Port: 443, Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery,
		Header: callersHeader(req.Header), Body: body,
	}
	m.Process, _ = ctx.Value(callerKey{}).(middleware.Process)
	results, err := l.stages.Run(ctx, chain, m, func() error { return nil }) // no rule is asked of the router
	if err != nil {
		return nil, nil, results, err
	}
	written := http.Header{}
	for k, v := range m.Header {
		if strings.HasPrefix(k, middleware.Prefix) {
			written[k] = v
		}
	}
	return m.Body, written, results, nil
}
