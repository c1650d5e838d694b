// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"

	"openshell.dev/runtime/internal/secret/secrettest"
	"openshell.dev/runtime/proxy/credentials"
)

// TestNothingPrintsCredentials: whatever prints a sandbox shows no credential of it. A set of
// credentials keeps the values as text as well, to find them in answers; only what it prints
// is looked at.
func TestNothingPrintsCredentials(t *testing.T) {
	with := withSecret(t).sandbox
	s, err := New(Config{}).Add(SandboxConfig{Container: container})
	if err != nil {
		t.Fatal(err)
	}
	s.SetCredentials(with.credentials.Load())
	secrettest.Check(t, s, []string{secretValue}, credentials.Set{})
}
