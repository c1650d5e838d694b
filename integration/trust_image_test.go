// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrustMountThroughLink: a volume whose destination leads to a folder of stores through a link of the
// image is the caller's mount, as one at the folder's own path is.
func TestTrustMountThroughLink(t *testing.T) {
	t.Parallel()
	for destination, link := range map[string][2]string{
		"/usr/lib/ssl/certs": {"usr/lib/ssl/certs", "/etc/ssl/certs"},
		"/usr/lib/tls":       {"usr/lib/tls", "../../etc/ssl"},
	} {
		t.Run(destination, func(t *testing.T) {
			t.Parallel()
			volume := t.TempDir()
			b := boxOf(t, boxOptions{policy: writableEtc, files: func(rootfs string) {
				at := filepath.Join(rootfs, link[0])
				if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(link[1], at)); err != nil {
					t.Fatal(err)
				}
			}, spec: func(spec map[string]any) {
				spec["mounts"] = append(spec["mounts"].([]any), map[string]any{"destination": destination, "type": "bind", "source": volume, "options": []string{"bind", "rw"}})
			}})
			if err := os.WriteFile(filepath.Join(volume, "mine.pem"), []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
			if err != nil || !strings.Contains(out, debianBundle+" cannot be replaced by packages") {
				t.Fatalf("run: %v: %s", err, out)
			}
			if got := b.sees(path.Join("/", strings.TrimLeft(link[1], "./"), "mine.pem")); got != "mine" {
				t.Errorf("the volume's file is %q", got)
			}
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
		})
	}
}
