// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

const theSecret = "s3cr3t-material-0123456789"

func material(pairs ...string) map[string]secret.Secret {
	out := map[string]secret.Secret{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = secret.New(pairs[i+1])
	}
	return out
}

func fetch(t *testing.T, f *fake, o *provider.Origin) (*Made, error) {
	t.Helper()
	if o.TokenURL == "" && o.Kind != provider.FromFile {
		o.TokenURL = f.URL + "/token"
	}
	m, err := Fetch(context.Background(), f.config(), o)
	if err != nil && strings.Contains(err.Error(), theSecret) {
		t.Errorf("the error holds the secret: %v", err)
	}
	return m, err
}

func near(t *testing.T, got time.Time, want time.Duration) {
	t.Helper()
	if d := time.Until(got) - want; d > time.Minute || d < -time.Minute {
		t.Errorf("ends in %s, want %s", time.Until(got), want)
	}
}

func TestRefreshToken(t *testing.T) {
	f := newFake(t, 200, `{"access_token":"new-access","token_type":"Bearer","expires_in":900,"refresh_token":"rotated"}`)
	m, err := fetch(t, f, &provider.Origin{
		Kind: provider.RefreshToken, Settings: map[string]string{"client_id": "me"}, Material: material("refresh_token", theSecret, "client_secret", "cs"),
	})
	if err != nil {
		t.Fatal(err)
	}
	form, _ := f.asked(t)
	for k, want := range map[string]string{"grant_type": "refresh_token", "refresh_token": theSecret, "client_id": "me", "client_secret": "cs"} {
		if form.Get(k) != want {
			t.Errorf("%s is %q", k, form.Get(k))
		}
	}
	if m.Value.Reveal() != "new-access" || m.Material["refresh_token"].Reveal() != "rotated" {
		t.Errorf("made %q, %q", m.Value.Reveal(), m.Material["refresh_token"].Reveal())
	}
	near(t, m.Expires, 15*time.Minute)
}

func TestClientCredentials(t *testing.T) {
	f := newFake(t, 200, `{"access_token":"tok","token_type":"bearer","expires_in":7200}`)
	m, err := fetch(t, f, &provider.Origin{
		Kind: provider.ClientCredentials, Settings: map[string]string{"client_id": "me"}, Material: material("client_secret", theSecret),
		Scopes: []string{"a", "b"}, Lifetime: 10 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	form, _ := f.asked(t)
	if form.Get("grant_type") != "client_credentials" || form.Get("client_secret") != theSecret || form.Get("scope") != "a b" {
		t.Errorf("asked with %v", form)
	}
	near(t, m.Expires, 10*time.Minute) // max_lifetime_seconds
	if m.Material != nil {
		t.Errorf("material %v", m.Material)
	}
}

// TestSecretInHeader checks that, if the profile says so, the client's name and secret are
// sent in the Basic header, each form-encoded first (RFC 6749 2.3.1), and nowhere else.
func TestSecretInHeader(t *testing.T) {
	const id, clientSecret = "me:or you", "s3cr3t+/%:material"
	for kind, more := range map[string]map[string]secret.Secret{
		provider.ClientCredentials: material("client_secret", clientSecret),
		provider.RefreshToken:      material("client_secret", clientSecret, "refresh_token", theSecret),
	} {
		f := newFake(t, 200, `{"access_token":"tok","token_type":"bearer","expires_in":7200}`)
		if _, err := fetch(t, f, &provider.Origin{Kind: kind, AuthMethod: provider.SecretBasic, Settings: map[string]string{"client_id": id}, Material: more}); err != nil {
			t.Fatal(err)
		}
		form, header := f.asked(t)
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me%3Aor+you:s3cr3t%2B%2F%25%3Amaterial"))
		if got := header.Get("Authorization"); got != want {
			t.Errorf("%s: Authorization %q, want %q", kind, got, want)
		}
		if form.Has("client_secret") || form.Has("client_id") {
			t.Errorf("%s: the form has %v", kind, form)
		}
	}
}

// TestServiceAccount checks that the assertion is signed with the account's key, for this
// endpoint.
func TestServiceAccount(t *testing.T) {
	f := newFake(t, 200, `{"access_token":"ya29.tok","token_type":"Bearer","expires_in":3599}`)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	m, err := fetch(t, f, &provider.Origin{
		Kind: provider.ServiceAccount, Settings: map[string]string{"client_email": "robot@example.com", "subject": "boss@example.com"},
		Material: material("private_key", text), Scopes: []string{"cloud"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Value.Reveal() != "ya29.tok" {
		t.Errorf("made %q", m.Value.Reveal())
	}
	form, _ := f.asked(t)
	parts := strings.Split(form.Get("assertion"), ".")
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		t.Fatalf("asked with %v", form)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	if claims["iss"] != "robot@example.com" || claims["sub"] != "boss@example.com" || claims["scope"] != "cloud" || claims["aud"] != f.URL+"/token" {
		t.Errorf("claims %v", claims)
	}
}

const assumed = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>made-secret</SecretAccessKey><SessionToken>made-session</SessionToken>
<Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`

func TestAssumeRole(t *testing.T) {
	end := time.Now().Add(30 * time.Minute).UTC()
	f := newFake(t, 200, fmt.Sprintf(assumed, end.Format(time.RFC3339)))
	f.more = http.Header{"Content-Type": {"text/xml"}}
	o := &provider.Origin{
		Kind:     provider.AssumeRole,
		Settings: map[string]string{"role_arn": "arn:aws:iam::123456789012:role/x", "aws_access_key_id": "AKIAEXAMPLE", "external_id": "ext", "aws_region": "eu-west-1"},
		Material: material("aws_secret_access_key", theSecret),
	}
	m, err := fetch(t, f, o)
	if err != nil {
		t.Fatal(err)
	}
	form, header := f.asked(t)
	if form.Get("Action") != "AssumeRole" || form.Get("RoleArn") != "arn:aws:iam::123456789012:role/x" || form.Get("ExternalId") != "ext" || form.Get("RoleSessionName") != session {
		t.Errorf("asked with %v", form)
	}
	if a := header.Get("Authorization"); !strings.Contains(a, "Credential=AKIAEXAMPLE/") || !strings.Contains(a, "/eu-west-1/sts/") || strings.Contains(a, theSecret) {
		t.Errorf("Authorization %q", a)
	}
	if m.Value.Reveal() != "ASIAEXAMPLE" || m.Outputs["secret_access_key"].Reveal() != "made-secret" || m.Outputs["session_token"].Reveal() != "made-session" {
		t.Errorf("made %+v", m)
	}
	near(t, m.Expires, 30*time.Minute)

	f = newFake(t, 403, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>you sent `+theSecret+`</Message></Error></ErrorResponse>`)
	f.more = http.Header{"Content-Type": {"text/xml"}}
	o.TokenURL = f.URL
	if _, err := fetch(t, f, o); err == nil || err.Error() != "AWS STS refuses: AccessDenied" {
		t.Errorf("error %v", err)
	}
}

// TestAmbientRole checks that the role is assumed with the keys that AWS's own chain finds
// in the kept environment, and that the process's environment does not contain them
// afterwards.
func TestAmbientRole(t *testing.T) {
	end := time.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	for _, e := range os.Environ() { // the refresher's is empty
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := fmt.Sprintf(assumed, end) // an answer to a web identity is the same in another element
	_, result, _ := strings.Cut(both, "Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">")
	result = strings.TrimSuffix(result, "</AssumeRoleResponse>")
	f := newFake(t, 200, "<Response>"+result+strings.ReplaceAll(result, "AssumeRoleResult", "AssumeRoleWithWebIdentityResult")+"</Response>")
	f.more = http.Header{"Content-Type": {"text/xml"}}
	files := map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": write("credentials", "[work]\naws_access_key_id = AKIASHARED\naws_secret_access_key = "+theSecret+"\n"),
		"AWS_CONFIG_FILE":             write("config", "[profile web]\nregion = eu-west-1\n"),
	}
	for _, tc := range []struct {
		name     string
		settings map[string]string
		material map[string]secret.Secret
		caller   string // of the key that signs; empty is an error
	}{
		{"a profile of the shared files", map[string]string{"AWS_PROFILE": "work"}, nil, "AKIASHARED"},
		{"the environment", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV"}, material("AWS_SECRET_ACCESS_KEY", theSecret), "AKIAENV"},
		{"a web identity", map[string]string{"AWS_PROFILE": "web", "AWS_ROLE_ARN": "arn:aws:iam::1:role/web", "AWS_WEB_IDENTITY_TOKEN_FILE": write("token", "the-web-token")}, nil, "ASIAEXAMPLE"},
		{"nothing", map[string]string{"HOME": dir}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.mu.Lock()
			f.forms, f.header = nil, nil
			f.mu.Unlock()
			o := &provider.Origin{Kind: provider.AssumeRole, TokenURL: f.URL, Material: tc.material, Settings: map[string]string{
				"role_arn": "arn:aws:iam::1:role/x", provider.Ambient: "true", "AWS_EC2_METADATA_DISABLED": "true",
			}}
			maps.Copy(o.Settings, files)
			maps.Copy(o.Settings, tc.settings)
			_, err := fetch(t, f, o)
			for _, name := range slices.Concat(provider.AmbientVariables, provider.SecretVariables) {
				if v := os.Getenv(name); v != "" && name != "HOME" {
					t.Errorf("%s=%s is left", name, v)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if tc.caller == "" {
				if err == nil || len(f.forms) > 0 || !strings.Contains(err.Error(), "finds no credentials") {
					t.Errorf("error %v; asked with %v", err, f.forms)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			last := len(f.forms) - 1
			if a := f.header[last].Get("Authorization"); !strings.Contains(a, "Credential="+tc.caller+"/") || f.forms[last].Get("RoleArn") != "arn:aws:iam::1:role/x" {
				t.Errorf("asked by %q with %v", a, f.forms[last])
			}
			if tc.settings["AWS_ROLE_ARN"] != "" && (last != 1 || f.forms[0].Get("WebIdentityToken") != "the-web-token" || f.forms[0].Get("Action") != "AssumeRoleWithWebIdentity") {
				t.Errorf("asked with %v first", f.forms[0])
			}
		})
	}
}

// TestRefusals checks that each response without a credential gives an error with the
// reason, and that the error never contains what was sent, however the other side returns
// it.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		answer string
		more   http.Header
		want   string
	}{
		{"refused", 400, `{"error":"invalid_grant","error_description":"bad ` + theSecret + `"}`, nil, "answers 400: invalid_grant"},
		{"its error is the secret", 400, `{"error":"` + theSecret + `"}`, nil, "answers 400"},
		{"in text", 500, theSecret, http.Header{"Content-Type": {"text/plain"}}, "answers 500"},
		{"no JSON", 200, "<html>" + theSecret, nil, "not what was asked for"},
		{"no token", 200, `{"token_type":"bearer"}`, nil, "not what was asked for"},
		{"an empty token", 200, `{"access_token":"","token_type":"bearer"}`, nil, "not what was asked for"},
		{"blanks", 200, `{"access_token":"   ","token_type":"bearer"}`, nil, "the credential: it is empty"},
		{"a huge token", 200, `{"access_token":"` + strings.Repeat("x", provider.MaxValue+1) + `","token_type":"bearer"}`, nil, "larger than"},
		{"a token with controls", 200, `{"access_token":"a\u0000b","token_type":"bearer"}`, nil, "it is not text"},
		{"no text", 200, `{"access_token":{"a":1}}`, nil, "not what was asked for"},
		{"another type", 200, `{"access_token":"a","token_type":"mac"}`, nil, "not a bearer's"},
		{"ended", 200, `{"access_token":"a","token_type":"bearer","expires_in":-10}`, nil, "already expired"},
		{"leads elsewhere", 307, "", http.Header{"Location": {"https://attacker.test/"}}, "answers 307"},
		{"an error with 200", 200, `{"error":"invalid_client","access_token":"a"}`, nil, "answers 200: invalid_client"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t, tc.status, tc.answer)
			for k, v := range tc.more {
				f.more[k] = v
			}
			_, err := fetch(t, f, &provider.Origin{
				Kind: provider.RefreshToken, Settings: map[string]string{"client_id": "me"}, Material: material("refresh_token", theSecret),
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if form, _ := f.asked(t); form.Get("refresh_token") != theSecret {
				t.Errorf("control: the endpoint was asked with %v", form)
			}
		})
	}
}

// TestUnverified checks that a secret is not sent to a server that cannot prove that it is
// the endpoint.
func TestUnverified(t *testing.T) {
	f := newFake(t, 200, `{"access_token":"a","token_type":"bearer"}`)
	for name, o := range map[string]*provider.Origin{
		"oauth":  {Kind: provider.RefreshToken, Material: material("refresh_token", theSecret)},
		"client": {Kind: provider.ClientCredentials, Material: material("client_secret", theSecret)},
		"sts":    {Kind: provider.AssumeRole, Settings: map[string]string{"role_arn": "arn:aws:iam::1:role/x", "aws_access_key_id": "A"}, Material: material("aws_secret_access_key", theSecret)},
		"vault":  {Kind: provider.FromVault, Settings: map[string]string{"address": f.URL, "path": "secret/x", "field": "f"}, Material: material("token", theSecret)},
	} {
		t.Run(name, func(t *testing.T) {
			o.TokenURL = f.URL
			_, err := Fetch(context.Background(), Config{Roots: x509.NewCertPool(), Now: time.Now}, o)
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("error %v", err)
			}
			if form, _ := f.asked(t); form != nil {
				t.Errorf("it was asked with %v", form)
			}
		})
	}
	o := &provider.Origin{Kind: provider.RefreshToken, TokenURL: "https://127.0.0.1:1/", Material: material("refresh_token", theSecret)}
	if _, err := fetch(t, f, o); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	o := &provider.Origin{Kind: provider.FromFile, Settings: map[string]string{"path": path}}
	if _, err := fetch(t, newFake(t, 200, ""), o); err == nil || !strings.Contains(err.Error(), path+": no such file") {
		t.Errorf("error %v", err)
	}
	for text, want := range map[string]string{"value\n": "", "": "it is empty", strings.Repeat("x", provider.MaxValue+1): "larger than", "a\x00b": "not text"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := fetch(t, newFake(t, 200, ""), o)
		if want == "" && (err != nil || m.Value.Reveal() != "value" || !m.Expires.IsZero()) {
			t.Errorf("%v, %v", m, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestVault(t *testing.T) {
	dir := t.TempDir()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte("file-"+theSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, answer string
		status       int
		file         bool
		value, want  string
		ends         time.Duration
	}{
		{"version 1", `{"data":{"key":"v1"},"lease_duration":2764800}`, 200, false, "v1", "", 0},
		{"version 2", `{"data":{"data":{"key":"v2"},"metadata":{"version":3}}}`, 200, true, "v2", "", 0},
		{"with a lease", `{"lease_id":"l","lease_duration":600,"data":{"key":"v3"}}`, 200, false, "v3", "", 10 * time.Minute},
		{"no field", `{"data":{"other":"x"}}`, 200, false, "", "no text in field key", 0},
		{"none there", `{"errors":[]}`, 404, false, "", "no secret at", 0},
		{"refused", `{"errors":["token ` + theSecret + ` is bad"]}`, 403, false, "", "Vault answers 403", 0},
		{"no JSON", `<html>`, 200, false, "", "not what was asked for", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t, tc.status, tc.answer)
			o := &provider.Origin{
				Kind: provider.FromVault, Settings: map[string]string{"address": f.URL, "path": "secret/data/x", "field": "key"}, Material: material("token", theSecret),
			}
			token := theSecret
			if tc.file {
				o.Settings["token_file"], token = tokenFile, "file-"+theSecret
			}
			m, err := fetch(t, f, o)
			if _, h := f.asked(t); h.Get("X-Vault-Token") != token {
				t.Errorf("the token was %q", h.Get("X-Vault-Token"))
			}
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || m.Value.Reveal() != tc.value {
				t.Fatalf("%v, %v", m, err)
			}
			if tc.ends != 0 {
				near(t, m.Expires, tc.ends)
			} else if !m.Expires.IsZero() {
				t.Errorf("ends at %s", m.Expires)
			}
		})
	}
}

func TestKubernetes(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(theSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(status int, answer string) (*fake, *Made, error) {
		f := newFake(t, status, answer)
		ca := filepath.Join(dir, "ca.crt")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Fetch(context.Background(), Config{Roots: x509.NewCertPool(), Now: time.Now}, &provider.Origin{
			Kind: provider.FromKubernetes, Settings: map[string]string{"server": f.URL, "namespace": "ns", "secret": "keys", "key": "api", "token_file": token, "ca_file": ca},
		})
		return f, m, err
	}
	f, m, err := ask(200, `{"kind":"Secret","data":{"api":"dGhlLXZhbHVlCg=="}}`)
	if err != nil || m.Value.Reveal() != "the-value" {
		t.Fatalf("%v, %v", m, err)
	}
	if _, h := f.asked(t); h.Get("Authorization") != "Bearer "+theSecret {
		t.Errorf("asked as %q", h.Get("Authorization"))
	}
	for answer, want := range map[string]string{`{"data":{"other":"eA=="}}`: "has no key api", `{"data":{"api":"!!"}}`: "not what was asked for", `<`: "not what was asked for"} {
		if _, _, err := ask(200, answer); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, _, err := ask(403, `{"message":"`+theSecret+`"}`); err == nil || err.Error() != "the cluster's API answers 403 for Secret ns/keys" {
		t.Errorf("error %v", err)
	}
}

// TestNothingPrintsSecrets checks that nothing shows what sources use and return.
func TestNothingPrintsSecrets(t *testing.T) {
	f := newFake(t, 200, `{"access_token":"the-made-token","token_type":"bearer","expires_in":7200,"refresh_token":"the-next-token"}`)
	o := &provider.Origin{Kind: provider.RefreshToken, Settings: map[string]string{"client_id": "me"}, Material: material("client_secret", theSecret, "refresh_token", "the-old-token")}
	s, err := Open(Config{}, o)
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, s, []string{theSecret, "the-old-token"})
	m, err := fetch(t, f, o)
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, m, []string{"the-made-token", "the-next-token"})
}
