// SPDX-License-Identifier: Apache-2.0

// Package proxy is the one way out of a sandbox: it takes a connection, learns
// who made it and what it asks for, has that judged, reaches the other side and
// carries the bytes, judging each request on the way.
//
// Whatever cannot be learnt or judged is refused. What was judged is what is sent
// on: requests are parsed once, put into one spelling and written anew. It does
// not protect from what an allowed program does at an allowed endpoint.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/middleware"
	"openshell.dev/runtime/proxy/upstream"
)

// Identifier says which programs hold a connection and where their paths lead.
type Identifier interface {
	Holders(local, remote netip.AddrPort) ([]identity.Process, error)
	Aliases(paths []string) (map[string][]string, error)
}

// Recorder keeps decisions. It never blocks.
type Recorder interface{ Record(decisionlog.Record) }

// Config is what a Server works with. Hosts, Middlewares, Enforce, TerminatePlainTLS,
// Machine, Own, OwnNames, ControlPlanePorts and Memory may be zero.
type Config struct {
	Identity Identifier
	Upstream *upstream.Dialer
	CA       *ca.Authority
	// Roots gives what upstreams' certificates are verified with.
	Roots func() *x509.CertPool
	// NameOf gives the name that a synthetic address stands for.
	NameOf func(netip.Addr) (string, bool)
	// Hosts are names with addresses that the workload may know without asking.
	Hosts map[string][]netip.Addr
	Log   Recorder
	// Middlewares runs the policy's; nil runs those that are built in.
	Middlewares *middleware.Runner
	// Enforce makes an absent enforcement block.
	Enforce bool
	// TerminatePlainTLS ends TLS at endpoints without a protocol, so that each request's
	// host is compared. False carries TLS as it is after its server name was compared.
	TerminatePlainTLS bool
	// Own reaches the container itself; nil refuses connections to it.
	Own Own
	// OwnNames are names of the container itself, beside localhost, and their addresses.
	OwnNames map[string][]netip.Addr
	// Machine are the addresses of the machine that runs the sandbox; none if it cannot be
	// reached.
	Machine []netip.Addr
	// MayNamePrograms lets policies name programs. The zero value refuses such a policy: a
	// program that can trace a named one acts as that one.
	MayNamePrograms bool
	// ControlPlanePorts are the control-plane ports that the operator has opened; empty
	// blocks all of them.
	ControlPlanePorts []uint16
	// Memory is the budget of all connections together, in bytes; 0 is
	// [memory.Default].
	Memory int64
}

// Server serves one sandbox. It denies everything until Load has succeeded.
type Server struct {
	c      Config
	engine atomic.Pointer[loaded]
	router atomic.Pointer[http.Handler]
	// credentials are put into requests; nil if the sandbox has none.
	credentials atomic.Pointer[credentials.Set]
	// tls is for upstreams; tickets has the keys of the clients' session tickets
	// and changes them from time to time.
	tls, tickets *tls.Config
	names        map[netip.Addr][]string
	middlewares  *middleware.Runner
	slots        chan struct{}
	waits        waits
	// ends are a connection's as the client sees them.
	ends func(*net.TCPConn) (local, wanted netip.AddrPort, err error)

	// memory is the budget of all connections; refusals has a place for each request
	// that is refused for want of memory.
	memory   *memory.Budget
	refusals chan struct{}

	loading sync.Mutex
	mu      sync.Mutex
	open    map[*connection]struct{}

	// tasks are the goroutines that Wait waits for. None is started once waiting is
	// true, which startMu protects.
	tasks   sync.WaitGroup
	startMu sync.Mutex
	waiting bool
}

// loaded is one policy and what it was compiled to.
type loaded struct {
	policy *policy.Policy
	engine *policy.Engine
	stages *middleware.Set
	name   string
	since  time.Time
	// closed says that everything is denied; policy is then the one before.
	closed bool
}

// New makes a Server.
func New(c Config) *Server {
	s := &Server{
		c: c, open: map[*connection]struct{}{}, names: map[netip.Addr][]string{}, slots: make(chan struct{}, maxConnections()),
		tls:         &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(MaxSessions)},
		tickets:     &tls.Config{MinVersion: tls.VersionTLS12},
		middlewares: c.Middlewares, waits: usualWaits, ends: originalEnds,
		memory: memory.New(c.Memory), refusals: make(chan struct{}, maxRefusals),
	}
	if s.middlewares == nil {
		s.middlewares = middleware.Builtin()
	}
	for name, addrs := range c.Hosts {
		for _, a := range addrs {
			s.names[a] = append(s.names[a], name)
		}
	}
	s.engine.Store(&loaded{engine: &policy.Engine{}})
	return s
}

// maxConnections is how many connections the process has descriptors for. With
// more, accepted ones would fail instead of waiting.
func maxConnections() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		l.Cur = 0
	}
	return connectionsWithin(l.Cur)
}

func connectionsWithin(limit uint64) int {
	// Each listener holds one while it waits.
	const least = 4
	if limit < reservedDescriptors+least*descriptors {
		return least
	}
	return int(min((limit-reservedDescriptors)/descriptors, MaxConnections))
}

// SetCredentials has requests that begin from now on use other credentials. What has
// begun keeps what it began with, but bytes that nobody looks at do not go on to where
// credentials belong now, nor do WebSockets to where they belonged.
func (s *Server) SetCredentials(set *credentials.Set) {
	s.credentials.Store(set)
	s.rejudge()
}

// MayResolve says whether host is the router's or the policy in force knows it.
func (s *Server) MayResolve(host string) bool {
	return s.isRouter(host) || s.engine.Load().engine.MayResolve(host)
}

// Serve takes connections from l until ctx ends, which ends the connections too.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	parent := ctx
	ctx, end := context.WithCancelCause(context.WithoutCancel(parent))
	context.AfterFunc(parent, func() { // for the connections also after Serve has returned
		end(errSandboxEnded)
		_ = l.Close()
	})
	for {
		s.slots <- struct{}{}
		c, err := l.Accept()
		if err != nil {
			<-s.slots
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end of ctx closes the listener
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, or the client was gone: others may be served.
			time.Sleep(time.Millisecond)
			continue
		}
		// Until there is memory, further connections wait in the listener's queue.
		conn := s.newConnection(ctx, c.(*net.TCPConn))
		if err := conn.account.Wait(ctx, connectionCost); err != nil {
			conn.abandon()
			<-s.slots
			return nil //nolint:nilerr // ctx has ended
		}
		if !s.start(func() {
			defer func() { <-s.slots }()
			conn.handle()
		}) {
			conn.account.Release(connectionCost)
			conn.abandon()
			<-s.slots
			return nil
		}
	}
}

// start runs f in a goroutine that [Server.Wait] waits for. It returns false once Wait has
// been called.
func (s *Server) start(f func()) bool {
	if !s.begin() {
		return false
	}
	go func() {
		defer s.tasks.Done()
		f()
	}()
	return true
}

// begin adds a task that [Server.Wait] waits for; the caller calls s.tasks.Done when it has
// ended. It returns false once Wait has been called.
func (s *Server) begin() bool {
	s.startMu.Lock()
	defer s.startMu.Unlock()
	if s.waiting {
		return false
	}
	s.tasks.Add(1)
	return true
}

// Wait returns when every connection has ended, and every HTTP/2 handler, which may outlive
// its connection. The server serves no more connections then.
func (s *Server) Wait() {
	s.startMu.Lock()
	s.waiting = true
	s.startMu.Unlock()
	s.tasks.Wait()
}

// Connections is how many are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}
