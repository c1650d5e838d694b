// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/integration/fakeapi"
)

const sdkFiles = `version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /bin, /lib, /lib64, /etc, /proc, /sdk.cjs]
  read_write: [/tmp]
`

const sdkNetwork = `network_policies:
  models:
    endpoints:
      - {host: api.openai.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/**}}]}
      - {host: api.anthropic.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/**}}]}
    binaries: [/usr/local/bin/node]
`

// TestBypass_B63_B64_SDKs: the official SDKs stream, call tools and embed without
// the key, and without being told where the model is.
func TestBypass_B63_B64_SDKs(t *testing.T) {
	script, err := filepath.Abs("testdata/sdk.cjs")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ way, profile, variable, dialect, base string }{
		{"anthropic", "anthropic", "ANTHROPIC_API_KEY", "anthropic", "https://api.anthropic.com"},
		{"chat", "openai", "OPENAI_API_KEY", "openai", "https://api.openai.com/v1"},
		{"responses", "openai", "OPENAI_API_KEY", "openai", "https://api.openai.com/v1"},
	} {
		for _, by := range []string{"provider", "router"} {
			t.Run(tc.way+" by "+by, func(t *testing.T) {
				policy := sdkFiles + "network_policies: {}\n"
				if by == "provider" {
					policy = sdkFiles + sdkNetwork
				}
				w := newAgentWorld(t, "sdks", policy, "api.openai.com", "api.anthropic.com")
				w.provide(tc.profile, tc.variable)
				w.run = append(w.run, "-v", script+":/sdk.cjs:ro", "-e", "NODE_PATH=/usr/local/lib/node_modules")
				if by == "provider" {
					w.run = append(w.run, "--provider", "theirs")
				} else {
					w.routed(tc.dialect, tc.base, "")
				}
				out, err := w.do(nil, "node", "/sdk.cjs", tc.way)
				defer w.explain(out)
				if want := fakeapi.Edited + w.secret; err != nil || !strings.Contains(w.note(), want) || !strings.Contains(out, "said: A task about a file.") {
					t.Errorf("%v; note.txt is %q, want …%s…; printed %s", err, w.note(), want, out)
				}
				if len(w.api.Heard()) < 4 {
					t.Errorf("%d requests arrived", len(w.api.Heard()))
				}
				w.keysOnly()
			})
		}
	}
}
