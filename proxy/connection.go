// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
)

// connection is one client connection, from its accept to its end.
type connection struct {
	server *Server
	// sandbox is that of the caller's container; nil until the caller is identified.
	sandbox *Sandbox
	client  *clientConn
	// local and wanted are the connection's ends as the client sees them.
	local, wanted netip.AddrPort
	began         time.Time
	// ctx ends with the connection, which cancel ends.
	ctx    context.Context //nolint:containedctx // the connection's own
	cancel context.CancelCauseFunc
	// account counts the connection's part of the worker's memory.
	account *memory.Account
	// guessed is true if the client was silent, so that the target is a name that the
	// hosts file has for the address. The client may still name another.
	guessed bool

	// held is who holds it, as last looked at.
	held atomic.Pointer[holders]
	// asking is held by who looks again.
	asking sync.Mutex
	// reached is what was dialled last.
	reached atomic.Pointer[dialed]
	// blocked is the last address that the policy refused.
	blocked atomic.Pointer[destinationError]

	// next serves the connection after its classification. handle calls it last so that the
	// stack of the goroutine, which mostly waits from then on, stays small.
	next func(ctx context.Context)

	carryMu sync.Mutex
	// carrying is the connection that an answer comes on, over HTTP/1.
	carrying *upConn

	mu sync.Mutex
	// to is where it goes once that is known; inspected says whether its requests
	// are judged one by one.
	to        target
	inspected bool
	// requests are those in flight.
	requests map[*policy.Request]*request
}

// dialed is where a host was reached.
type dialed struct {
	host    string
	port    uint16
	address netip.Addr
}

// newConnection returns a connection that holds no memory yet.
func (s *Server) newConnection(ctx context.Context, tcp *net.TCPConn) *connection {
	c := &connection{server: s, client: &clientConn{TCPConn: tcp}, requests: map[*policy.Request]*request{}, began: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.account = s.memory.Open(c.cutForMemory)
	return c
}

// abandon ends a connection that is not served.
func (c *connection) abandon() {
	c.cancel(nil)
	c.account.Close()
	_ = c.client.Close()
}

// cutForMemory ends the connection, which holds more memory than any other, while others
// wait for memory.
func (c *connection) cutForMemory() {
	c.mu.Lock()
	to, b := c.to, c.sandbox
	c.mu.Unlock()
	if b == nil {
		b = c.server.only()
	}
	c.recordIn(b, record{dec: b.denial(policy.L4, errCut.Error()), to: to, protocol: "tcp"})
	c.cancel(errCut)
}

var errCut = errors.New("the connection holds more memory than any other, and others wait for memory")

// handle identifies the caller, determines the target and asks the policy before it
// dials.
//
// Preconditions: the account has taken connectionCost.
func (c *connection) handle() {
	tcp, ctx := c.client.TCPConn, c.ctx
	defer c.account.Close()
	defer c.account.Release(connectionCost)
	defer tcp.Close()
	defer c.cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		_ = tcp.Close()
		c.cut()
	})
	defer stop()
	if !c.enter() {
		return
	}
	defer c.sandbox.leave(c)
	if c.wanted == addrPort(tcp.LocalAddr()) {
		c.explicit(ctx)
	} else {
		c.transparent(ctx)
	}
	if c.next != nil {
		c.next(ctx)
	}
}

// carries notes the upstream connection of the request that is being answered.
func (c *connection) carries(up *upConn) {
	c.carryMu.Lock()
	c.carrying = up
	c.carryMu.Unlock()
}

// cut ends both sides of the request that is being answered.
func (c *connection) cut() {
	c.carryMu.Lock()
	defer c.carryMu.Unlock()
	if c.carrying != nil {
		reset(c.carrying.conn)
		reset(c.client)
	}
}

// transparent serves a connection that was redirected to the proxy.
func (c *connection) transparent(ctx context.Context) {
	to := target{host: c.wanted.Addr().String(), port: c.wanted.Port()}
	name, synthetic := c.sandbox.name(c.wanted.Addr())
	if synthetic {
		to.host = name
		// The name is known: the client's first bytes are not needed.
		if dec := c.judge(to, nil); dec.Verdict == policy.Allow && opaque(dec) {
			c.splice(ctx, to, dec, nil, nil, "tcp")
			return
		}
	}
	first, err := c.peek(c.server.timeouts.serverFirst)
	if err == nil && first.Kind == inspect.Unknown && !synthetic && c.byAddress(&to).Verdict != policy.Allow {
		first, err = c.peek(c.server.timeouts.idle) // it may still say a name
	}
	if err == nil && !synthetic && first.host != "" {
		to.host, _, err = splitHost(first.host, to.port)
	}
	if closedByPeer(err) { // the client has left and sent nothing
		if dec := c.byAddress(&to); dec.Verdict != policy.Allow {
			c.refuseRaw(to, dec)
		}
		return
	}
	if err != nil {
		c.refuseRaw(to, c.sandbox.denial(policy.L4, err.Error()))
		return
	}
	c.toAddress(ctx, first, to)
}

// toAddress judges a connection by the host that the client names, or by its address if
// the client has named none, and serves it.
func (c *connection) toAddress(ctx context.Context, first preface, to target) {
	if c.sandbox.isRouter(to.host) {
		c.route(ctx, first, to)
		return
	}
	dec := c.byAddress(&to)
	if dec.Verdict != policy.Allow {
		c.refuse(ctx, first, to, dec)
		return
	}
	c.serve(ctx, &route{first: first, to: to, dec: dec})
}

// byAddress judges the target. A program that knows a name from its hosts file connects to
// the address and may name no host: the target is then the name that is allowed.
func (c *connection) byAddress(to *target) policy.Decision {
	dec := c.judge(*to, nil)
	if dec.Verdict == policy.Allow || to.host != c.wanted.Addr().String() {
		return dec
	}
	for _, name := range c.sandbox.hosts[c.wanted.Addr()] {
		if d := c.judge(target{host: name, port: to.port}, nil); d.Verdict == policy.Allow {
			to.host, c.guessed = name, true
			return d
		}
	}
	return dec
}

// denied turns a decision into a refusal for a reason of the proxy's own.
func denied(dec policy.Decision, reason string) policy.Decision {
	dec.Verdict, dec.Reason, dec.Rule, dec.Line = policy.Deny, reason, "", 0
	return dec
}

// dial reaches the target at an address that the decision allows.
func (c *connection) dial(ctx context.Context, to target, dec policy.Decision) (net.Conn, error) {
	if to.own {
		return c.dialOwn(ctx, to)
	}
	conn, address, err := c.sandbox.config.Upstream.Dial(ctx, to.host, to.port, func(a netip.Addr) error {
		if why, ok := dec.Destination.Check(a, to.port); !ok {
			e := &destinationError{a, why, fmt.Sprintf("%s resolves to %s: %s", to.host, a, why)}
			c.blocked.Store(e)
			return e
		}
		return nil
	})
	if err != nil {
		return nil, &connectError{err}
	}
	c.reached.Store(&dialed{to.host, to.port, address})
	if c.sandbox.changedSince(dec) && !c.rejudge() {
		_ = conn.Close()
		return nil, errReloaded
	}
	return conn, nil
}

// destinationError is an address that a name may not have.
type destinationError struct {
	address netip.Addr
	reason  policy.Reason
	text    string
}

func (e *destinationError) Error() string { return e.text }
