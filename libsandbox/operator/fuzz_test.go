// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// FuzzConfig: a configuration that is accepted is complete, and has only valid values.
func FuzzConfig(f *testing.F) {
	sample, err := os.ReadFile(sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add([]byte("landlock: {floor: -1}\nallow: [mounts]\n"))
	f.Add([]byte("log_max_age: -1h\nlog_max_bytes: -1\n"))
	f.Add([]byte("control_plane_ports: [6443, 443]\n"))
	f.Add([]byte("filesystem_baseline: none\nlandlock: {missing_paths: ignore}\n"))
	f.Add([]byte("policy_validation_failure_mode: fail_open\n"))
	f.Add([]byte("plain_endpoint_tls: intercept\n"))
	f.Add([]byte("tracing: sometimes\n"))
	f.Add([]byte("policy: &a none\nlog_dir: *a\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("config.yaml", text)
		if err != nil {
			return
		}
		if c.PoliciesDir == "" || c.LogDir == "" || c.ProvidersDir == "" || c.InferenceFile == "" || c.Landlock.Floor == nil || *c.Landlock.Floor < 0 {
			t.Errorf("%q is taken as %+v", text, c)
		}
		if l := c.LogLimits(); l.MaxAge < 0 || l.MaxBytes < 0 {
			t.Errorf("%q is taken with the limits %+v of logs", text, l)
		}
		switch c.UnspecifiedEnforcement {
		case policy.EnforcementUnset, policy.EnforcementAudit, policy.EnforcementBlock:
		default:
			t.Errorf("%q is taken with unspecified_enforcement %q", text, c.UnspecifiedEnforcement)
		}
		if err := policy.CheckControlPlanePorts(c.ControlPlanePorts); err != nil {
			t.Errorf("%q is taken with control_plane_ports: %v", text, err)
		}
		if b, m := c.FilesystemBaseline, c.Landlock.MissingPaths; b != BaselineAdd && b != BaselineExplicit || m != MissingSkip && m != MissingFail {
			t.Errorf("%q is taken with filesystem_baseline %q and landlock.missing_paths %q", text, b, m)
		}
		if c.Tracing != plan.TracingAuto && c.Tracing != plan.TracingAllow && c.Tracing != plan.TracingDeny {
			t.Errorf("%q is taken with tracing %q", text, c.Tracing)
		}
		if p := c.CredentialPlacement; p != PlacementDeclared && p != PlacementAny {
			t.Errorf("%q is taken with credential_placement %q", text, p)
		}
		if m := c.PolicyValidationFailureMode; m != RetainLastValid && m != FailClosed {
			t.Errorf("%q is taken with policy_validation_failure_mode %q", text, m)
		}
		if m := c.PlainEndpointTLS; m != PlainSplice && m != PlainTerminate {
			t.Errorf("%q is taken with plain_endpoint_tls %q", text, m)
		}
	})
}

// FuzzFindPolicy: for every annotation and environment of a container, the policy is one of
// the operator's folder or the default, and never none.
func FuzzFindPolicy(f *testing.F) {
	f.Add("tenant", "tenant.yaml", true)
	f.Add("../outside", "none", true)
	f.Add("/etc/passwd", "", false)
	f.Add("tenant\x00", "..", true)
	top := f.TempDir()
	dir := filepath.Join(top, "policies")
	if err := os.Mkdir(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"policies/tenant.yaml": "inside", "outside.yaml": "outside", "outside": "outside"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, annotation, env string, annotated bool) {
		spec := &specs.Spec{Process: &specs.Process{Env: []string{EnvironmentPolicy + "=" + env}}}
		if annotated {
			spec.Annotations = map[string]string{AnnotationPolicy: annotation}
		}
		got, err := FindPolicy("", spec, &Config{PoliciesDir: dir, EnvironmentPolicy: true})
		if err == nil && (got.None || string(got.Text) != "inside" && !strings.HasPrefix(got.Name, "built-in")) {
			t.Errorf("annotation %q, environment %q: %+v", annotation, env, got)
		}
	})
}
