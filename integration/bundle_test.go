// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
)

const (
	debianBundle = "/etc/ssl/certs/ca-certificates.crt"
	fedoraBundle = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
	fedoraLink   = "/etc/pki/tls/certs/ca-bundle.crt"
	suseLink     = "/etc/ssl/ca-bundle.pem"
	alpineLink   = "/etc/ssl/cert.pem"
)

// TestBypass_B60_Bundles: wherever an image keeps its certificates, programs find
// them and the sandbox's CA there.
func TestBypass_B60_Bundles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// files has the image's own bundle first, links what they lead to.
		file     string
		links    map[string]string
		readonly bool
		want     []string
	}{
		{"Debian", debianBundle, nil, false, []string{debianBundle}},
		{"Debian, read-only", debianBundle, nil, true, []string{debianBundle}},
		{"Alpine", debianBundle, map[string]string{alpineLink: "certs/ca-certificates.crt"}, false, []string{debianBundle, alpineLink}},
		{"Fedora", fedoraBundle, map[string]string{fedoraLink: fedoraBundle, debianBundle: "../../pki/tls/certs/ca-bundle.crt"}, false, []string{fedoraBundle, fedoraLink, debianBundle}},
		{"Fedora, read-only", fedoraBundle, map[string]string{fedoraLink: fedoraBundle}, true, []string{fedoraBundle, fedoraLink}},
		{"SUSE", "/var/lib/ca-certificates/ca-bundle.pem", map[string]string{suseLink: "/var/lib/ca-certificates/ca-bundle.pem"}, false, []string{suseLink}},
		{"none", "", nil, false, []string{debianBundle}},
		{"none, read-only", "", nil, true, []string{debianBundle}},
		{"link to nowhere", "", map[string]string{debianBundle: "/none"}, false, nil},
		{"link out of the image", "", map[string]string{debianBundle: "../../../../../../../../etc/hostname"}, false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{readonly: tc.readonly, files: func(rootfs string) {
				own, err := os.ReadFile(filepath.Join(rootfs, debianBundle))
				err = errors.Join(err, os.RemoveAll(filepath.Join(rootfs, "etc/ssl")))
				place := func(name string, f func(path string) error) {
					path := filepath.Join(rootfs, name)
					err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), f(path))
				}
				if tc.file != "" {
					place(tc.file, func(path string) error { return os.WriteFile(path, own, 0o644) })
				}
				for link, to := range tc.links {
					place(link, func(path string) error { return os.Symlink(to, path) })
				}
				if err != nil {
					t.Fatal(err)
				}
			}})
			ca, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.CACertFile))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range tc.want {
				text, err := strconv.Unquote(strings.TrimPrefix(b.exec("/bin/probe", "cat", path), "ok: "))
				if err != nil {
					t.Errorf("%s cannot be read: %v", path, err)
				}
				own := 0
				if tc.file != "" {
					own = 1
				}
				if strings.Count(text, strings.TrimSpace(string(ca))) != 1 || strings.Count(text, strings.TrimSpace(string(b.up.CA))) != own {
					t.Errorf("%s has the sandbox's CA %d times, the image's certificate %d times, want 1 and %d",
						path, strings.Count(text, strings.TrimSpace(string(ca))), strings.Count(text, strings.TrimSpace(string(b.up.CA))), own)
				}
			}
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			if !slices.Contains(tc.want, fedoraBundle) || len(tc.links) > 0 { // where Go looks by itself
				b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
			}
			if out := b.exec("/bin/probe", "write", debianBundle); !strings.HasPrefix(out, "error: ") {
				t.Errorf("the workload wrote to its bundle: %s", out)
			}
		})
	}
	t.Run("variables", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, boxOptions{})
		out := b.execEnv([]string{"PIP_CERT=/own.pem"}, "/bin/probe", "self")
		for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
			if !strings.Contains(out, " "+name+"="+debianBundle) {
				t.Errorf("%s is not the bundle: %s", name, out)
			}
		}
		if strings.Count(out, "PIP_CERT=") != 1 || !strings.Contains(out, "PIP_CERT=/own.pem") {
			t.Errorf("the user's own value is gone: %s", out)
		}
	})
}
