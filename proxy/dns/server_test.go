// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func server() *Server {
	return serving(ViewConfig{MayResolve: func(n string) bool { return n == "ok.example" }})
}

func serve(t *testing.T, s *Server) (udp, tcp string, stop func() error) {
	t.Helper()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, u, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Second):
			t.Error("does not stop")
			return nil
		}
	})
	t.Cleanup(func() { _ = stop() })
	return u.LocalAddr().String(), l.Addr().String(), stop
}

func TestServe(t *testing.T) {
	udp, tcp, stop := serve(t, server())
	var wg sync.WaitGroup
	for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
		for range 20 {
			wg.Go(func() {
				c := &dns.Client{Net: network}
				for name, want := range map[string]int{"ok.example.": dns.RcodeSuccess, "evil.example.": dns.RcodeNameError} {
					m, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), addr)
					if err != nil || m.Rcode != want || (len(m.Answer) == 1) != (want == 0) {
						t.Errorf("%s %s: %v, %v", network, name, m, err)
					}
				}
			})
		}
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Errorf("stopped: %v", err)
	}
	if c, err := net.Dial("tcp", tcp); err == nil {
		c.Close()
		t.Error("still listens")
	}
}

func TestServeStopsAtOnceAndWithOpenConnections(t *testing.T) {
	_, _, stop := serve(t, server())
	if err := stop(); err != nil {
		t.Error(err)
	}
	_, tcp, stop := serve(t, server())
	c, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{0, 200, 1}); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

func TestServeTellsThatAListenerEnded(t *testing.T) {
	s := New(Config{})
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(t.Context(), u, l); err == nil {
		t.Error("no error")
	}
	if _, err := u.WriteTo([]byte("x"), u.LocalAddr()); err == nil {
		t.Error("the other is still open")
	}
}

func TestBypass_B17_FloodIsDropped(t *testing.T) {
	s := server()
	stopped := time.Now()
	s.now = func() time.Time { return stopped }
	udp, tcp, _ := serve(t, s)
	query := new(dns.Msg).SetQuestion("evil.example.", dns.TypeTXT)
	answered := 0
	for range 2 * QuestionsBurst / MaxConnectionQuestions {
		c, err := dns.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		for c.WriteMsg(query) == nil {
			if _, err := c.ReadMsg(); err != nil {
				break
			}
			answered++
		}
		c.Close()
	}
	if answered != QuestionsBurst {
		t.Errorf("%d questions are answered, not %d", answered, QuestionsBurst)
	}
	c := &dns.Client{Timeout: 100 * time.Millisecond}
	if m, _, err := c.Exchange(query, udp); err == nil {
		t.Errorf("answered over UDP: %v", m)
	}
}
