// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// machine is the operator's files of a test, in a folder of its own.
type machine struct {
	t     *testing.T
	dir   string
	store *provider.Store
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	store, err := provider.Open(m.path("providers"))
	if err != nil {
		t.Fatal(err)
	}
	m.store = store
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string, mode os.FileMode) string {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	return m.path(name)
}

// provide adds a provider of a built-in profile with values by credential.
func (m *machine) provide(name, profile string, values map[string]string) {
	m.t.Helper()
	p := &provider.Provider{Name: name, Profile: profile, Values: map[string]secret.Secret{}}
	for k, v := range values {
		p.Values[k] = secret.New(v)
	}
	if err := m.store.Put(p); err != nil {
		m.t.Fatal(err)
	}
}

// options are those of a sandbox under a policy, with the machine's configuration and
// more lines of it.
func (m *machine) options(policyText, config string) Options {
	m.t.Helper()
	file := m.write("config.yaml", "providers_dir: providers\ninference_file: inference.yaml\nlog_dir: logs\n"+config, 0o600)
	c, err := operator.LoadConfig(file)
	if err != nil {
		m.t.Fatal(err)
	}
	pol, err := policy.Parse("p.yaml", []byte(policyText))
	if err != nil {
		m.t.Fatal(err)
	}
	return Options{
		ID: "box", StateDir: "/run/openshell/@sandbox/box", Config: c,
		Source: &operator.Source{Name: "p.yaml", Text: []byte(policyText)}, Policy: pol,
	}
}

// locked reports whether somebody holds the lock of a provider.
func (m *machine) locked(name string) bool {
	m.t.Helper()
	f, err := os.Open(filepath.Join(m.path("providers"), ".locks", name))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// certificate returns a CA's certificate (PEM).
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const everyPolicy = `version: 1
network_policies:
  git:
    endpoints: [{host: github.com, port: 443}]
    binaries: [/usr/bin/git]
network_middlewares:
  guard: {middleware: local-guard, endpoints: {include: [api.test]}}
`

// TestAttachTwice: a second Attach for the same sandbox gives the same documents, and every
// lock and descriptor is given back.
func TestAttachTwice(t *testing.T) {
	m := newMachine(t)
	m.provide("forge", "github", map[string]string{"api_token": "token-1"})
	m.provide("model", "openai", map[string]string{"api_key": "key-1"})
	m.write("inference.yaml", "routes:\n- {name: gpt, dialect: openai, base_url: \"https://api.openai.com/v1\", provider: model, model: gpt-5}\n", 0o600)
	m.write("ca.pem", certificate(t), 0o600)
	upstream := m.write("upstream.pem", certificate(t), 0o600)
	o := m.options(everyPolicy, `annotation_providers: true
upstream: {ca_files: [ca.pem]}
middlewares:
- {name: local-guard, grpc_endpoint: "https://guard.test:443", tls_ca_cert_path: ca.pem, max_body_bytes: 1024, timeout: 2s}
`)
	o.Annotations = map[string]string{AnnotationProviders: "forge, forge"}
	o.UpstreamCAs = []string{upstream}

	before := descriptors(t)
	first, err := Attach(o)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Attach(o)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first.Config, second.Config); d != "" {
		t.Errorf("the second document differs: %s", d)
	}
	if !slices.Equal(first.Placeholders, second.Placeholders) || !slices.Equal(first.Env, second.Env) {
		t.Errorf("variables %q and %q, then %q and %q", first.Placeholders, first.Env, second.Placeholders, second.Env)
	}
	checkEvery(t, first)

	first.Release()
	for _, name := range []string{"forge", "model"} {
		if !m.locked(name) {
			t.Errorf("%s is unlocked while the second attachment has it", name)
		}
	}
	second.Release()
	second.Release()
	for _, name := range []string{"forge", "model"} {
		if m.locked(name) {
			t.Errorf("%s stays locked", name)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// checkEvery checks the attachment of TestAttachTwice.
func checkEvery(t *testing.T, a *Attachment) {
	t.Helper()
	c := a.Config
	if c.ID != "box" || c.PolicyName != "p.yaml" || string(c.PolicyText) != everyPolicy || c.Egress != proxyapi.EgressNamespace || !strings.HasSuffix(c.LogDir, "/logs/box") {
		t.Errorf("document %s, %s, %s, %s", c.ID, c.PolicyName, c.Egress, c.LogDir)
	}
	if n := strings.Count(string(c.UpstreamRoots), "BEGIN CERTIFICATE"); n != 2 {
		t.Errorf("%d upstream roots, want 2", n)
	}
	if len(c.Providers) != 1 || c.Providers[0].Name != "forge" || c.Providers[0].Credentials[0].Value.Reveal() != "token-1" {
		t.Errorf("%d providers, want forge with its token", len(c.Providers))
	}
	if key := c.Inference.Keys["gpt"]; key.Value.Reveal() != "key-1" {
		t.Error("the route has not its provider's key")
	}
	if len(c.Middlewares) != 1 || c.Middlewares[0].Timeout != 2*time.Second || len(c.Middlewares[0].Roots) == 0 {
		t.Errorf("middlewares %+v", c.Middlewares)
	}
	if !strings.HasSuffix(c.Attached, "/providers/attached") {
		t.Errorf("attached in %q", c.Attached)
	}
	if !slices.Contains(a.Placeholders, "GITHUB_TOKEN=openshell:resolve:env:GITHUB_TOKEN") {
		t.Errorf("placeholders %q", a.Placeholders)
	}
	for _, want := range []string{"OPENAI_BASE_URL=https://inference.local/v1", "COPILOT_MODEL=gpt-5", "GIT_CONFIG_KEY_0=url.https://github.com/.insteadOf"} {
		if !slices.Contains(a.Env, want) {
			t.Errorf("no %s in %q", want, a.Env)
		}
	}
}

// TestAttachWithoutCredentials: the store is not even opened, so a machine without
// providers needs no folder for them.
func TestAttachWithoutCredentials(t *testing.T) {
	m := newMachine(t)
	if err := os.RemoveAll(m.path("providers")); err != nil {
		t.Fatal(err)
	}
	o := m.options("version: 1\n", "")
	o.Egress = proxyapi.EgressHost
	a, err := Attach(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	if a.Config.Egress != proxyapi.EgressHost || a.Config.Inference != nil || a.Config.Refresher != nil || len(a.Env) > 0 || len(a.Placeholders) > 0 {
		t.Errorf("document %+v, variables %q and %q", a.Config, a.Placeholders, a.Env)
	}
	if _, err := os.Stat(m.path("providers")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store was made: %v", err)
	}
}

// TestAttachRefuses: an error names what is wrong, and leaves no provider locked.
func TestAttachRefuses(t *testing.T) {
	const plain = "version: 1\n"
	signing := `version: 1
network_policies:
  a:
    endpoints: [{host: s3.example.com, port: 443, protocol: rest, access: full, credential_signing: sigv4, signing_service: s3}]
    binaries: [/**]
`
	for _, tc := range []struct {
		name, policy, config, routes string
		change                       func(m *machine, o *Options)
		want                         string
	}{
		{"unknown provider", plain, "", "", func(_ *machine, o *Options) { o.Providers = []string{"forge", "none"} }, "none"},
		{
			"two providers of one variable", plain, "", "", func(_ *machine, o *Options) { o.Providers = []string{"forge", "other"} },
			"providers forge and other both bring GITHUB_TOKEN: attach one of them",
		},
		{
			"annotation", plain, "", "", func(_ *machine, o *Options) { o.Annotations = map[string]string{AnnotationProviders: "forge"} },
			"annotation openshell.dev/providers: the operator's configuration does not honour it (annotation_providers: true)",
		},
		{"binding without its provider", signing, "", "", func(_ *machine, o *Options) { o.Providers = []string{"forge"} }, "policy p.yaml: "},
		{
			"middleware", everyPolicy, "", "", func(_ *machine, o *Options) { o.Providers = []string{"forge"} },
			`policy p.yaml: network_middlewares.guard (line 7): no service "local-guard" is registered in the operator's configuration (middlewares)`,
		},
		{
			"CA of a middleware", plain, "middlewares: [{name: m, grpc_endpoint: \"https://m.test:1\", max_body_bytes: 1, tls_ca_cert_path: config.yaml}]\n", "", nil,
			"config.yaml: no certificate (PEM) in it",
		},
		{"upstream CA", plain, "upstream: {ca_files: [config.yaml]}\n", "", nil, "config.yaml: no certificate (PEM) in it"},
		{"missing upstream CA", plain, "", "", func(_ *machine, o *Options) { o.UpstreamCAs = []string{"/nowhere.pem"} }, "read upstream CA: "},
		{
			"route without its provider", plain, "", "routes: [{name: r, dialect: openai, base_url: \"https://a.test\", provider: none}]\n",
			func(_ *machine, o *Options) { o.Providers = []string{"forge"} }, "inference.yaml: route r: ",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			m.provide("forge", "github", map[string]string{"api_token": "token-1"})
			m.provide("other", "github", map[string]string{"api_token": "token-2"})
			m.write("inference.yaml", tc.routes, 0o600)
			o := m.options(tc.policy, tc.config)
			if tc.change != nil {
				tc.change(m, &o)
			}
			before := descriptors(t)
			_, err := Attach(o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after: a provider may stay locked", before, after)
			}
		})
	}
}
