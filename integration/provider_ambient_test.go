// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const roleProfile = `id: testaws
credentials:
  - name: id
    env_vars: [AWS_ACCESS_KEY_ID]
    refresh:
      strategy: aws_sts_assume_role
      token_url: "%s/"
      additional_outputs: [{output: secret_access_key, credential: secret}, {output: session_token, credential: session}]
  - {name: secret, env_vars: [AWS_SECRET_ACCESS_KEY]}
  - {name: session, env_vars: [AWS_SESSION_TOKEN]}
endpoints: [{host: api.test, port: 443}]
`

const roleAnswer = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>made-secret</SecretAccessKey><SessionToken>made-session</SessionToken>
<Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`

// TestAmbientCredentials: the refresher, locked down as it is, assumes a role with the
// keys of AWS's files, which it reads each time; only when it was told to, and without
// running what they name.
func TestAmbientCredentials(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var signers []string
	sts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, after, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		signer, _, _ := strings.Cut(after, "/")
		mu.Lock()
		signers = append(signers, signer)
		mu.Unlock()
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, roleAnswer, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	signed := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(signers) != fmt.Sprint(want) {
			t.Errorf("asked by %q, want %q", signers, want)
		}
	}
	b := boxOf(t, boxOptions{})
	ca := b.file("sts.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sts.Certificate().Raw})))
	config := b.file("aws.yaml", fmt.Sprintf("upstream: {ca_files: [%s]}\n", ca))
	ran := filepath.Join(b.dir, "ran")
	keys := func(id string) string {
		return b.file("credentials", "[work]\naws_access_key_id = "+id+"\naws_secret_access_key = the-long-lived-secret\n")
	}
	env := []string{
		"AWS_SHARED_CREDENTIALS_FILE=" + keys("AKIAFIRST"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + b.file("aws-config", "[profile run]\ncredential_process = /bin/touch "+ran+"\n"),
	}
	if out, ok := b.provider(nil, "profile", "import", b.file("role.yaml", fmt.Sprintf(roleProfile, sts.URL))); !ok {
		t.Fatal(out)
	}
	if out, ok := b.provider(nil, "create", "work", "--type", "testaws", "--runtime-credentials"); !ok {
		t.Fatal(out)
	}
	configure := func(profile string, more ...string) (string, bool) {
		args := []string{"refresh", "configure", "work", "--credential-key", "AWS_ACCESS_KEY_ID", "--material", "role_arn=arn:aws:iam::1:role/x", "--config", config}
		return b.provider(append([]string{"AWS_PROFILE=" + profile}, env...), append(args, more...)...)
	}
	if out, ok := configure("work"); ok || !strings.Contains(out, "--ambient-credentials") {
		t.Errorf("nobody asked for the machine's keys: %s", out)
	}
	signed()
	if out, ok := configure("run", "--ambient-credentials"); ok || !strings.Contains(out, "AWS's own chain finds no credentials") {
		t.Errorf("a program: %s", out)
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("a program that a file names was run")
	}
	signed()
	if out, ok := configure("work", "--ambient-credentials"); !ok {
		t.Fatalf("configure: %s", out)
	}
	signed("AKIAFIRST")
	keys("AKIANEXT")
	if out, ok := b.provider(nil, "refresh", "work", "--config", config); !ok {
		t.Errorf("refresh: %s", out)
	}
	signed("AKIAFIRST", "AKIANEXT")
	if out, ok := b.provider(nil, "get", "work", "--output", "json"); !ok || !strings.Contains(out, "session") || strings.Contains(out, "made-s") {
		t.Errorf("get: %s", out)
	}
	holdsNone(t, []string{"the-long-lived-secret", "made-secret", "made-session"}, filepath.Join(b.dir, "providers"))
}
