// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"openshell.dev/runtime/integration/sigv4"
	"openshell.dev/runtime/internal/decisionlog"
)

// The keys of the tests' account, and of a provider that the policy binds.
const (
	realID     = "AKIDREAL0123456789AB"
	realSecret = "wJalrXUtnFEMI/K7MDENG+the/real/secret+key0"
	freeKey    = "free-real-key-0123456789"
)

const (
	signingProfile = `id: testsign
credentials:
  - {name: id, env_vars: [AWS_ACCESS_KEY_ID]}
  - {name: secret, env_vars: [AWS_SECRET_ACCESS_KEY]}
  - {name: api_key, env_vars: [TEST_API_KEY], auth_style: header, header_name: x-key}
endpoints: [{host: api.test, port: 443}, {host: six.test, ports: [443, 7000]}]
`
	freeProfile = `id: testfree
credentials: [{name: key, env_vars: [TEST_FREE_KEY], auth_style: header, header_name: x-key}]
`
	signingPolicy = `version: 1
filesystem_policy: {read_only: [/bin, /etc, /proc], read_write: [/tmp]}
network_policies:
  api:
    endpoints:
      - {host: api.test, port: 443, path: /signed/**, protocol: rest, enforcement: enforce, access: full, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1}
      - {host: api.test, port: 443, path: /body/**, protocol: rest, enforcement: enforce, access: full, request_body_credential_rewrite: true}
      - {host: api.test, port: 443, path: /plain/**, protocol: rest, enforcement: enforce, access: full}
      - {host: api.test, port: 443, path: /ws, protocol: websocket, enforcement: enforce, access: read-write, websocket_credential_rewrite: true}
      - {host: api.test, port: 443, path: /deaf, protocol: websocket, enforcement: enforce, access: read-write}
      - {host: api.test, port: 443, path: /mute, protocol: websocket, enforcement: enforce, access: read-only}
      - {host: plain.test, port: 443, credential_binding: {provider: free}}
      - {host: six.test, port: 443, tls: skip}
      - {host: six.test, port: 7000, protocol: tcp}
      - {host: raw.test, port: 7000, protocol: tcp}
    binaries: [{path: /bin/probe}]
`
)

// account is AWS to what is signed, an echo to WebSockets, and tells what it was
// sent of all else.
type account struct {
	mu  sync.Mutex
	got []string
}

func (a *account) heard(format string, args ...any) string {
	text := fmt.Sprintf(format, args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, text)
	return text
}

func (a *account) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := strings.Join(a.got, "\n")
	a.got = nil
	return all
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			text, err := wsutil.ReadClientText(conn)
			if err != nil {
				return
			}
			_ = wsutil.WriteServerText(conn, []byte(a.heard("message %s", text)))
		}
	case strings.HasPrefix(r.URL.Path, "/signed/"):
		if err := sigv4.Verify(r, body, sigv4.Keys{ID: realID, Secret: realSecret}, sigv4.Service{Name: "s3", Region: "eu-west-1"}, time.Now()); err != nil {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, a.heard("refused: %v", err))
			return
		}
		_, _ = io.WriteString(w, a.heard("verified %s %s %s", r.Proto, r.Method, body))
	default:
		_, _ = io.WriteString(w, a.heard("%s key=%s body=%s", r.Proto, r.Header.Get("X-Key"), body))
	}
}

// provide stores a provider of a profile and has the sandbox attach it.
func (b *box) provide(t *testing.T, name, profile string, env ...string) {
	t.Helper()
	store := filepath.Join(b.dir, "providers")
	id, _, _ := strings.Cut(strings.TrimPrefix(profile, "id: "), "\n")
	for _, args := range [][]string{
		{"provider", "profile", "import", b.file(id+".yaml", profile), "--store", store},
		{"provider", "create", name, "--type", id, "--from-existing", "--store", store},
	} {
		cmd := exec.Command(filepath.Join(built.bin, "openshell"), args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	b.flags = append(b.flags, "--provider", name)
}

// signingNeedsKeys begins the error of a policy that signs without AWS keys.
const signingNeedsKeys = "credential_signing at endpoint 'api.test' needs an attached provider that has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

// TestBindingNeedsItsProvider: no sandbox begins with a policy that names a provider
// which it does not have, or that signs without AWS keys.
func TestBindingNeedsItsProvider(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{policy: signingPolicy})
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err == nil || !strings.Contains(out, "credential_binding references provider 'free', but that provider is not attached to the sandbox") || !strings.Contains(out, signingNeedsKeys) {
		t.Errorf("%v: %s", err, out)
	}
	if list, _ := b.runtime("list"); strings.Contains(list, b.id) {
		t.Errorf("something is left:\n%s", list)
	}
}

// TestBypass_B64_B65_B66_CredentialFields: what the policy says about credentials is
// done for a real client in a real sandbox, and no more than that. The other side
// says what it was sent; the sandbox never has a real key.
func TestBypass_B64_B65_B66_CredentialFields(t *testing.T) {
	t.Parallel()
	a := &account{}
	up := startUpstream(t)
	up.Handler = a
	b := boxOf(t, boxOptions{policy: signingPolicy, up: up})
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, append(config, "providers_dir: "+filepath.Join(b.dir, "providers")+"\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	b.provide(t, "work", signingProfile, "AWS_ACCESS_KEY_ID="+realID, "AWS_SECRET_ACCESS_KEY="+realSecret, "TEST_API_KEY="+realKey)
	b.provide(t, "free", freeProfile, "TEST_FREE_KEY="+freeKey)
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	masked := strings.Repeat("*", len(realKey))
	for _, tc := range []struct {
		name string
		argv []string
		want string // of what is printed
		got  string // what the other side must have been sent; empty is nothing at all
	}{
		{"signed, HTTP/2", []string{"signed", "PUT", "https://api.test/signed/bucket/k%20ey?a=b&acl", "the object"}, "HTTP/2.0 200 verified", "verified HTTP/2.0 PUT the object"},
		{"signed, HTTP/1", []string{"signed1", "GET", "https://api.test/signed/bucket"}, "HTTP/1.1 200 verified", "verified HTTP/1.1 GET "},
		{"the control: signed where nobody signs anew", []string{"signed", "PUT", "https://api.test/plain/bucket", "the object"}, "200 ", "key= body=the object"},
		{"a placeholder in what is signed", []string{"signed", "PUT", "https://api.test/signed/bucket", "k=$TEST_API_KEY"}, "200 verified", "k=openshell:resolve:env:TEST_API_KEY"},
		{"a placeholder of nobody in what is signed", []string{"signed", "PUT", "https://api.test/signed/bucket", "k=openshell:resolve:env:NOBODY"}, `403 {"error":{"code":"credential_placeholder_in_request_body"`, ""},
		{"body, HTTP/2", []string{"keyed", "POST", "https://api.test/body/a", "Content-Type:application/json", `{"k":"$TEST_API_KEY"}`}, `HTTP/2.0 200 HTTP/2.0 key= body={"k":"` + masked, `body={"k":"` + realKey + `"}`},
		{"body without the field", []string{"keyed", "POST", "https://api.test/plain/a", "Content-Type:application/json", `{"k":"$TEST_API_KEY"}`}, " 200 ", `body={"k":"openshell:resolve:env:TEST_API_KEY"}`},
		{"a placeholder of nobody in a body", []string{"keyed", "POST", "https://api.test/plain/a", "Content-Type:application/json", `{"k":"openshell:resolve:env:NOBODY"}`}, `403 {"error":{"code":"credential_placeholder_in_request_body"`, ""},
		{"message", []string{"message", "wss://api.test/ws", `{"token":"$TEST_API_KEY"}`}, `message {"token":"` + masked, `message {"token":"` + realKey + `"}`},
		{"message without the field", []string{"message", "wss://api.test/deaf", `{"token":"$TEST_API_KEY"}`}, "error: ", ""},
		{"message without a placeholder", []string{"message", "wss://api.test/deaf", "hello"}, "message hello", "message hello"},
		{"message that no rule allows", []string{"message", "wss://api.test/mute", "hello"}, "error: ", ""},
		{"request where a WebSocket is wanted", []string{"http", "GET", "https://api.test/ws"}, "websocket endpoint requires a valid WebSocket upgrade request", ""},
		{"bound by the policy", []string{"keyed", "GET", "https://plain.test/", "X-Key:$TEST_FREE_KEY"}, " 200 ", "key=" + freeKey},
		{"bound elsewhere only", []string{"keyed", "GET", "https://api.test/plain/a", "X-Key:$TEST_FREE_KEY"}, `403 {"error":"credential_endpoint_mismatch"`, ""},
		{"another's at the bound endpoint", []string{"keyed", "GET", "https://plain.test/", "X-Key:$TEST_API_KEY"}, `403 {"error":"credential_endpoint_mismatch"`, ""},
		{"TLS that nobody looks into", []string{"keyed", "GET", "https://six.test/", "X-Key:$TEST_API_KEY"}, "error: ", ""},
		{"bytes that nobody looks at", []string{"dial", "tcp", "six.test:7000"}, "error: ", ""},
		{"the control: such bytes where no key belongs", []string{"dial", "tcp", "raw.test:7000"}, "probe", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			a.take()
			out := b.exec(append([]string{"/bin/probe"}, tc.argv...)...)
			if !strings.Contains(out, tc.want) {
				t.Errorf("printed %q, want …%q…", out, tc.want)
			}
			got := a.take()
			if tc.got == "" && got != "" || !strings.Contains(got, tc.got) {
				t.Errorf("the other side was sent %q, want %q", got, tc.got)
			}
			for _, s := range []string{realKey, realSecret, freeKey} {
				if strings.Contains(out, s) {
					t.Errorf("a key came back: %q", out)
				}
			}
			if strings.Contains(got, "openshell:resolve") && !strings.Contains(tc.name, "control") && !strings.Contains(tc.got, "openshell:resolve") {
				t.Errorf("a placeholder left: %q", got)
			}
		})
	}
	b.record("a signature", func(r decisionlog.Record) bool {
		return strings.HasPrefix(r.Path, "/signed/") && strings.Join(r.Credentials, " ") == "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"
	})
	b.record("a message that was refused", func(r decisionlog.Record) bool {
		return r.Path == "/mute" && r.Method == "WEBSOCKET_TEXT" && r.Verdict == "deny"
	})
	if n := b.up.Accepted(); strings.Contains(strings.Join(n, "\n"), "7000 ") && strings.Count(strings.Join(n, "\n"), "7000 ") != 1 {
		t.Errorf("the echo was reached by %q", n)
	}
	// A policy that binds a provider which is not attached changes nothing.
	if out, status := b.cli("policy", "set", b.id, "--policy", b.file("other.yaml", strings.Replace(signingPolicy, "provider: free", "provider: nobody", 1))); status != 3 || !strings.Contains(out, "that provider is not attached to the sandbox") {
		t.Errorf("policy set: %d: %s", status, out)
	}
	// So does a policy that signs at a port which the provider with the AWS keys does not have.
	if out, status := b.cli("policy", "set", b.id, "--policy", b.file("port.yaml", strings.Replace(signingPolicy, "port: 443, path: /signed", "port: 444, path: /signed", 1))); status != 3 || !strings.Contains(out, signingNeedsKeys) {
		t.Errorf("policy set: %d: %s", status, out)
	}
}
