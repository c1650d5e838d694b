// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
)

const sample = "../../docs/config.yaml"

// TestSampleConfigIsTheDefault: docs/config.yaml means the same as an empty configuration.
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

// TestSampleConfigHasEveryKey: docs/config.yaml shows every key.
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

// TestLogLimits: values of the limits on logs, and values that mean no limit.
func TestLogLimits(t *testing.T) {
	for text, want := range map[string]decisionlog.Limits{
		"":                                 {MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 30},
		"log_max_age: 0\nlog_max_bytes: 0": {},
		"log_max_age: 36h\n":               {MaxAge: 36 * time.Hour, MaxBytes: 1 << 30},
		"log_max_bytes: 1.5GiB":            {MaxAge: 30 * 24 * time.Hour, MaxBytes: 3 << 29},
		"log_max_bytes: 1000\n":            {MaxAge: 30 * 24 * time.Hour, MaxBytes: 1000},
	} {
		c, err := parseConfig("config.yaml", []byte(text))
		if err != nil || c.LogLimits() != want {
			t.Errorf("%q: %+v, %v", text, c.LogLimits(), err)
		}
	}
	for text, want := range map[string]string{
		"log_max_age: 30":     `log_max_age is "30", want hours such as 720h`,
		"log_max_age: 30d":    `log_max_age is "30d"`,
		"log_max_age: -1h":    `log_max_age is "-1h"`,
		"log_max_bytes: -1":   `line 1: log_max_bytes is "-1", want a number of bytes such as 1073741824, 512MiB or 1GiB`,
		"log_max_bytes: many": `log_max_bytes is "many"`,
		"log_max_bytes: [1]":  "log_max_bytes",
	} {
		if _, err := parseConfig("config.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPlainErrors: an error about the configuration has no type of Go in it.
func TestPlainErrors(t *testing.T) {
	for text, want := range map[string]string{
		"trace: deny":                            `config.yaml: line 1: unknown key "trace"`,
		"landlock: {flor: 1}":                    `line 1: unknown key "flor"`,
		"annotation_paths: maybe":                `line 1: the value is "maybe", want true or false`,
		"control_plane_ports: 6443":              `line 1: the value is "6443", want a list`,
		"control_plane_ports: [x]":               `line 1: the value is "x", want a whole number`,
		"landlock: 1":                            `line 1: the value is "1", want a mapping`,
		"policy: [a]":                            "line 1: the value is a list, want text",
		"tracing: {a: b}":                        "line 1: the value is a mapping, want text",
		"trace: deny\nlandlock:\n  floor: two\n": `line 1: unknown key "trace"; line 3: the value is "two", want a whole number`,
		"a: b: c":                                "mapping values are not allowed",
	} {
		if _, err := parseConfig("config.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "operator.") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestRelativePaths: relative paths begin at the folder of the configuration, for the runtime
// and for the commands of openshell.
func TestRelativePaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := `policy: ./default.yaml
policies_dir: policies
inference_file: routes.yaml
providers_dir: ../providers
log_dir: /var/log/sandboxes
upstream: {ca_files: [ca.pem]}
middlewares: [{name: a, grpc_endpoint: "https://a:1", max_body_bytes: 1, tls_ca_cert_path: guard.pem}, {name: b, grpc_endpoint: "https://b:1", max_body_bytes: 1}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Policy, c.PoliciesDir, c.InferenceFile, c.ProvidersDir, c.LogDir, c.Upstream.CAFiles[0], c.Middlewares[0].CAFile, c.Middlewares[1].CAFile}
	want := []string{
		dir + "/default.yaml", dir + "/policies", dir + "/routes.yaml", filepath.Dir(dir) + "/providers", "/var/log/sandboxes", dir + "/ca.pem", dir + "/guard.pem", "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c, err := parseConfig(file, []byte("policy: name\n")); err != nil || c.Policy != "name" {
		t.Errorf("%+v, %v", c, err)
	}
}
