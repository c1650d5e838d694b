// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.dev/runtime/internal/origin"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

const profile = `id: api
credentials:
  - name: token
    env_vars: [API_TOKEN]
    refresh: {strategy: oauth2_refresh_token, token_url: "%s/token", refresh_before_seconds: 60}
endpoints: [{host: api.test, port: 443}]
`

// issuer accepts each refresh token once and returns an access token and the next refresh
// token.
type issuer struct {
	mu    sync.Mutex
	good  string
	count int
	life  int
	// broken makes it return responses that cannot be used.
	broken bool
	// asked, if there is one, hears of each request, which then waits until slow is closed.
	asked, slow chan struct{}
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if i.slow != nil {
		i.asked <- struct{}{}
		<-i.slow
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if sent := r.FormValue("refresh_token"); i.broken || sent != i.good {
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"error":"invalid_grant","error_description":%q}`, sent)
		return
	}
	i.count++
	i.good = fmt.Sprintf("refresh-secret-%d", i.count)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": fmt.Sprintf("access-secret-%d", i.count), "token_type": "Bearer", "expires_in": i.life, "refresh_token": i.good,
	})
}

// world returns a store with a provider whose tokens come from an issuer.
func world(t *testing.T, i *issuer) (*Refresher, string) {
	t.Helper()
	i.good = "refresh-secret-0"
	server := httptest.NewTLSServer(i)
	t.Cleanup(server.Close)
	dir := filepath.Join(t.TempDir(), "providers")
	store, err := provider.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := store.Import("p.yaml", fmt.Appendf(nil, profile, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.NewRefresh("token", map[string]string{"client_id": "me"}, map[string]secret.Secret{"refresh_token": secret.New(i.good)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(&provider.Provider{Name: "work", Profile: "api", Values: map[string]secret.Secret{}, Origins: map[string]*provider.Origin{"token": o}}); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return &Refresher{Store: store, Origins: func() (origin.Config, error) { return origin.Config{Roots: pool}, nil }}, dir
}

func TestRefresh(t *testing.T) {
	i := &issuer{life: 600}
	r, dir := world(t, i)
	for n := 1; n <= 3; n++ {
		if err := r.Refresh(context.Background(), "work", nil, false); err != nil {
			t.Fatal(err)
		}
		p, err := r.Store.Get("work")
		if err != nil {
			t.Fatal(err)
		}
		// The used refresh token is replaced; otherwise the next exchange would fail.
		if p.Values["token"].Reveal() != fmt.Sprintf("access-secret-%d", n) || p.Origins["token"].Material["refresh_token"].Reveal() != fmt.Sprintf("refresh-secret-%d", n) || p.Revision != n+1 {
			t.Errorf("after %d: %q, revision %d", n, p.Values["token"].Reveal(), p.Revision)
		}
		s := p.Origins["token"].Status
		if s.Failures != 0 || s.Error != "" || s.Succeeded.IsZero() || time.Until(s.Next) < 8*time.Minute || time.Until(s.Next) > 9*time.Minute {
			t.Errorf("status %+v", s)
		}
	}
	if err := r.Refresh(context.Background(), "work", nil, true); err != nil || i.count != 3 {
		t.Errorf("what was not due was asked for: %d, %v", i.count, err)
	}
	noSecrets(t, dir)
}

// TestRefreshFails checks that the old value and its expiry stay, and that the pauses
// between attempts grow.
func TestRefreshFails(t *testing.T) {
	i := &issuer{life: 600}
	r, dir := world(t, i)
	if err := r.Refresh(context.Background(), "work", nil, false); err != nil {
		t.Fatal(err)
	}
	before, err := r.Store.Get("work")
	if err != nil {
		t.Fatal(err)
	}
	i.broken = true
	for n := 1; n <= 8; n++ {
		err := r.Refresh(context.Background(), "work", nil, false)
		if err == nil || !strings.Contains(err.Error(), "answers 400: invalid_grant") || strings.Contains(err.Error(), "secret") {
			t.Fatalf("error %v", err)
		}
		p, err := r.Store.Get("work")
		if err != nil {
			t.Fatal(err)
		}
		s := p.Origins["token"].Status
		if s.Failures != n || !strings.Contains(s.Error, "invalid_grant") || s.Next.Sub(s.Tried) != min(backoffFirst<<(n-1), backoffMost) {
			t.Errorf("status %+v", s)
		}
		if p.Values["token"].Reveal() != "access-secret-1" || !p.Expires["token"].Equal(before.Expires["token"]) || p.Revision != before.Revision {
			t.Errorf("the value changed: %+v", p)
		}
	}
	i.broken = false
	if err := r.Refresh(context.Background(), "work", []string{"token"}, false); err != nil {
		t.Fatal(err)
	}
	p, err := r.Store.Get("work")
	if err != nil || p.Origins["token"].Status.Failures != 0 || p.Values["token"].Reveal() != "access-secret-2" {
		t.Errorf("%+v, %v", p, err)
	}
	noSecrets(t, dir)
}

// TestOneSpendsTheToken checks that only one of several concurrent refreshers uses the
// refresh token, and that none uses a token twice.
func TestOneSpendsTheToken(t *testing.T) {
	i := &issuer{life: 600}
	r, _ := world(t, i)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := r.Refresh(context.Background(), "work", nil, true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if i.count != 1 {
		t.Errorf("asked %d times", i.count)
	}
}

// TestConfiguredMeanwhile checks that a value from a replaced origin is not used.
func TestConfiguredMeanwhile(t *testing.T) {
	i := &issuer{life: 600, asked: make(chan struct{}, 1), slow: make(chan struct{})}
	r, _ := world(t, i)
	done := make(chan error)
	go func() { done <- r.Refresh(context.Background(), "work", nil, false) }()
	select {
	case <-i.asked:
	case err := <-done:
		t.Fatalf("the issuer is not asked: %v", err)
	}
	if _, err := r.Store.Update("work", func(p *provider.Provider) (bool, error) {
		p.Origins["token"].Configured = time.Now().UTC().Add(time.Second)
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	close(i.slow)
	if err := <-done; !errors.Is(err, errReplaced) {
		t.Errorf("error %v", err)
	}
	if p, err := r.Store.Get("work"); err != nil || len(p.Values) > 0 {
		t.Errorf("%v, %v", p, err)
	}
}

// TestAssumedRole checks that the three keys of a role are stored together or not at all.
func TestAssumedRole(t *testing.T) {
	const keys = `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>made-secret</SecretAccessKey>` +
		`<SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
	end := time.Now().Add(20 * time.Minute).UTC().Round(time.Second)
	session := "made-session"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, keys, session, end.Format(time.RFC3339))
	}))
	defer server.Close()
	r, _ := world(t, &issuer{})
	aws, err := r.Store.Profile("aws")
	if err != nil {
		t.Fatal(err)
	}
	o, err := aws.NewRefresh("access_key_id", map[string]string{"role_arn": "arn:aws:iam::123456789012:role/x", "aws_access_key_id": "AKIA0"},
		map[string]secret.Secret{"aws_secret_access_key": secret.New("long-lived-secret")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.TokenURL = server.URL
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	r.Origins = func() (origin.Config, error) { return origin.Config{Roots: pool}, nil }
	if err := r.Store.Put(&provider.Provider{Name: "cloud", Profile: "aws", Values: map[string]secret.Secret{}, Origins: map[string]*provider.Origin{"access_key_id": o}}); err != nil {
		t.Fatal(err)
	}
	session = ""
	if err := r.Refresh(context.Background(), "cloud", nil, false); err == nil {
		t.Error("keys without a session were taken")
	}
	p, err := r.Store.Get("cloud")
	if err != nil || len(p.Values) != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	session = "made-session"
	if err := r.Refresh(context.Background(), "cloud", nil, false); err != nil {
		t.Fatal(err)
	}
	if p, err = r.Store.Get("cloud"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"access_key_id": "ASIA1", "secret_access_key": "made-secret", "session_token": "made-session"} {
		if p.Values[name].Reveal() != want || !p.Expires[name].Equal(end) {
			t.Errorf("%s is %q until %s", name, p.Values[name].Reveal(), p.Expires[name])
		}
	}
	u, err := r.Store.Changes("cloud")
	if err != nil || len(u.Credentials) != 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, c := range u.Credentials {
		if v := c.Value.Reveal(); v == "long-lived-secret" || v == "AKIA0" {
			t.Errorf("%s is what the keys are made from", c.Key)
		}
	}
}

func TestRefreshRefuses(t *testing.T) {
	r, _ := world(t, &issuer{})
	if err := r.Refresh(context.Background(), "none", nil, false); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if err := r.Refresh(context.Background(), "work", []string{"other"}, false); err == nil || !strings.Contains(err.Error(), "has no origin") {
		t.Errorf("error %v", err)
	}
}

func TestNext(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct{ before, life, want time.Duration }{
		{0, time.Hour, 55 * time.Minute},
		{time.Minute, time.Hour, 59 * time.Minute},
		{time.Hour, 10 * time.Minute, 5 * time.Minute},
		{0, time.Second, time.Second},
		{0, 0, again},
	} {
		end := now.Add(tc.life)
		if tc.life == 0 {
			end = time.Time{}
		}
		if got := next(&provider.Origin{Before: tc.before}, now, end).Sub(now); got != tc.want {
			t.Errorf("%+v: in %s", tc, got)
		}
	}
}

// TestServeEnds checks that the refresher ends if there is no sandbox to work for.
func TestServeEnds(t *testing.T) {
	r, _ := world(t, &issuer{})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var log bytes.Buffer
	r.Serve(ctx, &log)
	if !strings.Contains(log.String(), "refresher ended") {
		t.Errorf("log %q", log.String())
	}
}

func noSecrets(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "work.age"))
	if err != nil || bytes.Contains(text, []byte("secret-")) || bytes.Contains(text, []byte("access")) {
		t.Errorf("the store's file: %v", err)
	}
}
