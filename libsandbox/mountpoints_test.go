// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/testenv"
)

func TestMakeMountpoints(t *testing.T) {
	testenv.Require(t, "root")
	const user = 100000
	ids := []specs.LinuxIDMapping{{ContainerID: 1, HostID: 5, Size: 1}, {ContainerID: 0, HostID: user, Size: 1}}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &containerStores{
		TrustStores: proxyapi.TrustStores{Root: root, Folders: []proxyapi.TrustFolder{
			{Path: "/etc/ssl/certs", Made: "/etc/ssl"}, {Path: "/opt/x", Made: "/opt"}, {Path: "/etc"},
		}},
		spec: &specs.Spec{Linux: &specs.Linux{UIDMappings: ids, GIDMappings: ids}},
	}
	for range 2 { // the second time, all exist
		if err := c.makeMountpoints(); err != nil {
			t.Fatal(err)
		}
	}
	for path, owner := range map[string]uint32{"etc": 0, "etc/ssl": user, "etc/ssl/certs": user, "opt": user, "opt/x": user} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, path), &st); err != nil || st.Uid != owner || st.Gid != owner || st.Mode != unix.S_IFDIR|0o755 {
			t.Errorf("%s: %d:%d %o, %v; want %d and 40755", path, st.Uid, st.Gid, st.Mode, err, owner)
		}
	}

	link := t.TempDir()
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(link, "etc")); err != nil {
		t.Fatal(err)
	}
	c.Root, c.Folders = link, []proxyapi.TrustFolder{{Path: "/etc/ssl/certs", Made: "/etc/ssl"}}
	if err := c.makeMountpoints(); err == nil {
		t.Error("a link of the image was followed")
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) > 0 {
		t.Errorf("outside of the root filesystem: %v, %v", names, err)
	}
}
