// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/policy"
)

const sample = "../../docs/config.yaml"

// What the sample says is what holds without it.
func TestSampleConfigIsTheDefault(t *testing.T) {
	got, err := LoadConfig(sample)
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := LoadConfig(empty)
	if err != nil {
		t.Fatal(err)
	}
	if want.UnspecifiedEnforcement == policy.EnforcementUnset {
		want.UnspecifiedEnforcement = policy.EnforcementAudit
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// TestSampleConfigHasEveryKey: a key that is not in the sample is not known.
func TestSampleConfigHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	var has, want map[string]any
	if err := yaml.Unmarshal(text, &has); err != nil {
		t.Fatal(err)
	}
	all, err := yaml.Marshal(&Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(all, &want); err != nil {
		t.Fatal(err)
	}
	for key := range want {
		if _, ok := has[key]; !ok {
			t.Errorf("%s has no %s", sample, key)
		}
	}
}
