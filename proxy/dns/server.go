// SPDX-License-Identifier: Apache-2.0

// Package dns is the name server of a network namespace. It forwards no queries: a name
// that the asker's policy could allow has a synthetic address, any other name does not
// exist. So no query leaves the machine, and nobody can be told anything by asking. A
// connection to a synthetic address is a connection to its name.
//
// Each sandbox has a [View]: its names and the addresses that stand for them. The [Server]
// answers each query from the view of whoever sent it.
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

// Config is what a [Server] needs. A Server of the zero value refuses every question.
type Config struct {
	// View returns the view of the sandbox that a question came from; nil refuses the
	// question. asker is the address that it was sent from, a *net.UDPAddr or *net.TCPAddr.
	View func(asker net.Addr) *View
	// Normalize returns the one spelling of a host, or refuses it. Nil refuses all.
	Normalize func(string) (string, error)
	// V6 is true if the namespace has IPv6: AAAA questions have answers.
	V6 bool
}

// Server answers questions. Its methods may be called concurrently.
type Server struct {
	c         Config
	questions bucket
	now       func() time.Time
}

// New makes a Server.
func New(c Config) *Server {
	if c.View == nil {
		c.View = func(net.Addr) *View { return nil }
	}
	if c.Normalize == nil {
		c.Normalize = func(string) (string, error) { return "", errors.New("no names are known") }
	}
	return &Server{c: c, questions: bucket{perSecond: MaxQuestions, burst: QuestionsBurst}, now: time.Now}
}

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
	reply := s.answer(w.RemoteAddr(), req)
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
