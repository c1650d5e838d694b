// SPDX-License-Identifier: Apache-2.0

// Package middleware is what requests go through that the policy has let pass and
// that have no credentials yet: a policy's network_middlewares, the built-in
// redactor and services of the operator's. Each may change the body, add a few
// headers, or refuse.
//
// A middleware that does not answer, or answers nonsense, has failed; the request is
// then refused, unless the policy says that it fails open. The redactor looks for
// texts in bodies: what is encrypted, compressed, cut in pieces or said in other
// words passes it.
package middleware

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
)

// Request is a request as middlewares see and change it.
type Request struct {
	Scheme, Host string
	Port         uint16
	// Method, Path and Query are as the policy judged them.
	Method, Path, Query string
	Header              http.Header
	Body                []byte
	// Over says that the body is longer than Body, which no stage may then see.
	Over bool
	// Trailers says that there is more text behind the body.
	Trailers bool
	// Process is who asks.
	Process Process
}

// Process is the program that a request is from.
type Process struct {
	Binary    string
	Pid       int
	Ancestors []string
}

// DeniedError is a request that a middleware refuses.
type DeniedError struct {
	Middleware string
	// Code is the middleware's own, empty if it gives none.
	Code string
}

func (e *DeniedError) Error() string {
	if e.Code == "" {
		return "denied by middleware " + e.Middleware
	}
	return fmt.Sprintf("denied by middleware %s: %s", e.Middleware, e.Code)
}

// FailedError is a request that could not be looked at by a middleware that must.
type FailedError struct{ Middleware, Code string }

func (e *FailedError) Error() string {
	return fmt.Sprintf("middleware %s failed: %s", e.Middleware, e.Code)
}

// ErrBusy is a request too many.
var ErrBusy = errors.New("too many requests wait for middlewares")

// Config is what a [Runner] is made of.
type Config struct {
	// Sandbox is the container's ID, which services are told.
	Sandbox  string
	Services []Service
	// Dial reaches a service.
	Dial Dialer
}

// Runner runs middlewares. It is made by [New].
type Runner struct {
	sandbox  string
	services map[string]*service
	running  *semaphore.Weighted
	waiting  atomic.Int64
}

// Builtin is a runner that knows no services.
func Builtin() *Runner {
	return &Runner{services: map[string]*service{}, running: semaphore.NewWeighted(maxRunning)}
}

// New makes a runner that knows the services, none of which is called yet.
func New(c Config) (*Runner, error) {
	r := Builtin()
	r.sandbox = c.Sandbox
	for _, s := range c.Services {
		n, err := newService(s, c.Dial)
		if err != nil {
			return nil, fmt.Errorf("middleware service %q: %w", s.Name, err)
		}
		r.services[s.Name] = n
	}
	return r, nil
}

// Enter waits until a request may be read for its middlewares; leave says that they
// are done with it.
func (r *Runner) Enter(ctx context.Context) (leave func(), err error) {
	if !r.running.TryAcquire(1) {
		if r.waiting.Add(1) > maxWaiting {
			r.waiting.Add(-1)
			return nil, ErrBusy
		}
		err := r.running.Acquire(ctx, 1)
		r.waiting.Add(-1)
		if err != nil {
			return nil, err
		}
	}
	return func() { r.running.Release(1) }, nil
}

// stage runs one middleware: it changes req, or returns a *DeniedError, or the code
// of what went wrong.
type stage interface {
	run(ctx context.Context, req *Request, call *call) (findings int, err error)
	// limit is the longest body that it takes.
	limit() int
}

// code is why a stage failed: a word of ours, never text of a service or a request.
type code string

func (c code) Error() string { return string(c) }

// call is what stays the same from one middleware to the next.
type call struct{ id, sandbox string }

// Set is the middlewares of one policy, ready to run.
type Set struct {
	sandbox string
	stages  map[string]stage
}

// Prepare makes a policy's middlewares ready. A service that is not registered, or
// says that it cannot be configured so, is an error; one that cannot be reached is
// not: what happens then is said by on_error, request by request.
func (r *Runner) Prepare(ctx context.Context, list []policy.Middleware) (*Set, error) {
	set := &Set{sandbox: r.sandbox, stages: map[string]stage{}}
	refusals := make([]error, len(list))
	wait := make(chan struct{})
	for i := range list {
		m := &list[i]
		go func() {
			defer func() { wait <- struct{}{} }()
			if m.Uses != policy.RegexMiddleware {
				refusals[i] = r.validate(ctx, m)
			}
		}()
	}
	for range list {
		<-wait
	}
	for i := range list {
		m := &list[i]
		if m.Uses == policy.RegexMiddleware {
			red, err := newRedactor(m.Patterns)
			if err != nil {
				return nil, fmt.Errorf("middleware config '%s': %w", m.Key, err)
			}
			set.stages[m.Key] = red
		} else if refusals[i] == nil {
			set.stages[m.Key] = &attached{service: r.services[m.Uses], config: encodeStruct(m.Config)}
		}
	}
	return set, errors.Join(refusals...)
}

func (r *Runner) validate(ctx context.Context, m *policy.Middleware) error {
	s := r.services[m.Uses]
	if s == nil {
		return fmt.Errorf("middleware config '%s': no service '%s' is registered in the operator's configuration (middlewares)", m.Key, m.Uses)
	}
	err := s.validate(ctx, encodeStruct(m.Config))
	var refused *configError
	if errors.As(err, &refused) {
		return fmt.Errorf("network_middlewares.%s.config (line %d): service '%s' refuses it: %s", m.Key, m.Line, m.Uses, refused.reason)
	}
	return nil // or not there, which on_error is about
}

// Limit is the longest body that any of a chain takes, in bytes.
func (s *Set) Limit(chain []*policy.Middleware) int {
	n := 0
	for _, m := range chain {
		n = max(n, s.stages[m.Key].limit())
	}
	return n
}

// Run puts a request through a chain, in order. After each change again is asked
// whether the policy still allows the request. Results are of all that ran, with an
// error too, which is a *DeniedError, a *FailedError, or again's.
func (s *Set) Run(ctx context.Context, chain []*policy.Middleware, req *Request, again func() error) ([]decisionlog.Middleware, error) {
	var out []decisionlog.Middleware
	c := &call{id: rand.Text(), sandbox: s.sandbox}
	for _, m := range chain {
		before, result := req.Body, decisionlog.Middleware{Name: m.Key}
		findings, err := s.one(ctx, m, req, c)
		result.Findings = findings
		var failed code
		var denied *DeniedError
		switch {
		case errors.As(err, &denied):
			denied.Middleware = m.Key
		case err != nil:
			if !errors.As(err, &failed) {
				failed = codeUnavailable
			}
			result.Failed = string(failed)
			if err = nil; !m.FailOpen {
				err = &FailedError{m.Key, string(failed)}
			}
		default:
			result.Changed = !bytes.Equal(before, req.Body)
		}
		out = append(out, result)
		if err == nil && result.Changed {
			err = again()
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *Set) one(ctx context.Context, m *policy.Middleware, req *Request, c *call) (int, error) {
	st := s.stages[m.Key]
	switch {
	case req.Over || len(req.Body) > st.limit():
		return 0, codeOverCapacity
	case req.Trailers:
		return 0, codeTrailers
	}
	return st.run(ctx, req, c)
}

// The codes of failures, OpenShell's where it has one.
const (
	codeUnavailable  code = "middleware_unavailable"
	codeTimeout      code = "middleware_timeout"
	codeOverCapacity code = "request_body_over_capacity"
	codeTrailers     code = "request_trailers"
	codeEncoded      code = "request_body_encoded"
	codeNotText      code = "request_body_not_text"
	codeUndescribed  code = "binding_not_described"
	codeDecision     code = "invalid_response_decision"
)
