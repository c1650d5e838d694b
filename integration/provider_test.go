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
)

// realKey is what must reach the API and nothing else.
const realKey = "sk-the-real-key-0123456789abcdef"

const providerPolicy = `version: 1
filesystem_policy: {read_only: [/bin, /etc, /proc], read_write: [/tmp]}
network_policies:
  api:
    endpoints:
      - {host: api.test, port: 443, protocol: rest, enforcement: enforce, access: full}
      - {host: api.test, port: 80, protocol: rest, enforcement: enforce, access: full}
      - {host: plain.test, port: 443}
      - {host: denied.test, port: 443, protocol: rest, enforcement: enforce, access: full}
    binaries: [{path: /bin/probe}]
`

const testProfile = `id: testapi
inference_capable: true
credentials: [{name: api_key, env_vars: [TEST_API_KEY], auth_style: header, header_name: x-api-key}]
endpoints: [{host: api.test, ports: [443, 80]}, {host: plain.test, port: 443}]
`

// heard is what the API was sent, and tells it back as a careless one would.
type heard struct {
	mu     sync.Mutex
	fields []string
}

func (h *heard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := fmt.Sprintf("x-api-key=%s authorization=%s query=%s body=%s", r.Header.Get("X-Api-Key"), r.Header.Get("Authorization"), r.URL.RawQuery, body)
	h.mu.Lock()
	h.fields = append(h.fields, text)
	h.mu.Unlock()
	w.Header().Set("X-Echo", r.Header.Get("X-Api-Key"))
	_, _ = io.WriteString(w, text)
}

func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := strings.Join(h.fields, "\n")
	h.fields = nil
	return all
}

// attach stores the provider of the tests and has the box's operator know it.
func (b *box) attach(t *testing.T, profile, more string) {
	t.Helper()
	store := filepath.Join(b.dir, "providers")
	for _, args := range [][]string{
		{"provider", "profile", "import", b.file("profile.yaml", profile), "--store", store},
		{"provider", "create", "work", "--type", "testapi", "--from-existing", "--store", store},
	} {
		cmd := exec.Command(filepath.Join(built.bin, "openshell"), args...)
		cmd.Env = []string{"TEST_API_KEY=" + realKey}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), realKey) {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, append(config, "providers_dir: "+store+"\n"+more...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// providerBox is a sandbox to which a provider of the upstream is attached.
func providerBox(t *testing.T) (*box, *heard) {
	t.Helper()
	h := &heard{}
	up := startUpstream(t)
	up.Handler = h
	b := boxOf(t, boxOptions{policy: providerPolicy, up: up, env: []string{"TEST_API_KEY=" + realKey}})
	b.attach(t, testProfile, "")
	b.flags = append(b.flags, "--provider", "work")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	return b, h
}

// TestBypass_B64_B65_B67_Credentials: the real key reaches the API it belongs to
// and nothing else; the sandbox neither has it nor gets it back.
func TestBypass_B64_B65_B67_Credentials(t *testing.T) {
	t.Parallel()
	b, h := providerBox(t)
	for _, tc := range []struct {
		name string
		argv []string
		want string // of what is printed
		api  string // what the API must have heard; empty is nothing at all
	}{
		{"header", []string{"keyed", "POST", "https://api.test/v1", "X-Api-Key:$TEST_API_KEY", "hello"}, "200 x-api-key=", "x-api-key=" + realKey + " authorization= query= body=hello"},
		{"endpoint without rules", []string{"keyed", "GET", "https://plain.test/v1", "X-Api-Key:$TEST_API_KEY"}, "200 x-api-key=", "x-api-key=" + realKey},
		{"in Authorization", []string{"keyed", "GET", "https://api.test/v1", "Authorization:$TEST_API_KEY"}, "200 ", "authorization=" + realKey},
		{"in the query, which is not its place", []string{"keyed", "GET", "https://api.test/v1?k=openshell:resolve:env:TEST_API_KEY", "X-A:b"}, `500 {"error":"credential_injection_failed"`, ""},
		{"in another header", []string{"keyed", "GET", "https://api.test/v1", "X-A:$TEST_API_KEY"}, `500 {"error":"credential_injection_failed"`, ""},
		{"another host", []string{"keyed", "GET", "https://denied.test/v1", "X-Api-Key:$TEST_API_KEY"}, `403 {"error":"credential_endpoint_mismatch"`, ""},
		{"without TLS", []string{"keyed", "GET", "http://api.test/v1", "X-Api-Key:$TEST_API_KEY"}, `403 {"error":"credential_endpoint_mismatch"`, ""},
		{"unknown", []string{"keyed", "GET", "https://api.test/v1", "X-Api-Key:openshell:resolve:env:OTHER"}, "error\":\"", ""},
		{"in a body that is not rewritten", []string{"keyed", "POST", "https://api.test/v1", "X-A:b", "key=$TEST_API_KEY"}, "200 ", "body=key=openshell:resolve:env:TEST_API_KEY"},
		{"of nobody, in a body", []string{"keyed", "POST", "https://api.test/v1", "X-A:b", "key=openshell:resolve:env:OTHER"}, `403 {"error":{"code":"credential_placeholder_in_request_body"`, ""},
		{"somebody else's key", []string{"keyed", "GET", "https://api.test/v1", "X-Api-Key:sk-attacker"}, `403 {"error":"foreign_credential"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			h.take()
			out := b.exec(append([]string{"/bin/probe"}, tc.argv...)...)
			if !strings.Contains(out, tc.want) {
				t.Errorf("printed %q, want …%q…", out, tc.want)
			}
			if strings.Contains(out, realKey) {
				t.Errorf("the key came back: %q", out)
			}
			got := h.take()
			if tc.api == "" && got != "" || !strings.Contains(got, tc.api) {
				t.Errorf("the API heard %q, want %q", got, tc.api)
			}
			if strings.Contains(got, "openshell:resolve") && !strings.Contains(tc.api, "openshell:resolve") {
				t.Errorf("a placeholder left: %q", got)
			}
		})
	}
}

// TestBypass_B42_B63_NoKeyInside: nothing that the sandbox can read holds the key:
// its environment, though the image's had it, its state, the records, the log.
func TestBypass_B42_B63_NoKeyInside(t *testing.T) {
	t.Parallel()
	b, _ := providerBox(t)
	if out := b.exec("/bin/probe", "keyed", "GET", "https://api.test/v1", "X-Api-Key:$TEST_API_KEY"); !strings.Contains(out, " 200 ") {
		t.Fatalf("control: %s", out)
	}
	for _, root := range []string{filepath.Join(b.dir, "state"), b.records()} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), realKey) {
				t.Errorf("%s holds the key", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if out := b.exec("/bin/probe", "environments"); strings.Contains(out, realKey) || !strings.Contains(out, "TEST_API_KEY=openshell:resolve:env:TEST_API_KEY") {
		t.Errorf("the environments inside: %s", out)
	}
}
