// SPDX-License-Identifier: Apache-2.0

// Package dns is the name server of one sandbox. It asks nobody: a name that the
// policy could allow has a synthetic address, any other name does not exist, so
// that no question leaves the machine and nothing can be told to anyone by asking.
// A connection to a synthetic address is a connection to its name.
package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

// Config is what a Server asks. The zero value resolves nothing but localhost.
type Config struct {
	// MayResolve says whether the policy could allow name, as Normalize gave it.
	MayResolve func(name string) bool
	// Normalize gives the one spelling of a host, or refuses it.
	Normalize func(string) (string, error)
	// V6 says that the sandbox has IPv6: AAAA has answers, too.
	V6 bool
	// Record is told of every question that is answered. It must not wait. What
	// has no one spelling comes with DNS escapes. Allowed says that the name exists.
	Record func(name, qtype string, allowed bool)
}

// Server answers questions. It is safe for concurrent use.
type Server struct {
	c         Config
	pool      *pool
	questions bucket
	now       func() time.Time
}

// New makes a Server that has given out no address.
func New(c Config) *Server {
	if c.MayResolve == nil {
		c.MayResolve = func(string) bool { return false }
	}
	if c.Normalize == nil {
		c.Normalize = func(string) (string, error) { return "", errors.New("no names are known") }
	}
	if c.Record == nil {
		c.Record = func(string, string, bool) {}
	}
	return &Server{c: c, pool: newPool(), questions: bucket{perSecond: MaxQuestions, burst: QuestionsBurst}, now: time.Now}
}

// Name returns the name that a synthetic address was given to.
func (s *Server) Name(addr netip.Addr) (string, bool) { return s.pool.name(numberOf(addr)) }

// Synthetic says that addr is one of those that names are given, whether or not
// it has a name now.
func Synthetic(addr netip.Addr) bool {
	addr = addr.Unmap()
	return Prefix4.Contains(addr) || Prefix6.Contains(addr)
}

// Serve answers on both until ctx ends, when it returns nil, and closes both. udp
// must be a *net.UDPConn. A Server may serve several pairs.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{s.server(), s.server()}
	servers[0].PacketConn = udp
	servers[1].Listener = netutil.LimitListener(tcp, MaxConnections)
	ended := make(chan error, len(servers))
	for _, srv := range servers {
		go func() { ended <- srv.ActivateAndServe() }()
	}
	running := len(servers)
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
		if err == nil {
			err = errors.New("dns: a listener ended")
		}
	}
	stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, srv := range servers {
		_ = srv.ShutdownContext(stop) // of one that has not started or has ended; Close does for both
	}
	_ = udp.Close()
	_ = tcp.Close()
	for range running {
		select {
		case <-ended:
		case <-stop.Done():
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) server() *dns.Server {
	return &dns.Server{
		Handler:        s,
		UDPSize:        MaxUDP,
		ReadTimeout:    IdleTimeout,
		IdleTimeout:    func() time.Duration { return IdleTimeout },
		MaxTCPQueries:  MaxConnectionQuestions,
		MsgAcceptFunc:  accept,
		DecorateReader: func(r dns.Reader) dns.Reader { return limited{r, s} },
	}
}

// ServeDNS answers one message for the library.
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	reply := s.answer(req)
	if w.RemoteAddr().Network() == "udp" {
		reply.Truncate(payload(req))
	}
	_ = w.WriteMsg(reply) // the client asks again
}

// limited reads no more than the server may; a flood costs one read a packet.
type limited struct {
	dns.Reader
	s *Server
}

func (l limited) ReadUDP(conn *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		m, session, err := l.Reader.ReadUDP(conn, timeout)
		if err != nil || l.s.questions.take(l.s.now()) {
			return m, session, err
		}
	}
}

func (l limited) ReadTCP(conn net.Conn, timeout time.Duration) ([]byte, error) {
	m, err := l.Reader.ReadTCP(conn, timeout)
	if err == nil && !l.s.questions.take(l.s.now()) {
		return nil, errors.New("too many questions")
	}
	return m, err
}
