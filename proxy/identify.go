// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/identity"
)

// Identifier finds processes and their programs. Its methods may be called concurrently.
type Identifier interface {
	// Holders returns every process that holds a connection, each with its container. local
	// and remote are the ends of the connection as the client sees them.
	Holders(local, remote netip.AddrPort) ([]identity.Process, error)
	// Aliases returns where the paths of programs lead in a container: see
	// [identity.Resolver.Aliases].
	Aliases(container string, paths []string) (map[string][]string, error)
}

// holders are the processes that hold a connection.
type holders struct {
	who []identity.Process
	// learnt is when they were asked for, and renew the age at which they are asked for
	// again.
	learnt time.Time
	renew  time.Duration
}

func (h *holders) age() time.Duration { return time.Since(h.learnt) }

// enter identifies the caller and finds the sandbox of its container. A connection without
// one is refused, and enter returns false.
func (c *connection) enter() bool {
	var err error
	if c.local, c.wanted, err = c.server.ends(c.client.TCPConn); err != nil {
		c.wanted = addrPort(c.client.LocalAddr())
		c.refuseUnknown(c.server.only(), err)
		return false
	}
	if err := c.identify(); err != nil {
		c.refuseUnknown(c.server.only(), err)
		return false
	}
	container := c.who()[0].Container
	b := c.server.sandbox(container)
	if b == nil {
		c.refuseUnknown(nil, noSandbox(container))
		return false
	}
	c.mu.Lock()
	c.sandbox = b // before a reload can find the connection among the open ones
	c.mu.Unlock()
	if !b.join(c) {
		c.refuseUnknown(nil, noSandbox(container))
		return false
	}
	return true
}

// identify learns which processes hold the connection, unless that was learnt less than
// [IdentityAge] ago. It renews an answer that will soon be too old in the background, so
// that requests rarely wait.
func (c *connection) identify() error {
	h := c.held.Load()
	switch {
	case h == nil || h.age() >= IdentityAge:
		c.asking.Lock()
		defer c.asking.Unlock()
		// The requests of one connection need one answer.
		if h := c.held.Load(); h != nil && h.age() < IdentityAge {
			return nil
		}
		return c.ask()
	case h.age() >= h.renew && c.asking.TryLock():
		if !c.server.start(func() {
			defer c.asking.Unlock()
			_ = c.ask() // after an error the next request asks again, once the answer is too old
		}) {
			c.asking.Unlock()
		}
	}
	return nil
}

// ask learns which processes hold the connection. They must be of one container, which
// stays the same for as long as the connection lasts. Preconditions: c.asking is held.
func (c *connection) ask() error {
	who, err := c.server.config.Identity.Holders(c.local, c.wanted)
	if err == nil && len(who) == 0 {
		err = errors.New("no program holds the connection")
	}
	if err == nil {
		err = c.oneContainer(who)
	}
	if err != nil {
		return err
	}
	// Connections that began together do not ask together for ever.
	c.held.Store(&holders{who, time.Now(), identityRenewal + rand.N(IdentityAge/4)})
	return nil
}

// oneContainer fails if the processes are of several containers, or of another one than
// the connection's sandbox is for.
func (c *connection) oneContainer(who []identity.Process) error {
	container := who[0].Container
	if h := c.held.Load(); h != nil {
		container = h.who[0].Container
	}
	for i := range who {
		if who[i].Container != container {
			return fmt.Errorf("processes of two containers hold the connection: %q and %q", container, who[i].Container)
		}
	}
	return nil
}

// who returns the processes that hold the connection; none if they are not known.
func (c *connection) who() []identity.Process {
	if h := c.held.Load(); h != nil {
		return h.who
	}
	return nil
}

// refuseUnknown ends a connection whose processes, or whose sandbox, are not known. The
// record goes to the log of b; if b is nil, to that of the server.
func (c *connection) refuseUnknown(b *Sandbox, err error) {
	to := target{port: c.wanted.Port(), host: c.wanted.Addr().Unmap().String()}
	if name, ok := b.name(c.wanted.Addr()); ok {
		to.host = name
	}
	if clientClosed(c.client.TCPConn) {
		c.recordLeft(b, to, "tcp", err)
		return
	}
	c.recordIn(b, record{dec: b.denial(policy.L4, err.Error()), to: to, protocol: "tcp"})
	reset(c.client)
}
