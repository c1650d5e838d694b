// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/integration/sigv4"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
	"openshell.dev/runtime/policy"
)

// backendsAt returns a routerFactory for which every address is a TLS server with the handler.
func backendsAt(t *testing.T, handler http.HandlerFunc) *routerFactory {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	log, err := decisionlog.Open(t.TempDir(), "box", decisionlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	reach := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	return newRouterFactory(reach, func() *x509.CertPool { return roots }, nil, log)
}

// A Bedrock route is signed with its provider's keys, as AWS would check it; expired or
// deleted keys sign nothing.
func TestBedrockIsSigned(t *testing.T) {
	type seen struct {
		r    *http.Request
		body []byte
	}
	var got []seen
	b := backendsAt(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, seen{r, body})
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	})
	key := proxyapi.RouteKey{Style: proxyapi.SigV4, KeyID: "AKIDEXAMPLE12345", Value: secret.New("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), Session: secret.New("session/token+example==")}
	ask := func(k proxyapi.RouteKey) *httptest.ResponseRecorder {
		t.Helper()
		r, err := b.router(&proxyapi.Inference{
			File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Dialect: "bedrock", BaseURL: "https://example.com", Region: "eu-central-1"}}},
			Keys: map[string]proxyapi.RouteKey{"r": k},
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		req := httptest.NewRequest("POST", "/model/us.meta.llama3-v1:0/invoke", strings.NewReader(`{"prompt":"x"}`))
		req.Host = policy.RouterHost
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=callers")
		r.ServeHTTP(w, req)
		return w
	}
	if w := ask(key); w.Code != 200 || len(got) != 1 {
		t.Fatalf("%d %s, asked %d times", w.Code, w.Body, len(got))
	}
	keys, service := sigv4.Keys{ID: key.KeyID, Secret: key.Value.Reveal(), Token: key.Session.Reveal()}, sigv4.Service{Name: "bedrock", Region: "eu-central-1"}
	if err := sigv4.Verify(got[0].r, got[0].body, keys, service, time.Now()); err != nil {
		t.Error(err)
	}
	// The control: the check sees another key and another body.
	other := keys
	other.Secret = "other"
	if sigv4.Verify(got[0].r, got[0].body, other, service, time.Now()) == nil || sigv4.Verify(got[0].r, []byte("{}"), keys, service, time.Now()) == nil {
		t.Error("what is checked is not the signature")
	}
	expired := key
	expired.Expires = time.Now().Add(-time.Second)
	for _, k := range []proxyapi.RouteKey{expired, {Style: proxyapi.SigV4}} {
		if w := ask(k); w.Code != 503 || len(got) != 1 || strings.Contains(w.Body.String(), key.Value.Reveal()) {
			t.Errorf("%d %s, asked %d times", w.Code, w.Body, len(got))
		}
	}
}

// TestBypass_B65_RouterMasksAnswers: a backend that echoes the operator's key shows it to
// nobody, in a whole answer, in a refusal or in the events of a stream, which are not
// held back.
func TestBypass_B65_RouterMasksAnswers(t *testing.T) {
	const key = "sk-operators-own-key-0123456789"
	heard, next := make(chan string, 1), make(chan bool)
	b := backendsAt(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		auth := r.Header.Get("Authorization")
		heard <- auth
		switch {
		case strings.Contains(string(body), "refuse"):
			w.WriteHeader(http.StatusBadRequest)
		case strings.Contains(string(body), "stream"):
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"auth\":%q}\n\n", auth)
			_ = http.NewResponseController(w).Flush()
			<-next
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"auth":%q,"basic":%q}`, auth, base64.StdEncoding.EncodeToString([]byte("u:"+key)))
	})
	router, err := b.router(&proxyapi.Inference{
		File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Dialect: "openai", BaseURL: "https://example.com/v1"}}},
		Keys: map[string]proxyapi.RouteKey{"r": {Style: "bearer", Value: secret.New(key)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(router)
	defer front.Close()
	for name, body := range map[string]string{
		"whole": `{"model":"m"}`, "refused": `{"model":"m","user":"refuse"}`, "stream": `{"model":"m","stream":true}`,
	} {
		req, err := http.NewRequest("POST", front.URL+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = policy.RouterHost
		resp, err := front.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-heard; got != "Bearer "+key {
			t.Errorf("%s: the control: the backend heard %q", name, got)
		}
		var first string
		if name == "stream" { // the event is there before the next is sent
			buf := make([]byte, len("data: {\"auth\":\"Bearer \"}\n\n")+len(key))
			_, err := io.ReadFull(resp.Body, buf)
			if first = string(buf); err != nil {
				t.Errorf("%s: %q, %v", name, first, err)
			}
			next <- true
		}
		rest, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		all := first + string(rest)
		if err != nil || strings.Contains(all, key) || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte("u:"+key))) || !strings.Contains(all, "Bearer "+strings.Repeat("*", len(key))) {
			t.Errorf("%s: %d %q, %v", name, resp.StatusCode, all, err)
		}
	}
}

// TestNothingPrintsCredentials: whatever prints a worker, its router or its set of
// credentials shows none of them.
func TestNothingPrintsCredentials(t *testing.T) {
	const value, routeKey, session, caKey = "the-value-0123456789", "the-route-key-0123456789", "the-session-0123456789", "the-ca-key-0123456789"
	i := &proxyapi.Inference{
		File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Dialect: "bedrock", BaseURL: "https://example.com", Region: "eu-central-1"}, {Name: "s", Dialect: "openai", BaseURL: "https://example.com"}}},
		Keys: map[string]proxyapi.RouteKey{
			"r": {Style: proxyapi.SigV4, KeyID: "id", Value: secret.New("the-aws-key"), Session: secret.New(session)},
			"s": {Style: "bearer", Value: secret.New(routeKey)},
		},
	}
	providers := []proxyapi.Provider{{Name: "p", Endpoints: []proxyapi.Endpoint{{Host: "api.example", Ports: []uint16{443}}}, Credentials: []proxyapi.Credential{{Key: "K", Value: secret.New(value)}}}}
	b := newRouterFactory(nil, func() *x509.CertPool { return nil }, nil, nil)
	r, err := b.router(i)
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, r, []string{routeKey, session})
	set, err := credentialSet(providers, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{set: set, routers: b, config: &proxyapi.WorkerConfig{Config: proxyapi.Config{Inference: i}, CAKey: secret.New(caKey)}}
	// Of the set only what it prints is looked at: it keeps the values as text as well, to
	// find them in answers.
	secrettest.Check(t, w, []string{routeKey, session, caKey, "the-aws-key", value}, *set)
}
