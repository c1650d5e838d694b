// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/base64"
	"slices"
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// Git is configured for the hosts that the policy lets it reach by HTTPS and not by SSH. It
// gets the placeholder of a provider with an endpoint there, unless that is a model API.
func TestGitEnvironment(t *testing.T) {
	pol, err := policy.Parse("p", []byte(`version: 1
network_policies:
  git:
    endpoints:
      - {host: forge.test, port: 443}
      - {host: both.test, ports: [22, 443]}
      - {host: plain.test, port: 80}
      - {host: "*.any.test", port: 443}
    binaries: [/usr/lib/git-core/git-remote-http]
  pattern:
    endpoints: [{host: other.test, port: 443}]
    binaries: ["/usr/lib/git-core/**"]
  api:
    endpoints: [{host: api.test, port: 443}]
    binaries: [/usr/bin/curl]
`))
	if err != nil {
		t.Fatal(err)
	}
	attached := []proxyapi.Provider{
		{Name: "model", ModelAPI: true, Endpoints: []proxyapi.Endpoint{{Host: "forge.test", Ports: []uint16{443}}}, Credentials: []proxyapi.Credential{{Key: "MODEL"}}},
		{Name: "forge", Endpoints: []proxyapi.Endpoint{{Host: "forge.test", Ports: []uint16{443}}}, Credentials: []proxyapi.Credential{{Key: "TOKEN"}}},
	}
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:openshell:resolve:env:TOKEN"))
	want := []string{
		"GIT_CONFIG_COUNT=5",
		"GIT_CONFIG_KEY_0=url.https://forge.test/.insteadOf", "GIT_CONFIG_VALUE_0=git@forge.test:",
		"GIT_CONFIG_KEY_1=url.https://forge.test/.insteadOf", "GIT_CONFIG_VALUE_1=ssh://git@forge.test/",
		"GIT_CONFIG_KEY_2=http.https://forge.test/.extraHeader", "GIT_CONFIG_VALUE_2=Authorization: Basic " + basic,
		"GIT_CONFIG_KEY_3=url.https://other.test/.insteadOf", "GIT_CONFIG_VALUE_3=git@other.test:",
		"GIT_CONFIG_KEY_4=url.https://other.test/.insteadOf", "GIT_CONFIG_VALUE_4=ssh://git@other.test/",
	}
	if got := gitEnvironment(pol, attached); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := gitEnvironment(&policy.Policy{}, attached); got != nil {
		t.Errorf("without a network %q", got)
	}
}
