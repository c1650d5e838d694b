// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/policy"
)

// TestDefaultPolicy: the built-in policy lists the paths of OpenShell 0.1 and those of
// images without merged /usr. /app of OpenShell 0.0 is not in it.
func TestDefaultPolicy(t *testing.T) {
	src, err := FindPolicy("", &specs.Spec{Process: &specs.Process{}}, &Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(src.Name, src.Text)
	if err != nil {
		t.Fatal(err)
	}
	f := p.Filesystem
	read := strings.Join(f.ReadOnly, " ")
	if read != "/usr /bin /sbin /lib /lib64 /proc /dev/urandom /etc /var/log" || strings.Join(f.ReadWrite, " ") != "/tmp /dev/null" || !f.IncludeWorkdir || len(p.Network) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestFindPolicy(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("from "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("tenant.yaml")
	other := write("other.yaml")
	for _, tc := range []struct {
		name, flag, annotation, env string
		config                      Config
		want, err                   string
	}{
		{name: "built-in", want: "version: 1"},
		{name: "flag name", flag: "tenant", want: "from tenant.yaml"},
		{name: "flag path", flag: other, want: "from other.yaml"},
		{name: "flag beats annotation", flag: "tenant", annotation: "other", want: "from tenant.yaml"},
		{name: "annotation name", annotation: "other", want: "from other.yaml"},
		{name: "annotation path refused", annotation: other, err: "only names of policies"},
		{name: "annotation path where allowed", annotation: other, config: Config{AnnotationPaths: true}, want: "from other.yaml"},
		{name: "annotation beats operator's none", annotation: "other", config: Config{Policy: "none"}, want: "from other.yaml"},
		{name: "annotation cannot say none", annotation: "none", err: "there is no policy"},
		{name: "flag cannot say none", flag: "none", err: "only the operator's configuration"},
		{name: "unknown name never falls back", annotation: "missing", err: "there is no policy"},
		{name: "name that climbs", annotation: "..", err: "not a policy name"},
		{name: "environment ignored by default", env: "other", want: "version: 1"},
		{name: "environment where allowed", env: "other", config: Config{EnvironmentPolicy: true}, want: "from other.yaml"},
		{name: "operator's default", config: Config{Policy: "tenant"}, want: "from tenant.yaml"},
		{name: "directory", flag: dir + "/", err: "not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &specs.Spec{Process: &specs.Process{}}
			if tc.annotation != "" {
				spec.Annotations = map[string]string{AnnotationPolicy: tc.annotation}
			}
			if tc.env != "" {
				spec.Process.Env = []string{EnvironmentPolicy + "=" + tc.env}
			}
			c := tc.config
			c.PoliciesDir = dir
			got, err := FindPolicy(tc.flag, spec, &c)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(got.Text), tc.want) {
				t.Errorf("got %s: %q, want %q", got.Name, got.Text, tc.want)
			}
		})
	}
	if got, err := FindPolicy("", &specs.Spec{}, &Config{Policy: "none"}); err != nil || !got.None {
		t.Errorf("operator's none: %+v, %v", got, err)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key": "polcy: x\n", "negative floor": "landlock: {floor: -1}\n",
		"two documents": "policy: a\n---\npolicy: none\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if c, err := LoadConfig(p); err == nil {
				t.Errorf("accepted: %+v", c)
			}
		})
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("a named file that is missing was accepted")
	}
}
