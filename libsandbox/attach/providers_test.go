// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// TestBindings: create accepts a policy that signs only with the AWS keys of an attached
// provider that covers the endpoint.
func TestBindings(t *testing.T) {
	p, err := policy.Parse("p", []byte(`version: 1
network_policies:
  a:
    endpoints: [{host: s3.example.com, port: 443, path: /b/**, protocol: rest, access: full, credential_signing: sigv4, signing_service: s3}]
    binaries: [/**]
`))
	if err != nil {
		t.Fatal(err)
	}
	provider := proxyapi.Provider{
		Name:        "aws",
		Endpoints:   []proxyapi.Endpoint{{Host: "s3.example.com", Ports: []uint16{443}, Path: "/b"}},
		Credentials: []proxyapi.Credential{{Key: "AWS_ACCESS_KEY_ID"}, {Key: "AWS_SECRET_ACCESS_KEY"}},
	}
	if err := p.CheckBindings(bindings([]proxyapi.Provider{provider})); err != nil {
		t.Error(err)
	}
	provider.Credentials = provider.Credentials[:1]
	for _, attached := range [][]proxyapi.Provider{nil, {provider}} {
		if p.CheckBindings(bindings(attached)) == nil {
			t.Errorf("%d providers without both keys are accepted", len(attached))
		}
	}
}
