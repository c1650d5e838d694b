// SPDX-License-Identifier: Apache-2.0

// Package inference is the privacy router behind https://inference.local: a sandbox
// calls its model there without a key, in the API of its own SDK, and the router
// sends the call to a backend of the operator's with the operator's credential.
//
// Nothing of the caller's reaches a backend but a path of the allow-list, a few
// headers, and a JSON body whose model is the route's. An answer is streamed as it
// comes; one that is cut off never looks whole.
package inference

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/secret"
)

// Config is what a [Router] is made of.
type Config struct {
	Routes []Route
	Budget Budget
	// Do sends a request to a backend that it dials and verifies. It must not
	// follow redirects: they would carry the credential elsewhere.
	Do func(*http.Request) (*http.Response, error)
	// Scrub, if set, wraps the body of an answer to remove the secret from it.
	Scrub func(body io.ReadCloser, value secret.Secret) io.ReadCloser
	// Change, if set, changes a request's body before its model and its backend are
	// chosen, or refuses it. It never sees a credential.
	Change Change
	// Record is told of each request when it has ended.
	Record func(Usage)
	// Meter is the one of the router that this one replaces, so that a reload does
	// not refill a budget. Nil starts afresh.
	Meter *Meter
	Now   func() time.Time
}

// Change is the policy's middlewares: the body and the headers to send, and what was
// done.
type Change func(req *http.Request, body []byte) ([]byte, http.Header, []decisionlog.Middleware, error)

// Router is an immutable set of routes. It is made by [New].
type Router struct {
	routes []*route
	budget Budget
	do     func(*http.Request) (*http.Response, error)
	scrub  func(io.ReadCloser, secret.Secret) io.ReadCloser
	change Change
	record func(Usage)
	meter  *Meter
	now    func() time.Time

	exchanges atomic.Int64
	turns     turns
}

// New checks c and makes a router of it.
func New(c Config) (*Router, error) {
	if c.Do == nil {
		return nil, errors.New("inference: no way to reach a backend")
	}
	if len(c.Routes) > MaxRoutes {
		return nil, fmt.Errorf("inference: %d routes; at most %d", len(c.Routes), MaxRoutes)
	}
	if err := c.Budget.check(); err != nil {
		return nil, fmt.Errorf("inference: %w", err)
	}
	r := &Router{budget: c.Budget, do: c.Do, scrub: c.Scrub, change: c.Change, record: c.Record, meter: c.Meter, now: c.Now}
	if r.record == nil {
		r.record = func(Usage) {}
	}
	if r.meter == nil {
		r.meter = new(Meter)
	}
	if r.now == nil {
		r.now = time.Now
	}
	byName := make(map[string]*route, len(c.Routes))
	for i, cfg := range c.Routes {
		rt, err := compile(cfg)
		if err != nil {
			return nil, fmt.Errorf("inference: route %d (%q): %w", i+1, cfg.Name, err)
		}
		if cfg.Name == "" || byName[cfg.Name] != nil {
			return nil, fmt.Errorf("inference: route %d (%q): a route needs a name of its own", i+1, cfg.Name)
		}
		byName[cfg.Name] = rt
		r.routes = append(r.routes, rt)
	}
	if err := link(r.routes, byName); err != nil {
		return nil, fmt.Errorf("inference: %w", err)
	}
	r.turns.finish = make(map[*route]float64, len(r.routes))
	return r, nil
}

// link resolves the names of fallbacks.
func link(routes []*route, byName map[string]*route) error {
	for _, rt := range routes {
		for _, name := range rt.Fallbacks {
			to := byName[name]
			switch {
			case to == nil:
				return fmt.Errorf("route %q: fallback %q is not a route", rt.Name, name)
			case to == rt:
				return fmt.Errorf("route %q falls back to itself", rt.Name)
			case to.caller != rt.caller:
				return fmt.Errorf("route %q: fallback %q speaks %s to callers of %s", rt.Name, name, to.Dialect, rt.caller)
			}
			rt.fallbacks = append(rt.fallbacks, to)
		}
	}
	return nil
}

// Meter is what a router counts, and what the one that replaces it takes on.
func (r *Router) Meter() *Meter { return r.meter }

// Usage is one request that has ended. It holds no secret.
type Usage struct {
	Began time.Time
	// Method and Path are as asked for; Path is cut off where it is long.
	Method, Path string
	// Dialect is the caller's, empty for a request that is not on the allow-list.
	Dialect Dialect
	// Route is the one that answered, or that was tried last.
	Route string
	// Tried is how many backends were asked.
	Tried int
	// ModelAsked is the caller's, ModelUsed the backend's.
	ModelAsked, ModelUsed string
	Stream                bool
	// TokensIn and TokensOut are as the backend says, or guessed if Estimated.
	TokensIn, TokensOut int64
	Estimated           bool
	BytesIn, BytesOut   int64
	// FirstByte is the time to the first byte of the answer's body.
	FirstByte, Duration time.Duration
	// Status is what the caller was answered; 499 if it went away before.
	Status int
	// Middlewares are those that it went through.
	Middlewares []decisionlog.Middleware
	// Error says why a request failed, or that its answer was cut off.
	Error string
}

// turns shares requests among routes: start-time fair queueing, so that each gets
// its part exactly and none is owed a burst after a pause.
type turns struct {
	mu      sync.Mutex
	virtual float64
	finish  map[*route]float64
}

func (t *turns) next(candidates []*route) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	var best *route
	var start float64
	for _, rt := range candidates {
		if s := max(t.virtual, t.finish[rt]); best == nil || s < start {
			best, start = rt, s
		}
	}
	t.virtual = start
	t.finish[best] = start + 1/best.weight
	return best
}
