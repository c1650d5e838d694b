// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOldFilesLoad checks that documents which OpenShell 0.0.x accepts and 0.1 refuses are
// accepted, decide as in 0.0.x, and have a warning.
func TestOldFilesLoad(t *testing.T) {
	for _, tc := range []struct {
		name, fields string
		request      Request
		want         Verdict
		tlsSkip      bool
		note         string
	}{
		{"ports beside port", "host: h, port: 80, ports: [443]", Request{Host: "h", Port: 443}, Allow, false, "port beside ports; ports counts"},
		{"port beside ports", "host: h, port: 80, ports: [443]", Request{Host: "h", Port: 80}, Deny, false, "port beside ports; ports counts"},
		{"tls: terminate", "host: h, port: 443, tls: terminate", Request{Host: "h", Port: 443}, Allow, false, "tls: terminate; it means the same as no tls field"},
		{"tls: passthrough", "host: h, port: 443, tls: passthrough", Request{Host: "h", Port: 443}, Allow, false, "tls: passthrough; it means the same as no tls field"},
		{
			"a WebSocket at rest", "host: h, port: 443, protocol: rest, enforcement: enforce, access: full, websocket_credential_rewrite: true",
			Request{Host: "h", Port: 443},
			Allow, false, "websocket_credential_rewrite with protocol: rest; it lets requests become WebSockets",
		},
	} {
		p, err := Parse("p.yaml", []byte(inEntry("binaries: [/b], endpoints: [{"+tc.fields+"}]")))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		e, err := Compile(p, CompileOptions{})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		tc.request.Binary = "/b"
		if d := e.Decide(&tc.request); d.Verdict != tc.want || d.TLSSkip != tc.tlsSkip {
			t.Errorf("%s: %v, TLSSkip %v; want %v, %v", tc.name, d.Verdict, d.TLSSkip, tc.want, tc.tlsSkip)
		}
		if d := cmp.Diff([]Warning{{3, "OpenShell 0.1 refuses " + tc.note}}, Lint(p, CompileOptions{})); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// TestSkippedRules checks that an endpoint with tls: skip may have rules only if they block
// nothing, also if the operator's configuration decides that.
func TestSkippedRules(t *testing.T) {
	p, err := Parse("p.yaml", []byte(rest("access: full, tls: skip")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(p, CompileOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := Compile(p, CompileOptions{UnspecifiedEnforcement: EnforcementBlock}); err == nil || !strings.Contains(err.Error(), skippedRules) {
		t.Errorf("Compile = %v, want %q", err, skippedRules)
	}
}

// TestNoNetworkPolicies checks that every way to write an empty network_policies denies all
// connections.
func TestNoNetworkPolicies(t *testing.T) {
	for _, text := range []string{"", "network_policies: {}\n", "network_policies:\n", "network_policies: ~\nnetwork_middlewares:\n"} {
		p, err := Parse("p.yaml", []byte("version: 1\n"+text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		e, err := Compile(p, CompileOptions{})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if d := e.Decide(&Request{Host: "h", Port: 443, Binary: "/b"}); d.Verdict != Deny || d.Reason != "network connections not allowed by policy" {
			t.Errorf("%q: %v, %q", text, d.Verdict, d.Reason)
		}
	}
}

func TestCedar(t *testing.T) {
	_, err := Parse("p.cedar", []byte("version: 1\n"))
	if want := "p.cedar:1:1: Cedar policies are not supported (write the policy in YAML)"; err == nil || err.Error() != want {
		t.Errorf("Parse = %v, want %s", err, want)
	}
}

// TestBaseline checks that the baseline's paths which the policy does not list are added if
// the policy has network rules or no filesystem_policy.
func TestBaseline(t *testing.T) {
	const network = "network_policies: {a: {}}\n"
	all := []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/app", "/var/log", "/proc", "/dev/urandom"}
	write := []string{"/tmp", "/dev/null"}
	for _, tc := range []struct {
		name, text      string
		read, readWrite []string
	}{
		{"nothing but the version", "", all, write},
		{"no filesystem_policy", network, all, write},
		{"null", "filesystem_policy:\n" + network, all, write},
		{"files alone", "filesystem_policy: {read_write: [/work]}\n", nil, nil},
		{"files and an empty network", "filesystem_policy: {read_write: [/work]}\nnetwork_policies:\n", nil, nil},
		{"files and a network", "filesystem_policy: {read_write: [/work]}\n" + network, all, write},
		{"an empty filesystem_policy", "filesystem_policy: {}\n" + network, all, write},
		{
			"listed paths keep their access", "filesystem_policy: {read_only: [/tmp/, /usr], read_write: [/etc, //var/log]}\n" + network,
			[]string{"/bin", "/sbin", "/lib", "/lib64", "/app", "/proc", "/dev/urandom"},
			[]string{"/dev/null"},
		},
		{
			"a parent with at least the access covers", "filesystem_policy: {read_only: [/dev/, /v], read_write: [/var]}\n" + network,
			[]string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/app", "/proc"},
			write,
		},
		{"the root covers what is read", "filesystem_policy: {read_only: [/], read_write: [/dev]}\n" + network, []string{}, []string{"/tmp"}},
	} {
		p, err := Parse("p.yaml", []byte("version: 1\n"+tc.text))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		read, readWrite := p.Baseline()
		if d := cmp.Diff([][]string{tc.read, tc.readWrite}, [][]string{read, readWrite}); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// TestSuggestNoReservedKey checks that a suggestion chooses a key that a document may have.
func TestSuggestNoReservedKey(t *testing.T) {
	p := &Policy{}
	if key := freeKey(p, "_provider_.example.com"); key != "host_provider__example_com" {
		t.Errorf("freeKey = %q", key)
	}
}
