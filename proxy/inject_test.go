// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/credentials"
)

const (
	secretValue = "sk-c2VjcmV0LXZhbHVl"
	secretKey   = credentials.Marker + "API_KEY"
)

// withSecret is a world in which api.example.com takes a credential.
func withSecret(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, endpoints(`host: api.example.com, ports: [443]`))
	set, err := credentials.New(credentials.Config{AnyPlace: true}, []credentials.Provider{{
		Name: "api", Endpoints: []credentials.Endpoint{{Host: "api.example.com", Ports: []uint16{443}}},
		Credentials: []credentials.Credential{{Key: "API_KEY", Value: secret.New(secretValue)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.sandbox.SetCredentials(set)
	return w
}

// TestTrailersWithPlaceholders: no placeholder leaves in a trailer, and the request
// is not whole for the other side.
func TestTrailersWithPlaceholders(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			w := withSecret(t)
			ended := make(chan error, 1)
			w.site("api.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				ended <- err
			}), proto)
			req, err := http.NewRequest("POST", "https://api.example.com/", io.MultiReader(strings.NewReader("x")))
			if err != nil {
				t.Fatal(err)
			}
			req.Trailer = http.Header{"X-Key": {secretKey}}
			resp, err := w.client(w.byConnect, proto).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 500 || !strings.Contains(string(body), "credential_injection_failed") {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			if err := <-ended; err == nil {
				t.Error("the other side took the request for whole")
			}
			if r := w.recorded(0); r.Verdict != "deny" {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

// TestErrorsHoldNoCredentials: an answer that is no HTTP and quotes the credential
// is quoted without it.
func TestErrorsHoldNoCredentials(t *testing.T) {
	w := withSecret(t)
	leaf, err := w.upstream.Leaf("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.raw("api.example.com", 443, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}})
		if req, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			fmt.Fprintf(s, "%s\r\n\r\n", req.Header.Get("Authorization"))
		}
	})
	req, err := http.NewRequest("GET", "https://api.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secretKey)
	resp, err := w.client(w.byConnect, "http/1.1").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	r := w.recorded(0)
	if resp.StatusCode != 502 || !strings.Contains(r.Reason, "malformed") {
		t.Errorf("status %d, recorded %+v", resp.StatusCode, r)
	}
	if strings.Contains(string(body)+r.Reason, secretValue) {
		t.Errorf("the credential is in %q or %q", body, r.Reason)
	}
}

// TestEmptyAnswersThatSayTheyAreCompressed have nothing to decompress.
func TestEmptyAnswersThatSayTheyAreCompressed(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, method := range []string{"HEAD", "GET"} {
			w := withSecret(t)
			w.site("api.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Encoding", "gzip")
				rw.WriteHeader(map[string]int{"HEAD": 200, "GET": 204}[method])
			}), proto)
			resp, body := get(t, w.client(w.byConnect, proto), method, "https://api.example.com/", nil)
			if resp.StatusCode >= 300 || body != "" {
				t.Errorf("%s %s: status %d, %q", proto, method, resp.StatusCode, body)
			}
		}
	}
}

// TestRouterWaitsForSlowClients: who connects and says nothing yet is waited for.
func TestRouterWaitsForSlowClients(t *testing.T) {
	w := newWorld(t, endpoints(`host: api.example.com, ports: [443]`))
	router := netip.MustParseAddr("198.18.0.9")
	w.sandbox.nameOf = func(a netip.Addr) (string, bool) { return policy.RouterHost, a == router }
	w.sandbox.SetRouter(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "routed") }))
	c := w.to(router.String() + ":443")
	time.Sleep(3 * w.s.timeouts.serverFirst) //nolint:forbidigo // a slow client
	_, body := ask(t, w.secure(c, policy.RouterHost), "GET / HTTP/1.1\r\nHost: "+policy.RouterHost+"\r\nConnection: close\r\n\r\n")
	if body != "routed" {
		t.Errorf("the answer is %q", body)
	}
}

// TestBypass_B67_NoCredentialWithoutVerifiedTLS: a server without the certificate
// for its name, and one without TLS, are sent nothing of a credential.
func TestBypass_B67_NoCredentialWithoutVerifiedTLS(t *testing.T) {
	for _, tc := range []struct {
		name, url string
		protocols []string
		trusted   bool
		status    int
	}{
		{"the control", "https://api.example.com/", []string{"http/1.1"}, true, 200},
		{"unknown issuer, HTTP/1", "https://api.example.com/", []string{"http/1.1"}, false, 502},
		{"unknown issuer, HTTP/2", "https://api.example.com/", []string{"h2"}, false, 502},
		{"without TLS", "http://api.example.com/", nil, true, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := withSecret(t)
			w.load(endpoints("host: api.example.com, ports: [443, 80], protocol: rest, enforcement: enforce, access: full"))
			if !tc.trusted {
				other, err := ca.New("other", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				w.upstream = other
			}
			port := uint16(443)
			if len(tc.protocols) == 0 {
				port = 80
			}
			got := w.site("api.example.com", port, nil, tc.protocols...)
			req, err := http.NewRequest("GET", tc.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+secretKey)
			resp, err := w.client(w.byConnect, tc.protocols...).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			arrived := got.got()
			if resp.StatusCode != tc.status || (tc.status == 200) != (len(arrived) == 1) {
				t.Fatalf("status %d, arrived %v", resp.StatusCode, arrived)
			}
			if tc.status == 200 && arrived[0].Header.Get("Authorization") != "Bearer "+secretValue {
				t.Errorf("arrived %v", arrived)
			}
		})
	}
}
