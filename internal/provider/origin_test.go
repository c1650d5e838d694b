// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
)

const refreshing = `id: api
credentials:
  - name: token
    env_vars: [API_TOKEN, API_KEY]
    required: true
    refresh:
      strategy: oauth2_refresh_token
      token_url: https://login.example.com/token
      scopes: [a]
      refresh_before_seconds: 60
      max_lifetime_seconds: 600
      material: [{name: audience, required: false}, {name: pin, secret: true}]
  - {name: fixed, env_vars: [API_FIXED]}
endpoints: [{host: api.test, port: 443}]
`

func TestNewRefresh(t *testing.T) {
	p, err := ParseProfile("p.yaml", []byte(refreshing))
	if err != nil {
		t.Fatal(err)
	}
	rt := map[string]secret.Secret{"refresh_token": secret.New("the-refresh-token")}
	o, err := p.NewRefresh("token", map[string]string{"client_id": "me", "audience": "x"}, rt, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if o.TokenURL != "https://login.example.com/token" || o.Before != time.Minute || o.Lifetime != 10*time.Minute || !o.Refreshes() {
		t.Errorf("%+v", o)
	}
	for _, tc := range []struct {
		credential string
		settings   map[string]string
		material   map[string]secret.Secret
		want       string
	}{
		{"fixed", nil, nil, "no refresh for credential fixed"},
		{"none", nil, nil, "no refresh for credential none"},
		{"token", nil, rt, "needs the material client_id"},
		{"token", map[string]string{"client_id": "me"}, nil, "needs the material refresh_token"},
		{"token", map[string]string{"client_id": "me", "token_url": "https://attacker.test"}, rt, `takes no material "token_url"`},
		{"token", map[string]string{"client_id": "me"}, map[string]secret.Secret{"refresh_token": secret.New(strings.Repeat("x", MaxValue+1))}, "larger than"},
	} {
		if _, err := p.NewRefresh(tc.credential, tc.settings, tc.material, time.Now()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
	for name, want := range map[string]bool{"refresh_token": true, "client_secret": true, "pin": true, "client_id": false, "audience": false} {
		if p.SecretMaterial("token", name) != want {
			t.Errorf("%s is a secret: %v", name, !want)
		}
	}
}

// TestRoleKeys: keys are given, or AWS's own chain is asked for; nothing falls back to
// it, and its variables are for nothing else.
func TestRoleKeys(t *testing.T) {
	p, err := ParseProfile("p.yaml", []byte("id: aws\ncredentials: [{name: id, env_vars: [ID], refresh: {strategy: aws_sts_assume_role}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]secret.Secret{"aws_secret_access_key": secret.New("s")}
	for _, tc := range []struct {
		settings map[string]string
		material map[string]secret.Secret
		want     string
	}{
		{map[string]string{"aws_access_key_id": "A"}, secrets, ""},
		{map[string]string{Ambient: "true", "AWS_PROFILE": "p"}, map[string]secret.Secret{"AWS_SECRET_ACCESS_KEY": secret.New("s")}, ""},
		{nil, nil, "needs the materials aws_access_key_id and aws_secret_access_key; --ambient-credentials"},
		{map[string]string{"aws_access_key_id": "A"}, nil, "takes aws_access_key_id and aws_secret_access_key together"},
		{nil, secrets, "takes aws_access_key_id and aws_secret_access_key together"},
		{nil, map[string]secret.Secret{"aws_session_token": secret.New("s")}, "and aws_session_token with them"},
		{map[string]string{Ambient: "true", "aws_access_key_id": "A"}, secrets, "want one of them"},
		{map[string]string{Ambient: "true"}, map[string]secret.Secret{"aws_session_token": secret.New("s")}, "and aws_session_token with them"},
		{map[string]string{"aws_access_key_id": "A", "AWS_PROFILE": "p"}, secrets, `takes no material "AWS_PROFILE"`},
	} {
		settings := map[string]string{"role_arn": "arn"}
		maps.Copy(settings, tc.settings)
		_, err := p.NewRefresh("id", settings, tc.material, time.Now())
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: error %v, want %q", tc.settings, err, tc.want)
		}
	}
	if !p.SecretMaterial("id", "AWS_SECRET_ACCESS_KEY") || p.SecretMaterial("id", "AWS_ACCESS_KEY_ID") {
		t.Error("the wrong one is secret")
	}
}

// TestAuthMethod: the profile's word is kept, and wants a secret that can be sent so.
func TestAuthMethod(t *testing.T) {
	p, err := ParseProfile("p.yaml", []byte(strings.Replace(refreshing, "scopes: [a]", "token_endpoint_auth_method: client_secret_basic", 1)))
	if err != nil {
		t.Fatal(err)
	}
	settings, rt := map[string]string{"client_id": "me"}, map[string]secret.Secret{"refresh_token": secret.New("rt")}
	if _, err := p.NewRefresh("token", settings, rt, time.Now()); err == nil || !strings.Contains(err.Error(), "client_secret_basic needs the material client_secret") {
		t.Errorf("error %v", err)
	}
	rt["client_secret"] = secret.New("cs")
	if o, err := p.NewRefresh("token", settings, rt, time.Now()); err != nil || o.AuthMethod != SecretBasic {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestTenant: Microsoft's tenants have one token endpoint, whatever stands in the name.
func TestTenant(t *testing.T) {
	p, err := ParseProfile("p.yaml", []byte("id: ms\ncredentials: [{name: t, env_vars: [T], refresh: {strategy: oauth2_client_credentials}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]secret.Secret{"client_secret": secret.New("s")}
	o, err := p.NewRefresh("t", map[string]string{"client_id": "me", "tenant_id": "../a b"}, secrets, time.Now())
	if err != nil || o.TokenURL != "https://login.microsoftonline.com/..%2Fa%20b/oauth2/v2.0/token" {
		t.Errorf("%v, %v", o, err)
	}
	if _, err := p.NewRefresh("t", map[string]string{"client_id": "me"}, secrets, time.Now()); err == nil || !strings.Contains(err.Error(), "no token_url") {
		t.Errorf("error %v", err)
	}
}

func TestRefreshValidation(t *testing.T) {
	for _, tc := range []struct{ refresh, more, want string }{
		{"strategy: oauth2_refresh_token, token_url: \"http://x/\"", "", "want https://host/path"},
		{"strategy: oauth2_refresh_token, token_url: \"https://u:p@x/\"", "", "want https://host/path"},
		{"strategy: oauth2_refresh_token, token_endpoint_auth_method: private_key_jwt", "", "want client_secret_post or client_secret_basic"},
		{"strategy: aws_sts_assume_role, token_endpoint_auth_method: client_secret_basic", "", "of a strategy that has a client's secret"},
		{"strategy: oauth2_refresh_token, refresh_before_seconds: -1", "", "seconds must be 0 to"},
		{"strategy: oauth2_refresh_token, additional_outputs: [{output: x, credential: l}]", ", {name: l, env_vars: [L]}", `has no output "x"`},
		{"strategy: aws_sts_assume_role, additional_outputs: [{output: session_token, credential: none}]", "", "must be another credential"},
		{"strategy: aws_sts_assume_role, additional_outputs: [{output: session_token, credential: k}]", "", "must be another credential"},
		{"strategy: aws_sts_assume_role, additional_outputs: [{output: session_token, credential: l}]", ", {name: l, env_vars: [L, M]}", "with one variable"},
	} {
		_, err := ParseProfile("p.yaml", fmt.Appendf(nil, "id: a\ncredentials: [{name: k, env_vars: [K], refresh: {%s}}%s]\n", tc.refresh, tc.more))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.refresh, err, tc.want)
		}
	}
}

// TestMaterialIsHidden: it is encrypted, comes back, and nobody is handed any.
func TestMaterialIsHidden(t *testing.T) {
	s, dir := open(t)
	p, err := s.Import("p.yaml", []byte(refreshing))
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.NewRefresh("token", map[string]string{"client_id": "me"}, map[string]secret.Secret{"refresh_token": secret.New("the-refresh-token")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).UTC().Round(time.Second)
	if err := s.Put(&Provider{
		Name: "work", Profile: "api", Values: map[string]secret.Secret{"token": secret.New("the-token")},
		Expires: map[string]time.Time{"token": end}, Origins: map[string]*Origin{"token": o},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get("work")
	if err != nil || got.Origins["token"].Material["refresh_token"].Reveal() != "the-refresh-token" {
		t.Fatalf("%+v, %v", got, err)
	}
	u, err := s.Changes("work")
	if err != nil {
		t.Fatal(err)
	}
	handed, err := proxyapi.Encode(u)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(handed, []byte("the-token")) || bytes.Contains(handed, []byte("the-refresh-token")) {
		t.Errorf("handed: %s", handed)
	}
	if len(u.Credentials) != 2 || u.Credentials[1].Key != "API_KEY" || !u.Credentials[0].Expires.Equal(end) || !u.Renewed {
		t.Errorf("handed %+v", u)
	}
	shown, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "work.age"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{shown, file, []byte(fmt.Sprintf("%v %+v %#v", got, got.Origins["token"], *got.Origins["token"]))} {
		if bytes.Contains(text, []byte("the-refresh-token")) || bytes.Contains(text, []byte("the-token")) {
			t.Errorf("shown: %s", text)
		}
	}
	if err := s.Delete("work"); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Changes("work"); err != nil || !u.Deleted {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestEnvironmentAtCreate: such a value is read where the sandbox is created, and
// nowhere else.
func TestEnvironmentAtCreate(t *testing.T) {
	s, _ := open(t)
	profile, err := s.Profile("openai")
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Name: "a", Profile: "openai", Origins: map[string]*Origin{"api_key": {Kind: FromEnvironment, Settings: map[string]string{"variable": "MY_KEY"}}}}
	if missing := profile.Missing(p); len(missing) > 0 || p.Renewed() || len(p.Stale(time.Now())) > 0 || len(p.Due(time.Now())) > 0 {
		t.Errorf("missing %v", missing)
	}
	u, err := p.Handed(profile, func(string) string { return "from-there" })
	if err != nil || u.Credentials[0].Value.Reveal() != "from-there" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := p.Handed(profile, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "MY_KEY") {
		t.Errorf("error %v", err)
	}
	if u, err := p.Handed(profile, nil); err != nil || len(u.Credentials) != 0 || !slices.Equal(u.Kept, []string{"api_key"}) {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestStale(t *testing.T) {
	now := time.Now()
	later, before := now.Add(time.Hour), now.Add(-time.Hour)
	v := map[string]secret.Secret{"k": secret.New("v")}
	for _, tc := range []struct {
		name    string
		values  map[string]secret.Secret
		expires time.Time
		status  Status
		kind    string
		stale   bool
	}{
		{"no value", nil, time.Time{}, Status{}, RefreshToken, true},
		{"good", v, later, Status{Next: before}, RefreshToken, false},
		{"ended", v, before, Status{Next: later}, RefreshToken, true},
		{"a file that is due", v, time.Time{}, Status{Next: before}, FromFile, true},
		{"a file that is not", v, time.Time{}, Status{Next: later}, FromFile, false},
		{"a file that could not be read", v, time.Time{}, Status{Next: later, Failures: 1}, FromFile, true},
	} {
		p := &Provider{Values: tc.values, Expires: map[string]time.Time{}, Origins: map[string]*Origin{"k": {Kind: tc.kind, Status: tc.status}}}
		if !tc.expires.IsZero() {
			p.Expires["k"] = tc.expires
		}
		if got := len(p.Stale(now)) > 0; got != tc.stale {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestUpdate: changes at once do not undo one another.
func TestUpdate(t *testing.T) {
	s, _ := open(t)
	if err := s.Put(&Provider{Name: "a", Values: map[string]secret.Secret{}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := s.Update("a", func(p *Provider) (bool, error) {
				p.Values[fmt.Sprint("k", i)] = secret.New("v")
				return i%2 == 0, nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	p, err := s.Get("a")
	if err != nil || len(p.Values) != 20 || p.Revision != 11 {
		t.Errorf("%d values, revision %d, %v", len(p.Values), p.Revision, err)
	}
	failed := errors.New("no")
	if _, err := s.Update("a", func(p *Provider) (bool, error) {
		clear(p.Values)
		return true, failed
	}); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	if p, err := s.Get("a"); err != nil || len(p.Values) != 20 {
		t.Errorf("%v, %v", p, err)
	}
}

// TestKeyring: the key moves to the session's keyring and back; without the session
// the store says what is missing.
func TestKeyring(t *testing.T) {
	keyring.MockInit()
	s, dir := open(t)
	if err := s.Put(&Provider{Name: "a", Values: map[string]secret.Secret{"k": secret.New("v")}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, keyFile)
	if s.KeyPlace() != file {
		t.Errorf("the key is in %s", s.KeyPlace())
	}
	if err := s.KeyToKeyring(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := again.Get("a"); err != nil || p.Values["k"].Reveal() != "v" {
		t.Errorf("%v, %v", p, err)
	}
	keyring.MockInitWithError(errors.New("no session"))
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "no session") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another key was made: %v", err)
	}
	other, _ := open(t)
	if err := other.KeyToKeyring(); err == nil {
		t.Error("moved into a keyring that is not there")
	} else if other.KeyPlace() == "the session's keyring" {
		t.Error("the key is lost")
	}
	keyring.MockInit()
	if err := again.KeyToFile(); err != nil {
		t.Fatal(err)
	}
	if back, err := Open(dir); err != nil || back.KeyPlace() != file {
		t.Errorf("%v", err)
	}
}
