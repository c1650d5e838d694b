// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

// The README's demo holds, and says so when a policy lets something through.
func TestDemo(t *testing.T) {
	testenv.Require(t, testenv.Root)
	if built.err != nil {
		t.Fatal(built.err)
	}
	own, err := os.ReadFile("demo/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	entry := func(host string) string {
		return string(own) + "  more:\n    endpoints: [{host: " + host + ", port: 443, protocol: rest, enforcement: enforce, access: full}]\n    binaries: [/bin/probe]\n"
	}
	for _, tc := range []struct {
		name, policy, want string
		status             int
	}{
		{"as it is", string(own), "16 of 16 as expected", 0},
		{"a policy that allows the POST", entry("api.demo.test"), `the server received "POST api.demo.test/v1/issues", want ""`, 1},
		{"a policy that allows the other host", entry("evil.demo.test"), "the secret 736563726574 arrived", 1},
		{"a policy that allows the file", strings.Replace(string(own), "[/bin, ", "[/bin, /secret, ", 1), "a file outside the policy                      UNEXPECTED", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(file, []byte(tc.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(filepath.Join(built.bin, "demo"), "-bin", built.bin, "-policy", file).CombinedOutput()
			status := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				status = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if status != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d, want %d and …%s…; printed\n%s", status, tc.status, tc.want, out)
			}
		})
	}
}
