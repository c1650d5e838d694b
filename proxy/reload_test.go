// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

func TestBypass_B30_KeptConnectionsAreJudgedAnew(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			plain, secure := w.both(nil, "h2", "http/1.1")
			c := e.client(w)
			get(t, c, "GET", e.url("/a"), nil)
			w.load(endpoints("host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /b}}]"))
			if resp, _ := get(t, c, "GET", e.url("/a"), nil); resp.StatusCode != 403 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if resp, _ := get(t, c, "GET", e.url("/b"), nil); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if n := len(plain.got()) + len(secure.got()); n != 2 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}

func TestBypass_B30_RequestsInFlightEnd(t *testing.T) {
	for _, e := range entries {
		t.Run(e.name, func(t *testing.T) {
			w := newWorld(t, endpoints(openHost))
			ended := make(chan string, 2)
			w.both(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(rw, "first")
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-r.Context().Done():
					ended <- r.URL.Path
				case <-time.After(patience):
				}
			}), "h2", "http/1.1")
			c := e.client(w)
			open := func(path string) io.ReadCloser {
				resp, err := c.Get(e.url(path))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				return resp.Body
			}
			denied, stays := open("/a/denied"), open("/a/stays")
			defer denied.Close()
			defer stays.Close()
			w.load(endpoints("host: api.example.com, ports: [80, 443], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a/stays}}]"))
			if b, err := io.ReadAll(denied); err == nil {
				t.Errorf("%q looks whole", b)
			}
			if got := <-ended; got != "/a/denied" {
				t.Errorf("ended %s", got)
			}
			select {
			case got := <-ended:
				t.Errorf("ended %s", got)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

func TestBypass_B30_TunnelsEnd(t *testing.T) {
	for _, tc := range []struct {
		name, before, after string
		stays               bool
	}{
		{"same", "host: api.example.com, port: 25", "host: api.example.com, port: 25", true},
		{"taken out", "host: api.example.com, port: 25", "host: other.example.com, port: 25", false},
		{"now judged by requests", "host: api.example.com, port: 25", "host: api.example.com, port: 25, protocol: rest, access: full", false},
		{"raw, now judged by requests", "host: api.example.com, port: 25, protocol: tcp", "host: api.example.com, port: 25, protocol: rest, access: full", false},
		{"address not allowed any more", "host: api.example.com, port: 25", "host: api.example.com, port: 25, allowed_ips: [10.0.0.0/8]", false},
		{"address still allowed", "host: api.example.com, port: 25", "host: api.example.com, port: 25, allowed_ips: [93.184.216.0/24]", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, endpoints(tc.before))
			closed := make(chan error, 2)
			w.raw("api.example.com", 25, func(c net.Conn) {
				_, _ = io.WriteString(c, "220\n")
				_, err := io.Copy(c, c)
				closed <- err
			})
			for _, open := range []func() *net.TCPConn{
				func() *net.TCPConn { return w.tunnel("api.example.com:25") },
				func() *net.TCPConn { return w.to("198.18.0.1:25") },
			} {
				c := open()
				br := bufio.NewReader(c)
				if s, err := br.ReadString('\n'); err != nil {
					t.Fatal(s, err)
				}
				w.load(endpoints(tc.after))
				_, _ = io.WriteString(c, "x\n")
				s, err := br.ReadString('\n')
				if stays := err == nil && s == "x\n"; stays != tc.stays {
					t.Errorf("%q %v", s, err)
				}
				if !tc.stays {
					select {
					case <-closed:
					case <-time.After(patience):
						t.Error("the other side stays open")
					}
				}
				w.load(endpoints(tc.before))
			}
		})
	}
}

func TestBypass_B30_SilentConnectionIsJudgedByTheNewPolicy(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 25"))
	var got tap
	w.raw("api.example.com", 25, got.serve)
	c := w.tunnel("api.example.com:25")
	if !settles(func() bool { return len(w.dials()) > 0 }) {
		t.Fatal("the proxy does not dial for a client that says nothing")
	}
	w.load(endpoints("host: api.example.com, port: 25, protocol: rest, access: full, enforcement: enforce"))
	_, _ = io.WriteString(c, "\x00raw")
	if err := gone(c); err != nil {
		t.Error(err)
	}
	if got.got() != "" {
		t.Errorf("the server got %q", got.got())
	}
}

// A decision that a reload overtakes is not acted upon.
func TestBypass_B30_ReloadBetweenJudgingAndBeginning(t *testing.T) {
	w := newWorld(t, endpoints(openHost))
	tcp, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	c := &connection{server: w.s, sandbox: w.sandbox, client: &clientConn{TCPConn: tcp.(*net.TCPConn)}, requests: map[*policy.Request]*request{}}
	if err := c.identify(); err != nil {
		t.Fatal(err)
	}
	to := target{host: "api.example.com", port: 80}
	j := &request{to: to}
	if refusal := c.judgeRequest(j, &http.Request{Method: "GET"}, "/a", false); refusal != nil {
		t.Fatal(refusal)
	}
	w.load(endpoints("host: other.example.com, port: 80"))
	ctx, cancel := context.WithCancelCause(context.Background())
	c.track(j, cancel)
	if !errors.Is(context.Cause(ctx), errReloaded) {
		t.Errorf("the request goes on: %v", context.Cause(ctx))
	}
	c.untrack(j)
	if dec, ok := c.begin(to, j.l4, true); ok {
		t.Errorf("the connection goes on: %v", dec)
	}
}

func TestLoadKeepsThePolicyBefore(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	for name, tc := range map[string]struct {
		text     string
		revision int
	}{
		"syntax":        {"version: 1\nnonsense: 2\n", 7},
		"same revision": {endpoints("host: other.example.com, port: 80"), w.revision},
		"locked field":  {"process: {run_as_user: nobody}\n" + endpoints(everything), 7},
	} {
		if err := w.sandbox.Load("x", []byte(tc.text), tc.revision); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if n, rev, _ := w.sandbox.Loaded(); n != "test" || rev != w.revision || !w.sandbox.MayResolve("api.example.com") {
			t.Errorf("%s: %s %d", name, n, rev)
		}
	}
}

// TestBypass_B37_LoadRefusesPrograms: where programs can trace each other, no policy that
// names one comes in force, the first one included; the error names the rule and the way
// out.
func TestBypass_B37_LoadRefusesPrograms(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	every := strings.ReplaceAll(endpoints(everything), curl, "/**")
	if every == endpoints(everything) {
		t.Fatal("the policy names no program")
	}
	for _, names := range []bool{true, false} {
		s, err := New(Config{Identity: w.id, Log: w.log}).Add(SandboxConfig{Container: container, Log: w.log, MayNamePrograms: names})
		if err != nil {
			t.Fatal(err)
		}
		for revision, text := range map[int]string{1: endpoints(everything), 2: every} {
			err := s.Load("x", []byte(text), revision)
			var static *proxyapi.Failure
			refused := errors.As(err, &static) && static.Code == proxyapi.CodeStaticChange
			if err != nil && !refused || refused != (!names && revision == 1) {
				t.Errorf("programs may be named: %t, revision %d: %v", names, revision, err)
			}
			if refused && (!slices.Equal(static.Fields, []string{"network_policies.web.binaries[0]"}) || !strings.Contains(err.Error(), "`tracing: deny`")) {
				t.Errorf("%v", err)
			}
		}
	}
}

// DenyAll ends what is open, the router's connections too, lets nothing new out and
// says why, until a policy is loaded.
func TestBypass_B74_DenyAll(t *testing.T) {
	w := newWorld(t, endpoints(openHost, "host: api.example.com, port: 25"))
	ended := make(chan string, 3)
	streams := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "first")
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
			ended <- r.Host
		case <-time.After(patience):
		}
	})
	plain, _ := w.both(streams, "http/1.1")
	asked := 0
	w.sandbox.SetRouter(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked++
		streams(rw, r)
	}))
	w.raw("api.example.com", 25, func(c net.Conn) {
		_, _ = io.WriteString(c, "220\n")
		_, _ = io.Copy(c, c)
		ended <- "tunnel"
	})
	get := func(host, path string) (*tls.Conn, *bufio.Reader) {
		c := w.secure(w.tunnel(host+":443"), host)
		_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		return c, bufio.NewReader(c)
	}
	tunnel := w.tunnel("api.example.com:25")
	open := []*bufio.Reader{bufio.NewReader(tunnel)}
	for _, host := range []string{"api.example.com", policy.RouterHost} {
		_, br := get(host, "/a")
		open = append(open, br)
	}
	for _, br := range open {
		if _, err := br.Peek(1); err != nil {
			t.Fatal(err)
		}
	}
	dials, noted := len(w.dials()), len(w.log.all())
	w.revision++
	w.sandbox.DenyAll("bad.yaml", w.revision)
	for range open {
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the other side of something stays open")
		}
	}
	for i, br := range open {
		if b, err := io.ReadAll(br); err == nil {
			t.Errorf("%d ended with %q as if it were whole", i, b)
		}
	}
	// The router's connection is for no target of the policy.
	denials := func(want map[uint16]int) {
		t.Helper()
		var got map[uint16]int
		if !settles(func() bool {
			got = map[uint16]int{}
			for _, r := range w.log.all()[noted:] {
				if r.Reason == deniesAll && r.Revision == w.revision && r.Verdict == "deny" {
					got[r.Port]++
				}
			}
			return maps.Equal(got, want)
		}) {
			t.Errorf("recorded by port %v, want %v", got, want)
		}
	}
	denials(map[uint16]int{25: 1, 443: 1, 0: 1})
	for _, authority := range []string{"api.example.com:25", "api.example.com:443", "api.example.com:80"} {
		if status, head := connect(t, w.dial(), authority); status != 403 {
			t.Errorf("CONNECT %s: %s", authority, head)
		}
	}
	denials(map[uint16]int{25: 2, 443: 2, 80: 1, 0: 1})
	_, br := get(policy.RouterHost, "/a")
	if resp, body := answerOf(t, br, "GET"); resp.StatusCode != 403 || asked != 1 {
		t.Errorf("the router, asked %d times: %d %s", asked, resp.StatusCode, body)
	}
	if body, _, _, err := w.sandbox.Transform(&http.Request{}, []byte("prompt")); err == nil {
		t.Errorf("the router sends %q on", body)
	}
	if n := len(w.dials()); n != dials || len(plain.got()) > 0 || w.sandbox.MayResolve("api.example.com") {
		t.Errorf("%d dials, were %d", n, dials)
	}
	if err := w.sandbox.Load("x", []byte("process: {run_as_user: nobody}\n"+endpoints(everything)), w.revision+1); err == nil || w.sandbox.Closed() == "" {
		t.Errorf("a locked field was changed: %v", err)
	}
	w.load(endpoints(openHost))
	if w.sandbox.Closed() != "" {
		t.Error("still closed")
	}
	for _, host := range []string{"api.example.com", policy.RouterHost} {
		c, br := get(host, "/a")
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", host, resp, err)
		}
		c.Close()
	}
}

func TestBypass_B31_ManyNames(t *testing.T) {
	w := newWorld(t, endpoints("host: '*.many.test', port: 443"))
	var tasks sync.WaitGroup
	for i := range 20 {
		tasks.Go(func() {
			for k := range 50 {
				c, err := net.Dial("tcp", w.redirect("93.184.216.66:443"))
				if err != nil {
					t.Error(err)
					return
				}
				tc := tls.Client(c, &tls.Config{ServerName: fmt.Sprintf("a%d.b%d.denied.test", i, k), RootCAs: w.roots})
				_ = tc.SetDeadline(time.Now().Add(patience))
				if err := tc.Handshake(); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	tasks.Wait()
	if d := w.dials(); len(d) > 0 {
		t.Errorf("dialled %d times", len(d))
	}
}
