// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/proxy/memory"
)

// Recorder keeps decisions. It never blocks.
type Recorder interface{ Record(decisionlog.Record) }

// Config is what a [Server] needs. Identity and Log are required.
type Config struct {
	// Identity tells which processes hold a connection, and their container.
	Identity Identifier
	// Asker returns the container of the process that sent a DNS query from an address. It
	// is not called while there is one sandbox, which all queries are of. Nil: all queries
	// are refused once there are several.
	Asker func(net.Addr) (container string, err error)
	// Log gets one record for each refused connection or DNS query that belongs to no
	// sandbox.
	Log Recorder
	// Memory is the budget of all connections together, in bytes; 0 is [memory.Default].
	Memory int64
}

// Server serves the connections of one network namespace, which belong to the containers
// in it. It has the listeners, the limits and a set of sandboxes ([Server.Add]). It refuses
// a connection of a container without a sandbox.
type Server struct {
	config   Config
	slots    chan struct{}
	timeouts timeouts
	// ends are a connection's as the client sees them.
	ends func(*net.TCPConn) (local, wanted netip.AddrPort, err error)
	// memory is the budget of all connections; refusals has a place for each request
	// that is refused for want of memory.
	memory   *memory.Budget
	refusals chan struct{}

	mu sync.Mutex
	// sandboxes has the sandbox of each container, by the container's ID.
	sandboxes map[string]*Sandbox

	// tasks are the goroutines that Wait waits for. None is started once waiting is
	// true, which startMu protects.
	tasks   sync.WaitGroup
	startMu sync.Mutex
	waiting bool
}

// New makes a Server without a sandbox.
func New(c Config) *Server {
	return &Server{
		config: c, sandboxes: map[string]*Sandbox{}, slots: make(chan struct{}, maxConnections()),
		timeouts: defaultTimeouts, ends: originalEnds,
		memory: memory.New(c.Memory), refusals: make(chan struct{}, maxRefusals),
	}
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
