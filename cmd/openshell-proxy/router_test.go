// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/inference"
	"openshell.dev/runtime/integration/sigv4"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/handoff"
	"openshell.dev/runtime/internal/inferencefile"
)

// A Bedrock route is signed with its provider's keys, as AWS would check it; expired or
// deleted keys sign nothing.
func TestBedrockIsSigned(t *testing.T) {
	type seen struct {
		r    *http.Request
		body []byte
	}
	var got []seen
	backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, seen{r, body})
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}))
	defer backend.Close()
	roots := x509.NewCertPool()
	roots.AddCert(backend.Certificate())
	log, err := decisionlog.Open(t.TempDir(), "box", decisionlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	reach := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
	}
	b := newBackends(reach, func() *x509.CertPool { return roots }, nil, log)
	key := handoff.RouteKey{Style: handoff.SigV4, KeyID: "AKIDEXAMPLE12345", Value: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Session: "session/token+example=="}
	ask := func(k handoff.RouteKey) *httptest.ResponseRecorder {
		t.Helper()
		r, err := b.router(&handoff.Inference{
			File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Dialect: "bedrock", BaseURL: "https://example.com", Region: "eu-central-1"}}},
			Keys: map[string]handoff.RouteKey{"r": k},
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		req := httptest.NewRequest("POST", "/model/us.meta.llama3-v1:0/invoke", strings.NewReader(`{"prompt":"x"}`))
		req.Host = inference.Host
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=callers")
		r.ServeHTTP(w, req)
		return w
	}
	if w := ask(key); w.Code != 200 || len(got) != 1 {
		t.Fatalf("%d %s, asked %d times", w.Code, w.Body, len(got))
	}
	keys, service := sigv4.Keys{ID: key.KeyID, Secret: key.Value, Token: key.Session}, sigv4.Service{Name: "bedrock", Region: "eu-central-1"}
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
	for _, k := range []handoff.RouteKey{expired, {Style: handoff.SigV4}} {
		if w := ask(k); w.Code != 503 || len(got) != 1 || strings.Contains(w.Body.String(), key.Value) {
			t.Errorf("%d %s, asked %d times", w.Code, w.Body, len(got))
		}
	}
}
