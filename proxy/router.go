// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
)

const routerPorts = policy.RouterHost + " answers HTTPS on port 443 and HTTP on port 80"

// SetRouter makes h answer requests to [policy.RouterHost] from now on, whatever the policy
// says unless that is DenyAll; nil leaves that name a name like any other.
func (s *Sandbox) SetRouter(h http.Handler) {
	if h == nil {
		s.router.Store(nil)
		return
	}
	s.router.Store(&h)
}

func (s *Sandbox) isRouter(host string) bool {
	return host == policy.RouterHost && s.router.Load() != nil
}

// route serves a connection to the router: HTTPS on 443, HTTP on 80, nothing else.
func (c *connection) route(ctx context.Context, first preface, to target) {
	refuse := func(reason string) {
		c.refuseRaw(to, c.sandbox.denial(policy.L4, reason))
	}
	if first.Kind == inspect.Unknown { // it may have been silent so far
		var err error
		if first, err = c.peek(c.server.timeouts.idle); err != nil {
			refuse(err.Error())
			return
		}
	}
	switch {
	case to.port == 443 && first.Kind == inspect.TLS:
		to.tls = true
		if err := sameName(first.Hello.ServerName, to.host); err != nil {
			refuse(err.Error())
			return
		}
		if err := c.account.Take(ctx, tlsCost); err != nil {
			refuse(err.Error())
			return
		}
		conn, err := c.accept(ctx, to, known)
		if err != nil {
			c.account.Release(tlsCost)
			c.refuseHandshake(to, c.sandbox.denial(policy.L4, err.Error()), err)
			return
		}
		c.next = func(ctx context.Context) {
			defer c.account.Release(tlsCost)
			defer conn.Close()
			if conn.ConnectionState().NegotiatedProtocol == "h2" {
				router := c.routed(to)
				c.serveStreams(ctx, conn, to, func(w http.ResponseWriter, req *http.Request, hold *memory.Hold) {
					router.ServeHTTP(w, req.WithContext(memory.NewContext(req.Context(), hold)))
				})
				return
			}
			c.serveOne(ctx, conn, to, c.routed(to))
		}
	case to.port == 80 && first.Kind == inspect.HTTP1:
		c.serveOne(ctx, c.client, to, c.routed(to))
	default:
		refuse(routerPorts)
	}
}

// routed returns the handler of requests to the router. It accepts only those that are for
// the router, from programs that are known.
func (c *connection) routed(to target) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := &routedRequest{c, w}
		c.serveRequest(req.Context(), s, req, &request{to: to, protocol: "http", verbatim: true})
	})
}

// routedRequest is a request to the router.
type routedRequest struct {
	c *connection
	w http.ResponseWriter
}

// locate implements [httpClient].
func (s *routedRequest) locate(req *http.Request, r *request) (uri string, no *refusal) {
	rest, err := inTunnel(req.RequestURI, r.to)
	if err != nil {
		return "", &refusal{wrongAuthority(req.RequestURI, r.to), s.c.sandbox.denial(policy.L7, err.Error())}
	}
	if req.RequestURI = rest; !r.to.named(req) {
		a := wrongAuthority(req.Host, r.to)
		a.status = http.StatusMisdirectedRequest
		return "", &refusal{a, s.c.sandbox.denial(policy.L7, fmt.Sprintf("Host is %.300q, the connection is for %s", req.Host, r.to))}
	}
	return rest, nil
}

// judge implements [httpClient]: the router needs no policy, but nothing goes on after
// [Sandbox.DenyAll].
func (s *routedRequest) judge(req *http.Request, r *request, _ string) *answer {
	why := s.c.sandbox.Closed()
	if why == "" {
		return nil
	}
	r.dec = s.c.sandbox.denial(policy.L4, why)
	a := refusedConnection(req.Method, r.to, why)
	return &a
}

func (s *routedRequest) reach(*request) bool { return true }

func (s *routedRequest) receive(*http.Request, time.Time) error { return nil }

func (s *routedRequest) interim() io.Writer { return nil }

// abort implements [httpClient].
func (s *routedRequest) abort() { panic(http.ErrAbortHandler) }

// refuse implements [httpClient].
func (s *routedRequest) refuse(_ *http.Request, a answer) { a.serve(s.w) }

// carry implements [httpClient]: the router sends the request on, and records it.
func (s *routedRequest) carry(_ context.Context, req *http.Request, _ *request) (more bool) {
	if who := s.c.who(); len(who) > 0 {
		req = req.WithContext(context.WithValue(req.Context(), callerKey{}, processOf(&who[0])))
	}
	h := s.c.sandbox.router.Load()
	if h == nil {
		answer{status: http.StatusServiceUnavailable, body: simpleBody{"inference_not_configured", "inference is no longer configured", ""}}.serve(s.w)
		return false
	}
	(*h).ServeHTTP(s.w, req)
	return true
}

// serveOne serves HTTP/1 on one connection until it ends. The connection has the
// memory for one request all the time.
func (c *connection) serveOne(ctx context.Context, conn net.Conn, to target, h http.Handler) {
	if err := c.account.Take(ctx, routerCost); err != nil {
		c.refuseRaw(to, c.exhausted(err))
		return
	}
	hold := c.account.Hold(routerCost)
	defer hold.Release()
	ctx = memory.NewContext(ctx, hold)
	l := &oneListener{conn: conn, ended: make(chan struct{})}
	end := sync.OnceFunc(func() { close(l.ended) })
	server := &http.Server{
		Handler: h, MaxHeaderBytes: maxRouterHead, ReadHeaderTimeout: HeadTimeout, IdleTimeout: IdleTimeout, ErrorLog: log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				end()
			}
		},
	}
	_ = server.Serve(l)
}

// oneListener accepts one connection and then waits for its end.
type oneListener struct {
	conn  net.Conn
	once  sync.Once
	ended chan struct{}
}

func (l *oneListener) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.ended
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.conn.LocalAddr() }
