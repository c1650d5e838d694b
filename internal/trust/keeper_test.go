// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trust

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// twoFolders are the container's folder and the layer's, with a Folder of both.
func twoFolders(t *testing.T, stores ...string) (v *view, root, container, layer string) {
	t.Helper()
	root, container = t.TempDir(), t.TempDir()
	layer = filepath.Join(root, "etc/certs")
	if err := os.MkdirAll(layer, 0o755); err != nil {
		t.Fatal(err)
	}
	s := proxyapi.TrustStores{Root: root, Folders: []proxyapi.TrustFolder{{Path: "/etc/certs", View: container, Stores: stores}}}
	if err := FindLayers(&s); err != nil {
		t.Fatal(err)
	}
	v, err := openView(s.Folders[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.dir.Close() })
	return v, root, container, layer
}

func put2(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestTrustSync (issue 11, point 5): the layer gets what programs have written, without the CA, and nothing
// of what has not changed.
func TestTrustSync(t *testing.T) {
	own, theirs := certPEM(t, "ours"), string(certPEM(t, "theirs"))
	v, root, container, layer := twoFolders(t, "ca.crt", "java/cacerts", "only.crt", "link.crt", "policies/"+BrowserPolicy)
	for _, d := range []string{container, layer} {
		put2(t, d, "same", "same")
		put2(t, d, "gone", "")
		put2(t, d, "folder/gone", "")
		put2(t, d, "file", "")
		put2(t, d, "ca.crt", theirs)
		for _, l := range []string{"link", "kept"} {
			if err := os.Symlink("same", filepath.Join(d, l)); err != nil {
				t.Fatal(err)
			}
		}
		at := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		if err := errors.Join(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(d, "kept"), at, unix.AT_SYMLINK_NOFOLLOW), os.Chtimes(filepath.Join(d, "same"), time.Unix(1, 0), time.Unix(1, 0))); err != nil {
			t.Fatal(err)
		}
	}
	// A store that is a link in the image is a file in the overlay.
	put2(t, root, "elsewhere", theirs)
	for _, d := range []string{container, layer} {
		if err := os.Symlink("/elsewhere", filepath.Join(d, "link.crt")); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	if err := v.begin(own, root, &left); err != nil || len(left) > 0 {
		t.Fatal(err, left)
	}
	for _, name := range []string{"ca.crt", "only.crt", "link.crt"} {
		if !strings.HasSuffix(text(t, container, name), string(own)) {
			t.Errorf("%s has no CA", name)
		}
	}
	if !strings.Contains(text(t, container, "policies/"+BrowserPolicy), "CACertificates") {
		t.Error("no policy for browsers")
	}
	if text(t, container, "link.crt") != theirs+string(own) {
		t.Error("the file behind a link is not in the overlay's store")
	}
	var before unix.Stat_t
	if err := unix.Stat(filepath.Join(layer, "ca.crt"), &before); err != nil {
		t.Fatal(err)
	}
	if err := v.sync(root, own, newBudget()); err != nil {
		t.Fatal(err)
	}
	var after unix.Stat_t
	if err := unix.Stat(filepath.Join(layer, "ca.crt"), &after); err != nil || versionOf(&after) != versionOf(&before) {
		t.Errorf("a store that nobody changed was written: %v", err)
	}
	if names, _ := os.ReadDir(layer); len(names) != 8 {
		t.Errorf("the layer has %v", names)
	}

	more := string(certPEM(t, "more"))
	put2(t, container, "ca.crt", theirs+string(own)+more)
	put2(t, container, "java/cacerts", string(emptyJKS(2)))
	if err := v.add("java/cacerts", own, false, nil); err != nil {
		t.Fatal(err)
	}
	put2(t, container, "new/file", "new")
	err := errors.Join(os.Remove(filepath.Join(container, "gone")), os.RemoveAll(filepath.Join(container, "folder")), os.Remove(filepath.Join(container, "file")),
		os.Mkdir(filepath.Join(container, "file"), 0o700), os.Remove(filepath.Join(container, "link")), os.Symlink("new", filepath.Join(container, "link")),
		unix.Mkfifo(filepath.Join(container, "pipe"), 0o600), os.Chmod(filepath.Join(container, "same"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.sync(root, own, newBudget()); err != nil {
		t.Fatal(err)
	}
	if text(t, layer, "ca.crt") != theirs+more || text(t, layer, "java/cacerts") != string(emptyJKS(2)) || text(t, layer, "new/file") != "new" {
		t.Errorf("in the layer: %q", text(t, layer, "ca.crt"))
	}
	if to, _ := os.Readlink(filepath.Join(layer, "link")); to != "new" {
		t.Errorf("link to %s", to)
	}
	if st, err := os.Stat(filepath.Join(layer, "same")); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	var have []string
	names, _ := os.ReadDir(layer)
	for _, n := range names {
		have = append(have, n.Name())
	}
	if want := []string{"ca.crt", "file", "java", "kept", "link", "link.crt", "new", "same"}; !slices.Equal(have, want) {
		t.Errorf("the layer has %v, want %v", have, want)
	}
}

// TestTrustHostileFolder (issue 11, point 5): links, pipes and files of any length in the folder lead the
// Keeper nowhere.
func TestTrustHostileFolder(t *testing.T) {
	own := certPEM(t, "ours")
	v, root, container, layer := twoFolders(t, "a.crt", "b.crt", "sub/c.crt", "big.crt")
	outside := t.TempDir()
	put2(t, outside, "c.crt", "outside")
	put2(t, outside, "victim", "outside")
	err := errors.Join(os.Symlink(filepath.Join(outside, "victim"), filepath.Join(container, "a.crt")), unix.Mkfifo(filepath.Join(container, "b.crt"), 0o644),
		os.Symlink(outside, filepath.Join(container, "sub")), os.Symlink(outside, filepath.Join(layer, "dir")), os.Mkdir(filepath.Join(container, "dir"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	put2(t, container, "dir/victim", "inside")
	put2(t, container, "big.crt", "")
	if err := os.Truncate(filepath.Join(container, "big.crt"), MaxStore+1); err != nil {
		t.Fatal(err)
	}
	for _, name := range v.Stores {
		err := v.add(name, own, false, nil)
		if name == "big.crt" != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is not a store any more is written as it is; what is too large is not.
	if err := v.sync(root, own, newBudget()); err == nil || !strings.Contains(err.Error(), "big.crt") {
		t.Error(err)
	}
	for _, name := range []string{"c.crt", "victim"} {
		if text(t, outside, name) != "outside" {
			t.Errorf("a file outside is %q", text(t, outside, name))
		}
	}
	if text(t, layer, "dir/victim") != "inside" {
		t.Error("a folder in place of a link is not in the layer")
	}
}

// TestTrustUnmake (issue 11, point 5): folders that were made for the mount go, unless something is in them.
func TestTrustUnmake(t *testing.T) {
	v, root, _, layer := twoFolders(t)
	v.Made, v.MadeIn = "/etc", time.Unix(5, 0)
	put2(t, layer, "kept", "")
	if err := v.unmake(root); err != nil || text(t, layer, "kept") != "" {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(layer, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := v.unmake(root); err != nil {
		t.Error(err)
	}
	names, _ := os.ReadDir(root)
	st, _ := os.Stat(root)
	if len(names) > 0 || !st.ModTime().Equal(v.MadeIn) {
		t.Errorf("left: %v, changed %v", names, st.ModTime())
	}
}

// TestTrustLastWord (issue 11, point 5): a store that a program replaces while the CA is added to the one
// before keeps the program's content.
func TestTrustLastWord(t *testing.T) {
	v, _, container, _ := twoFolders(t, "ca.crt")
	put2(t, container, "ca.crt", "old")
	_, st, _, err := readStore(int(v.dir.Fd()), "ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	put2(t, container, "next", "program's")
	if err := os.Rename(filepath.Join(container, "next"), filepath.Join(container, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if err := replace(int(v.dir.Fd()), "ca.crt", []byte("ours"), true, &st); err != nil {
		t.Fatal(err)
	}
	if got := text(t, container, "ca.crt"); got != "program's" || !bytes.Equal([]byte(got), []byte("program's")) {
		t.Errorf("got %q", got)
	}
	if names, _ := os.ReadDir(container); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}
