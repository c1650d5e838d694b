// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/middleware"
	"openshell.dev/runtime/proxy/upstream"
)

// SandboxConfig is what a [Sandbox] is made of. Container, Upstream, CA, Roots and Log are
// required. The zero value of each other field takes something away or is stricter.
type SandboxConfig struct {
	// Container is the ID under which the server's [Identifier] reports the processes of
	// the sandbox.
	Container string
	// Upstream resolves names and connects to the other side.
	Upstream *upstream.Dialer
	// CA signs the certificates that the sandbox's clients get.
	CA *ca.Authority
	// Roots returns the certificates with which those of servers are verified.
	Roots func() *x509.CertPool
	// NameOf returns the name that a synthetic address stands for; nil: none stands for one.
	NameOf func(netip.Addr) (string, bool)
	// Hosts has the names whose addresses the workload may know without a DNS query.
	Hosts map[string][]netip.Addr
	// Log gets one record for each decision about the sandbox.
	Log Recorder
	// Middlewares runs the policy's middlewares; nil runs those that are built in.
	Middlewares *middleware.Runner
	// Enforce makes enforcement that the policy does not mention block.
	Enforce bool
	// TerminatePlainTLS ends TLS at endpoints without a protocol, so that the host of each
	// request is compared. False forwards the client's own TLS after its server name was
	// compared.
	TerminatePlainTLS bool
	// Own reaches the container itself; nil refuses connections to it.
	Own Own
	// OwnNames has the names of the container itself, in addition to localhost, and their
	// addresses.
	OwnNames map[string][]netip.Addr
	// Machine has the addresses of the machine that runs the sandbox; none if the sandbox
	// cannot reach it.
	Machine []netip.Addr
	// MayNamePrograms lets policies name programs. False refuses such a policy: a program
	// that can trace a named one acts as that one.
	MayNamePrograms bool
	// ControlPlanePorts are the control-plane ports that the operator has opened; empty
	// blocks all of them.
	ControlPlanePorts []uint16
}

// Sandbox is everything that belongs to the policy of one container. Nothing in it is used
// for connections of another container. It denies everything until [Sandbox.Load] has
// succeeded. Its methods may be called concurrently.
type Sandbox struct {
	server *Server
	config SandboxConfig
	engine atomic.Pointer[loaded]
	router atomic.Pointer[http.Handler]
	// credentials are put into requests; nil if the sandbox has none.
	credentials atomic.Pointer[credentials.Set]
	// tls is for connections to servers, and has the sessions that can be resumed. tickets
	// has the keys of the session tickets that clients get, and changes them from time to
	// time.
	tls, tickets *tls.Config
	// names are those of config.Hosts, by address.
	names       map[netip.Addr][]string
	middlewares *middleware.Runner

	loading sync.Mutex
	mu      sync.Mutex
	// open has the connections of the sandbox's processes. ended is true once the sandbox
	// was removed; then there are no further ones.
	open  map[*connection]struct{}
	ended bool
}

// loaded is one policy and its compiled form.
type loaded struct {
	policy *policy.Policy
	engine *policy.Engine
	stages *middleware.Set
	name   string
	since  time.Time
	// closed is true if everything is denied; policy is then the one before.
	closed bool
}

// Add makes a sandbox for a container. It fails if the container has one already.
func (s *Server) Add(c SandboxConfig) (*Sandbox, error) {
	if c.Container == "" {
		return nil, errors.New("the sandbox is for no container")
	}
	b := newSandbox(s, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandboxes[c.Container] != nil {
		return nil, fmt.Errorf("container %s has a sandbox already", c.Container)
	}
	s.sandboxes[c.Container] = b
	return b, nil
}

func newSandbox(s *Server, c SandboxConfig) *Sandbox {
	b := &Sandbox{
		server: s, config: c, open: map[*connection]struct{}{}, names: map[netip.Addr][]string{},
		tls:         &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(MaxSessions)},
		tickets:     &tls.Config{MinVersion: tls.VersionTLS12},
		middlewares: c.Middlewares,
	}
	if b.middlewares == nil {
		b.middlewares = middleware.Builtin()
	}
	for name, addrs := range c.Hosts {
		for _, a := range addrs {
			b.names[a] = append(b.names[a], name)
		}
	}
	b.engine.Store(&loaded{engine: &policy.Engine{}})
	return b
}

// Remove takes a sandbox out of the server and ends its connections. Connections of its
// container are refused from then on.
func (s *Server) Remove(b *Sandbox) {
	s.mu.Lock()
	if s.sandboxes[b.config.Container] == b {
		delete(s.sandboxes, b.config.Container)
	}
	s.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for c := range b.open {
		c.cancel(errSandboxEnded)
	}
}

// sandbox returns the sandbox of a container; nil if it has none.
func (s *Server) sandbox(container string) *Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sandboxes[container]
}

// only returns the server's sandbox if it has exactly one, else nil. Whoever connects and
// cannot be identified is of that sandbox or of none.
func (s *Server) only() *Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sandboxes) != 1 {
		return nil
	}
	for _, b := range s.sandboxes {
		return b
	}
	return nil
}

// join adds a connection to the open ones. It returns false if the sandbox was removed.
func (s *Sandbox) join(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

// leave takes a connection out of the open ones.
func (s *Sandbox) leave(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// Connections returns how many connections of the sandbox's processes are open.
func (s *Sandbox) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// SetCredentials makes requests that begin from now on use other credentials; nil is none.
// Requests that have begun keep theirs. Two kinds of connections that are not inspected end:
// those to an endpoint where credentials belong now, and WebSockets to one where they
// belonged.
func (s *Sandbox) SetCredentials(set *credentials.Set) {
	s.credentials.Store(set)
	s.rejudge()
}

// MayResolve reports whether host is the router's name or the policy in force knows it.
func (s *Sandbox) MayResolve(host string) bool {
	return s.isRouter(host) || s.engine.Load().engine.MayResolve(host)
}

// name returns the name that a synthetic address stands for.
func (s *Sandbox) name(a netip.Addr) (string, bool) {
	if s == nil || s.config.NameOf == nil {
		return "", false
	}
	return s.config.NameOf(a)
}

// revision returns the revision of the policy in force; 0 for no sandbox.
func (s *Sandbox) revision() int {
	if s == nil {
		return 0
	}
	return s.engine.Load().engine.Revision()
}
