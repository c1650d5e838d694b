// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/attach"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/policy"
)

// TestMakePlan: the plan has what the steps before have prepared, and config.json stays as
// it was.
func TestMakePlan(t *testing.T) {
	b := newBundle(t, "version: 1\nnetwork_policies: {a: {endpoints: [{host: api.test, port: 443}], binaries: [/bin/agent]}}\n", "")
	given, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	mounted := specs.Mount{Destination: "/etc/ssl/certs", Type: "bind", Source: "/x"}
	stores := &containerStores{
		TrustStores: proxyapi.TrustStores{Root: "/r"}, caBundle: "/etc/ssl/certs/ca.crt", mounts: []specs.Mount{mounted}, paths: []string{"/etc/ssl/certs"},
	}
	attached := &attach.Attachment{Config: &proxyapi.Config{}, Placeholders: []string{"KEY=placeholder"}, Env: []string{"BASE=url", "PATH=/other"}}
	pl, err := makePlan(b.resolved, b.spec, attached, stores)
	if err != nil {
		t.Fatal(err)
	}
	spec := sandboxSpec(pl, b.spec, "p.yaml")
	for _, want := range []string{"KEY=placeholder", "BASE=url", "PATH=/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca.crt", "NO_PROXY=127.0.0.1,localhost,::1,inference.local,127.0.0.0/8,0.0.0.0,[::1],box,10.0.0.7,box.test"} {
		if !slices.Contains(spec.Process.Env, want) {
			t.Errorf("no %s in %q", want, spec.Process.Env)
		}
	}
	if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return cmp.Equal(m, mounted) }) {
		t.Errorf("mounts %+v", spec.Mounts)
	}
	if want := map[string]string{"a": "b", annotationSandbox: "p.yaml"}; !cmp.Equal(spec.Annotations, want) {
		t.Errorf("annotations %v, want %v", spec.Annotations, want)
	}
	completeDocument(attached.Config, b.resolved, pl, stores)
	if attached.Config.Trust.Root != "/r" || !attached.Config.MayNamePrograms {
		t.Errorf("document %+v", attached.Config)
	}
	if after, err := json.Marshal(b.spec); err != nil || string(after) != string(given) {
		t.Errorf("config.json was changed to %s (%v)", after, err)
	}
}

// TestMayNamePrograms: the proxy refuses policies that name programs in a sandbox whose
// programs may trace each other.
func TestMayNamePrograms(t *testing.T) {
	for _, tc := range []struct {
		name, policy, config string
		want                 bool
	}{
		{"the policy names programs", "version: 1\nnetwork_policies: {a: {endpoints: [{host: api.test, port: 443}], binaries: [/bin/agent]}}\n", "", true},
		{"it does not, so tracing is allowed", "version: 1\n", "", false},
		{"tracing is denied", "version: 1\n", "tracing: deny\n", true},
		{"the operator accepts both", "version: 1\n", "tracing: allow\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, tc.policy, tc.config)
			stores, attached := &containerStores{}, &attach.Attachment{Config: &proxyapi.Config{}}
			pl, err := makePlan(b.resolved, b.spec, attached, stores)
			if err != nil {
				t.Fatal(err)
			}
			if completeDocument(attached.Config, b.resolved, pl, stores); attached.Config.MayNamePrograms != tc.want {
				t.Errorf("MayNamePrograms is %t", attached.Config.MayNamePrograms)
			}
		})
	}
}

// TestAttachOptions: the step attach gets the flags, the annotations and the folder.
func TestAttachOptions(t *testing.T) {
	b := newBundle(t, "version: 1\n", "")
	o := &CreateOptions{
		Container: container.Config{ID: "box", Spec: b.spec}, Providers: []string{"p"}, Egress: proxyapi.EgressHost, UpstreamCAs: []string{"ca"},
	}
	got := attachOptions(o, b.resolved, "/state")
	want := attach.Options{
		ID: "box", StateDir: "/state", Config: b.resolved.config, Source: b.resolved.source, Policy: b.resolved.policy,
		Providers: []string{"p"}, Annotations: map[string]string{"a": "b"}, Egress: proxyapi.EgressHost, UpstreamCAs: []string{"ca"},
	}
	samePolicy := cmp.Comparer(func(a, b *policy.Policy) bool { return a == b })
	if d := cmp.Diff(want, got, samePolicy); d != "" {
		t.Error(d)
	}
}
