// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/dns"
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
	// view has the names that the sandbox's DNS queries are answered with. nameOf is the
	// view's Name; tests replace it.
	view   *dns.View
	nameOf func(netip.Addr) (string, bool)
	// hosts has the names of config.Hosts, by address.
	hosts       map[netip.Addr][]string
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
		server: s, config: c, open: map[*connection]struct{}{}, hosts: map[netip.Addr][]string{},
		tls:         &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(MaxSessions)},
		tickets:     &tls.Config{MinVersion: tls.VersionTLS12},
		middlewares: c.Middlewares,
	}
	if b.middlewares == nil {
		b.middlewares = middleware.Builtin()
	}
	for name, addrs := range c.Hosts {
		for _, a := range addrs {
			b.hosts[a] = append(b.hosts[a], name)
		}
	}
	b.engine.Store(&loaded{engine: &policy.Engine{}})
	b.view = dns.NewView(dns.ViewConfig{MayResolve: b.MayResolve, Record: b.recordQuery})
	b.nameOf = b.view.Name
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

// View returns the names of the sandbox that a DNS query came from, as [dns.Config] needs
// it. If there are several sandboxes it asks [Config.Asker] for the container.
func (s *Server) View(asker net.Addr) *dns.View {
	b, err := s.askersSandbox(asker)
	if err != nil {
		s.config.Log.Record(deniedQuery("", "", err.Error()))
		return nil
	}
	return b.view
}

func (s *Server) askersSandbox(asker net.Addr) (*Sandbox, error) {
	if b := s.only(); b != nil {
		return b, nil
	}
	if s.config.Asker == nil {
		return nil, errors.New("the sender of the query is not known")
	}
	container, err := s.config.Asker(asker)
	if err != nil {
		return nil, fmt.Errorf("identify the sender of the query: %w", err)
	}
	if b := s.sandbox(container); b != nil {
		return b, nil
	}
	return nil, noSandbox(container)
}

func noSandbox(container string) error {
	return fmt.Errorf("the container %q has no sandbox", container)
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

// name returns the name that a synthetic address stands for. s may be nil.
func (s *Sandbox) name(a netip.Addr) (string, bool) {
	if s == nil {
		return "", false
	}
	return s.nameOf(a)
}

// recordQuery records a DNS query for a name that does not exist.
func (s *Sandbox) recordQuery(name, qtype string, allowed bool) {
	if !allowed {
		s.config.Log.Record(deniedQuery(name, qtype, cmp.Or(s.Closed(), "no endpoint of the policy has this name")))
	}
}

func deniedQuery(name, qtype, reason string) decisionlog.Record {
	return decisionlog.Record{Time: time.Now(), Verdict: policy.Deny.String(), Layer: "dns", Host: name, Protocol: "dns", Method: qtype, Reason: reason}
}

// denial returns a refusal for a reason of the proxy's own. s may be nil.
func (s *Sandbox) denial(layer policy.Layer, reason string) policy.Decision {
	return policy.Decision{Reason: reason, Layer: layer, Revision: s.revision()}
}

// revision returns the revision of the policy in force; 0 if s is nil.
func (s *Sandbox) revision() int {
	if s == nil {
		return 0
	}
	return s.engine.Load().engine.Revision()
}
