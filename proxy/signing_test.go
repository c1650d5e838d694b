// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/integration/sigv4"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/proxy/credentials"
)

// The keys that only the proxy has, and the placeholders that a client signs with.
var (
	awsKeys  = sigv4.Keys{ID: "AKIDEXAMPLE12345", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Token: "session/token+example=="}
	awsAuth  = "AWS4-HMAC-SHA256 Credential=" + credentials.Marker + "AWS_ACCESS_KEY_ID" + "/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"
	awsToken = credentials.Marker + "AWS_SESSION_TOKEN"
)

func awsSet(t *testing.T, hosts ...string) *credentials.Set {
	t.Helper()
	p := credentials.Provider{Name: "aws", ModelAPI: true}
	for _, h := range hosts {
		p.Endpoints = append(p.Endpoints, credentials.Endpoint{Host: h, Ports: []uint16{443, 80}})
	}
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": awsKeys.ID, "AWS_SECRET_ACCESS_KEY": awsKeys.Secret, "AWS_SESSION_TOKEN": awsKeys.Token} {
		p.Credentials = append(p.Credentials, credentials.Credential{Key: k, Value: secret.New(v)})
	}
	set, err := credentials.New(credentials.Config{AnyPlace: true}, []credentials.Provider{p})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// service is one of AWS's: it answers only what is signed with the keys.
type service struct {
	t      *testing.T
	as     sigv4.Service
	mu     sync.Mutex
	asked  int
	broken error
	body   []byte
	header http.Header
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = sigv4.Verify(r, body, awsKeys, s.as, time.Now())
	}
	s.mu.Lock()
	s.asked++
	s.broken, s.body, s.header = err, body, r.Header.Clone()
	s.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
	}
}

func (s *service) take() (asked int, body []byte, h http.Header, broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, s.asked = s.asked, 0
	return asked, s.body, s.header, s.broken
}

const s3Endpoint = "host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, signing_service: s3, signing_region: eu-west-1, credential_signing: "

// TestSignedRequests: what a client signs with placeholders arrives signed with the
// keys, as a verifier of its own finds, in each mode and over both versions of HTTP.
func TestSignedRequests(t *testing.T) {
	hash := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	small, large := []byte("the body"), bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct {
			name, mode, path string
			body             []byte
			hash             string // as the client says it
			chunked          bool
			want             string // of the hash
		}{
			{"auto, nothing said", "sigv4", "/bucket/key", small, "", false, hash(small)},
			{"auto, of the body", "sigv4", "/bucket/k%20e+y?uploads&b=2&a=%2B%20", small, hash(small), false, hash(small)},
			{"auto, unsigned", "sigv4", "/bucket/key", small, "UNSIGNED-PAYLOAD", true, "UNSIGNED-PAYLOAD"},
			{"auto, unsigned with trailers", "sigv4", "/bucket/key", small, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", true, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
			{"body, in chunks", "sigv4:body", "/", small, "UNSIGNED-PAYLOAD", true, hash(small)},
			{"body, as long as may be", "sigv4:body", "/", large, "", true, hash(large)},
			{"body, none", "sigv4:body", "/", nil, "", false, hash(nil)},
			{"body, no chunk", "sigv4:body", "/", []byte{}, "", true, hash(nil)},
			{"no body", "sigv4:no_body", "/?list-type=2", small, hash(small), false, "UNSIGNED-PAYLOAD"},
		} {
			t.Run(proto+", "+tc.name, func(t *testing.T) {
				w := newWorld(t, "")
				w.sandbox.SetCredentials(awsSet(t, "api.example.com"))
				w.load(endpoints(s3Endpoint + `"` + tc.mode + `"`))
				s := &service{t: t, as: sigv4.Service{Name: "s3", Region: "eu-west-1"}}
				w.site("api.example.com", 443, s, proto)
				var body io.Reader
				if tc.body != nil {
					body = bytes.NewReader(tc.body)
				}
				if tc.chunked {
					body = io.MultiReader(body)
				}
				req, err := http.NewRequest("PUT", "https://api.example.com"+tc.path, body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"Authorization": {awsAuth}, "X-Amz-Security-Token": {awsToken}, "X-Amz-Date": {"20200101T000000Z"}, "X-Amz-Acl": {"private   x"}, "Content-Type": {"text/plain"}}
				if tc.hash != "" {
					req.Header.Set("X-Amz-Content-Sha256", tc.hash)
				}
				resp, err := w.client(w.byConnect, proto).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				asked, got, h, broken := s.take()
				if resp.StatusCode != 200 || asked != 1 || broken != nil {
					t.Fatalf("status %d %s, asked %d times, %v", resp.StatusCode, answer, asked, broken)
				}
				if !bytes.Equal(got, tc.body) {
					t.Errorf("%d bytes arrived, %d were sent", len(got), len(tc.body))
				}
				if h.Get("X-Amz-Content-Sha256") != tc.want {
					t.Errorf("hash %q, want %q", h.Get("X-Amz-Content-Sha256"), tc.want)
				}
				if r := w.recorded(0); fmt.Sprint(r.Credentials) != "[AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN]" {
					t.Errorf("recorded %q", r.Credentials)
				}
			})
		}
	}
}

// TestSignedNowhereElse: without what the signature needs nothing leaves.
func TestBypass_B64_B67_SignedNowhereElse(t *testing.T) {
	const signed = s3Endpoint + "sigv4"
	for _, tc := range []struct {
		name, endpoint, url, hash, body string
		set                             func(*testing.T) *credentials.Set
		code                            string
	}{
		{"no provider", signed, "https://api.example.com/", "", "x", func(*testing.T) *credentials.Set { return nil }, "credential_injection_failed"},
		{"provider of another host", signed, "https://api.example.com/", "", "x", func(t *testing.T) *credentials.Set { return awsSet(t, "other.example.com") }, "credential_endpoint_mismatch"},
		{"without TLS", strings.Replace(signed, "443", "80", 1), "http://api.example.com/", "", "x", nil, "credential_"},
		{"no region", strings.Replace(signed, "signing_region: eu-west-1, ", "", 1), "https://api.example.com/", "", "x", nil, "credential_injection_failed"},
		{"in pieces", signed, "https://api.example.com/", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x", nil, "credential_injection_failed"},
		{"too long", signed, "https://api.example.com/", "", strings.Repeat("x", credentials.MaxSignedBody+1), nil, "credential_injection_failed"},
		{"a placeholder in the body", signed, "https://api.example.com/", "", "k=" + credentials.Marker + "NOBODY", nil, "credential_placeholder_in_request_body"},
		{"a placeholder in what is not signed", signed, "https://api.example.com/", "UNSIGNED-PAYLOAD", "k=" + credentials.Marker + "NOBODY", nil, "credential_placeholder_in_request_body"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, "")
			w.sandbox.SetCredentials(awsSet(t, "api.example.com"))
			w.load(endpoints(tc.endpoint))
			if tc.set != nil { // the keys go after the policy was loaded
				w.sandbox.SetCredentials(tc.set(t))
			}
			s := &service{t: t, as: sigv4.Service{Name: "s3", Region: "eu-west-1"}}
			w.both(s, "http/1.1")
			req, err := http.NewRequest("PUT", tc.url, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", awsAuth)
			if tc.hash != "" {
				req.Header.Set("X-Amz-Content-Sha256", tc.hash)
			}
			var protocols []string
			if strings.HasPrefix(tc.url, "https") {
				protocols = []string{"http/1.1"}
			}
			var answer []byte
			resp, err := w.client(w.byConnect, protocols...).Do(req)
			switch {
			case err == nil:
				answer, _ = io.ReadAll(resp.Body)
				resp.Body.Close()
				if !strings.Contains(string(answer), tc.code) || resp.StatusCode < 400 {
					t.Errorf("status %d: %s", resp.StatusCode, answer)
				}
			case !errors.Is(err, unix.ECONNRESET) || len(tc.body) < credentials.MaxSignedBody:
				t.Fatal(err)
			default: // a client that still sends may miss the answer
			}
			if _, body, _, _ := s.take(); strings.Contains(string(body), credentials.Marker) {
				t.Errorf("arrived: %q", body)
			}
			if r := w.recorded(0); r.Verdict != "deny" || strings.Contains(r.Reason+string(answer), awsKeys.Secret) {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

// TestSigningNeedsKeys: a policy that signs where no attached provider has AWS keys is
// refused, and the policy before stays in force.
func TestSigningNeedsKeys(t *testing.T) {
	signs := []byte(endpoints(s3Endpoint + "sigv4"))
	for name, tc := range map[string]struct {
		set *credentials.Set
		ok  bool
	}{
		"no provider":      {nil, false},
		"another host":     {awsSet(t, "other.example.com"), false},
		"other keys":       {provides(t, "api.example.com", 443, secretValue, ""), false},
		"the keys":         {awsSet(t, "api.example.com"), true},
		"one of two hosts": {awsSet(t, "other.example.com", "api.example.com"), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			w.sandbox.SetCredentials(tc.set)
			_, before, _ := w.sandbox.Loaded()
			err := w.sandbox.Load("signs", signs, before+1)
			_, after, _ := w.sandbox.Loaded()
			if tc.ok {
				if err != nil || after != before+1 {
					t.Errorf("revision %d, %v", after, err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "credential_signing at endpoint 'api.example.com' needs an attached provider") || after != before {
				t.Errorf("revision %d after %d, %v", after, before, err)
			}
		})
	}
}

// TestSignedBodyThatIsAskedFor: a client that waits for 100 Continue is told to send
// what must be signed first, and told once.
func TestSignedBodyThatIsAskedFor(t *testing.T) {
	for mode, interim := range map[string]int{"sigv4:body": 1, "sigv4:no_body": 1} {
		w := newWorld(t, "")
		w.sandbox.SetCredentials(awsSet(t, "api.example.com"))
		w.load(endpoints(s3Endpoint + `"` + mode + `"`))
		s := &service{t: t, as: sigv4.Service{Name: "s3", Region: "eu-west-1"}}
		w.site("api.example.com", 443, s, "http/1.1")
		c := w.secure(w.tunnel("api.example.com:443"), "api.example.com", "http/1.1")
		_, _ = io.WriteString(c, "PUT /k HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n")
		br := bufio.NewReader(c)
		for range interim {
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 100 {
				t.Fatalf("%s: %v %v", mode, resp, err)
			}
		}
		_, _ = io.WriteString(c, "body")
		if resp, _ := answerOf(t, br, "PUT"); resp.StatusCode != 200 {
			t.Errorf("%s: status %d", mode, resp.StatusCode)
		}
		if _, body, _, broken := s.take(); broken != nil || string(body) != "body" {
			t.Errorf("%s: %q, %v", mode, body, broken)
		}
	}
}

// TestBypass_B64_UninspectedConnections: bytes that nobody looks at go to an
// endpoint that has credentials only where the policy says so.
func TestBypass_B64_UninspectedConnections(t *testing.T) {
	for _, tc := range []struct {
		name, endpoint string
		passes         bool
	}{
		{"tls: skip", "host: api.example.com, port: 443, tls: skip", false},
		{"tls: skip, allowed", "host: api.example.com, port: 443, tls: skip, allow_uninspected_credentials: true", true},
		{"tcp", "host: api.example.com, port: 443, protocol: tcp", false},
		{"tcp, allowed", "host: api.example.com, port: 443, protocol: tcp, allow_uninspected_credentials: true", true},
		{"one of two", "host: api.example.com, port: 443, tls: skip, allow_uninspected_credentials: true|host: '*.example.com', port: 443, tls: skip", false},
		{"no provider there", "host: raw.example.com, port: 443, tls: skip", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, "")
			w.sandbox.SetCredentials(awsSet(t, "api.example.com"))
			w.load(endpoints(strings.Split(tc.endpoint, "|")...))
			host, addr := "api.example.com", netip.Addr{}
			if strings.Contains(tc.name, "no provider") {
				host = "raw.example.com"
			}
			for a, name := range synthetic {
				if name == host {
					addr = a
				}
			}
			w.raw(host, 443, func(c net.Conn) { _, _ = io.Copy(c, c) })
			c := w.dial()
			status, _ := connect(t, c, host+":443")
			body, _ := io.ReadAll(io.LimitReader(c, map[bool]int64{true: 0, false: 300}[status == 200]))
			if tc.passes != (status == 200) || !tc.passes && !strings.Contains(string(body), `"uninspected_credentials"`) {
				t.Errorf("CONNECT: status %d %s", status, body)
			}
			echo := make([]byte, 5)
			direct, err := net.Dial("tcp", w.redirect(addr.String()+":443"))
			if err == nil {
				defer direct.Close()
				_, _ = io.WriteString(direct, "hello")
				_, err = io.ReadFull(direct, echo)
			}
			if tc.passes != (err == nil) {
				t.Errorf("directly: %q, %v", echo, err)
			}
			if n := w.accepts.Load(); !tc.passes && n != 0 {
				t.Errorf("the server was reached %d times", n)
			}
			if tc.passes && !strings.Contains(tc.name, "no provider") {
				w.load(endpoints(strings.Replace(tc.endpoint, "allow_uninspected_credentials: true", "allow_uninspected_credentials: false", 1)))
				if err := gone(direct); err != nil {
					t.Errorf("after a reload that ends it: %v", err)
				}
			}
		})
	}
}

// TestBindings: a policy binds a provider that is attached; its credentials go where
// that says, the others' do not.
func TestBindings(t *testing.T) {
	w := newWorld(t, "")
	set, err := credentials.New(credentials.Config{AnyPlace: true}, []credentials.Provider{
		{Name: "free", Credentials: []credentials.Credential{{Key: "FREE", Value: secret.New("the-free-value")}}},
		{Name: "fixed", Endpoints: []credentials.Endpoint{{Host: "api.example.com", Ports: []uint16{443}}}, Credentials: []credentials.Credential{{Key: "FIXED", Value: secret.New("the-fixed-value")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.sandbox.SetCredentials(set)
	if err := w.sandbox.Load("test", []byte(endpoints("host: api.example.com, port: 443, credential_binding: {provider: nobody}")), 7); err == nil || !strings.Contains(err.Error(), "line 6: credential_binding references provider 'nobody', but that provider is not attached to the sandbox") {
		t.Errorf("loaded, or %v", err)
	}
	w.load(endpoints(
		"host: api.example.com, port: 443, path: /free/**, protocol: rest, enforcement: enforce, access: full, credential_binding: {provider: free}",
		"host: api.example.com, port: 443, path: /any/**, protocol: rest, enforcement: enforce, access: full",
		"host: raw.example.com, port: 443, credential_binding: {provider: free}",
	))
	api := w.site("api.example.com", 443, nil, "http/1.1")
	raw := w.site("raw.example.com", 443, nil, "http/1.1")
	c := w.client(w.byConnect, "http/1.1")
	for _, tc := range []struct {
		url, key string
		to       *site
		status   int
	}{
		{"https://api.example.com/free/a", "FREE", api, 200},
		{"https://api.example.com/free/a", "FIXED", api, 403},
		{"https://api.example.com/any/a", "FREE", api, 403},
		{"https://api.example.com/any/a", "FIXED", api, 200},
		{"https://raw.example.com/", "FREE", raw, 200},
		{"https://raw.example.com/", "FIXED", raw, 403},
	} {
		before := len(tc.to.got())
		req, err := http.NewRequest("GET", tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Key", credentials.Marker+tc.key)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := tc.to.got()[before:]
		if resp.StatusCode != tc.status || (tc.status == 200) != (len(got) == 1) {
			t.Errorf("%s %s: status %d, arrived %v", tc.url, tc.key, resp.StatusCode, got)
		} else if want := "the-" + strings.ToLower(tc.key) + "-value"; tc.status == 200 && got[0].Header.Get("X-Key") != want {
			t.Errorf("%s: arrived %q", tc.url, got[0].Header.Get("X-Key"))
		}
	}
}
