// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMountThroughLinkOfImage(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"etc/ssl/certs", "etc/pki/tls", "usr/lib/ssl"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"), []byte("image's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"usr/lib/ssl/certs": "/etc/ssl/certs", "usr/lib/tls": "../../../../etc/ssl",
		"etc/bundle": "/etc/ssl/certs/ca-certificates.crt", "etc/loop": "loop", "etc/later": "/etc/pki/tls/certs",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ destination, folder, want string }{
		{"/etc/ssl/certs", "/etc/ssl/certs", "/etc/ssl/certs"},
		{"/usr/lib/ssl/certs", "/etc/ssl/certs", "/etc/ssl/certs"},
		{"usr/lib/ssl/certs/", "/etc/ssl/certs", "/etc/ssl/certs"},
		{"/usr/lib/ssl/certs/missing/file", "/etc/ssl/certs", "/etc/ssl/certs/missing/file"},
		{"/usr/lib/tls", "/etc/ssl/certs", "/etc/ssl"},
		{"/etc/later", "/etc/pki/tls/certs", "/etc/pki/tls/certs"}, // to a missing folder
		{"/usr/lib/ssl", "/etc/ssl/certs", ""},
		{"/etc/loop", "/etc/ssl/certs", ""},
		{"/", "/etc/ssl/certs", ""},
	} {
		c := &containerStores{destinations: destinations(root, []specs.Mount{{Destination: test.destination}})}
		if got := c.mountedAt(test.folder); got != test.want {
			t.Errorf("mount at %s: mountedAt(%s) = %q, not %q", test.destination, test.folder, got, test.want)
		}
	}

	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for destination, want := range map[string]string{"/etc/bundle": "mine", "/etc/other": "image's"} {
		spec := &specs.Spec{Mounts: []specs.Mount{{Destination: destination, Source: mine}}}
		got, err := readSeen(spec, fd, "/etc/ssl/certs/ca-certificates.crt", 100)
		if err != nil || string(got) != want {
			t.Errorf("mount at %s: readSeen = %q, %v, not %q", destination, got, err, want)
		}
	}
}

// TestTrustStores: the container gets each store of the image, in an overlay or, where the
// machine allows none, as a file. release leaves no mount and no open file.
func TestTrustStores(t *testing.T) {
	b := newBundle(t, "version: 1\n", "")
	writeFile(t, b.spec.Root.Path, "etc/ssl/certs/ca-certificates.crt", "image's")
	dir := filepath.Join(b.dir, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	stores, err := trustStores(b.spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stores.release()
	if stores.caBundle != "/etc/ssl/certs/ca-certificates.crt" || len(stores.mounts) != 1 || len(stores.paths) != 1 || len(stores.Folders)+len(stores.Files) != 1 {
		t.Fatalf("bundle %s, mounts %+v, paths %q, %+v", stores.caBundle, stores.mounts, stores.paths, stores.TrustStores)
	}
	source := stores.mounts[0].Source
	if stores.mounts[0].Destination == "/etc/ssl/certs" {
		source = filepath.Join(source, "ca-certificates.crt")
	}
	if text, err := os.ReadFile(source); err != nil || string(text) != "image's" {
		t.Errorf("%s has %q, %v", source, text, err)
	}
	if (len(stores.Folders) == 0) != (len(stores.warnings) > 0) {
		t.Errorf("%d overlays, warnings %q", len(stores.Folders), stores.warnings)
	}
	stores.release()
	stores.release()
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts stay below %s", dir)
	}
}
