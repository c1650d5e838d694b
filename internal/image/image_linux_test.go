// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// entry is one entry of a test layer. Its owner is the user who runs the test.
type entry struct {
	tar.Header
	content string
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func symlink(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}}
}

func link(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}

func char(name string, major, minor int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: name, Devmajor: major, Devminor: minor}}
}

func pack(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Uid, h.Gid, h.Size = os.Getuid(), os.Getgid(), int64(len(e.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func imageWith(t *testing.T, layers ...[]entry) v1.Image {
	t.Helper()
	img, err := mutate.Config(empty.Image, v1.Config{Cmd: []string{"/bin/app"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, entries := range layers {
		data := pack(t, entries)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// writeLayout writes img as an OCI layout and returns its folder.
func writeLayout(t *testing.T, img v1.Image) string {
	t.Helper()
	d := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(d, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// unpack opens the image at p and unpacks it next to a canary file, which must not change.
func unpack(t *testing.T, p string, change func(*Image)) (string, error) {
	t.Helper()
	img, err := Open(p)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = img.Close() })
	if change != nil {
		change(img)
	}
	top := t.TempDir()
	canary := filepath.Join(top, "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(top, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) != 2 {
			t.Errorf("beside the root: %v, %v", entries, err)
		}
		if b, err := os.ReadFile(canary); err != nil || string(b) != "alive" {
			t.Errorf("the canary: %q, %v", b, err)
		}
	})
	return root, img.Unpack(root)
}

// tree lists the contents of root: files as path=content, links as path->target.
func tree(t *testing.T, root string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		switch {
		case err != nil || rel == ".":
			return err
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out = append(out, rel+"->"+to)
			return err
		case d.IsDir():
			out = append(out, rel+"/")
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			out = append(out, rel+"="+string(b))
			return err
		default:
			out = append(out, rel+" "+d.Type().String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestUnpack(t *testing.T) {
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   string
	}{
		{"files, links and folders", [][]entry{{dir("./"), dir("a/"), file("a/f", "x"), symlink("s", "a/f"), link("h", "a/f")}}, "a/ a/f=x h=x s->a/f"},
		{"missing parents", [][]entry{{file("a/b/f", "x")}}, "a/ a/b/ a/b/f=x"},
		{"a file over a file", [][]entry{{file("f", "old")}, {file("f", "new")}}, "f=new"},
		{"a file over a link does not follow it", [][]entry{{file("f", "keep"), symlink("s", "f")}, {file("s", "new")}}, "f=keep s=new"},
		{"a file over a folder", [][]entry{{file("a/f", "x")}, {file("a", "new")}}, "a=new"},
		{"a folder over a folder keeps what is in it", [][]entry{{file("a/f", "x")}, {dir("a/")}}, "a/ a/f=x"},
		{"a folder over a link", [][]entry{{dir("b/"), symlink("a", "b")}, {dir("a/")}}, "a/ b/"},
		{"below an absolute link", [][]entry{{dir("run/"), symlink("var/run", "/run")}, {file("var/run/f", "x")}}, "run/ run/f=x var/ var/run->/run"},
		{"whiteout", [][]entry{{file("a/f", "x"), file("a/g", "y")}, {file("a/.wh.f", "")}}, "a/ a/g=y"},
		{"whiteout of a folder", [][]entry{{file("a/b/f", "x"), file("g", "")}, {file(".wh.a", "")}}, "g="},
		{"whiteout before its successor", [][]entry{{file("f", "old")}, {file(".wh.f", ""), file("f", "new")}}, "f=new"},
		{"whiteout after its successor", [][]entry{{file("f", "old")}, {file("f", "new"), file(".wh.f", "")}}, "f=new"},
		{"whiteout after files of its own layer in the folder", [][]entry{{file("a/old", "x"), file("a/b/old", "x")}, {file("a/b/new", "n"), file(".wh.a", "")}}, "a/ a/b/ a/b/new=n"},
		{"whiteout after a link of its own layer", [][]entry{{file("a/f", "x")}, {dir("b/"), symlink("a", "b"), file("b/g", "y"), file(".wh.a", "")}}, "a->b b/ b/g=y"},
		{"a folder that was removed and made again", [][]entry{{file("a/f", "x")}, {file("a/g", "y"), file("a", "file"), dir("a/"), file("a/h", "z")}}, "a/ a/h=z"},
		{"a folder that became a link", [][]entry{{file("a/f", "x")}, {file("a/g", "y"), dir("b/"), symlink("a", "b"), file("a/h", "z")}}, "a->b b/ b/h=z"},
		{"opaque", [][]entry{{file("a/f", "x"), file("a/b/g", "y")}, {file("a/b/new", "n"), file("a/.wh..wh..opq", "")}}, "a/ a/b/ a/b/new=n"},
		{"opaque of what is not there", [][]entry{{file("f", "x")}, {file("a/.wh..wh..opq", "")}}, "f=x"},
		{"aufs metadata", [][]entry{{file(".wh..wh.plnk", "x"), file("f", "x")}}, "f=x"},
		{"overlayfs whiteout", [][]entry{{file("f", "x"), file("g", "y")}, {char("f", 0, 0)}}, "g=y"},
		{"device below /dev", [][]entry{{char("dev/null", 1, 3), file("f", "x")}}, "f=x"},
		{"hard link to a link", [][]entry{{symlink("s", "/etc/passwd"), link("h", "s")}}, "h->/etc/passwd s->/etc/passwd"},
		{"a folder whose parent became a link up", [][]entry{{dir("a/b/"), symlink("a", "/")}}, "a->/"},
		{"fifo", [][]entry{{entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o600}}}}, "p p---------"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, err := unpack(t, writeLayout(t, imageWith(t, tc.layers...)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// Hostile layers are refused or unpacked within the root. unpack checks that nothing is
// written or removed outside.
func TestUnpackHostile(t *testing.T) {
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   string // of the error; empty: kept inside
		tree   string
	}{
		{"dots", [][]entry{{file("../canary", "dead")}}, "'..'", ""},
		{"dots inside", [][]entry{{file("a/../../canary", "dead")}}, "'..'", ""},
		{"absolute", [][]entry{{file("/canary", "x")}}, "", "canary=x"},
		{"below a link up", [][]entry{{symlink("up", ".."), file("up/canary", "dead")}}, "", "canary=dead up->.."},
		{"below a chain of links up", [][]entry{{symlink("a", "../.."), symlink("b", "a/.."), file("b/canary", "dead")}}, "", "a->../.. b->a/.. canary=dead"},
		{"over a link to the canary", [][]entry{{symlink("s", "../canary"), file("s", "dead")}}, "", "s=dead"},
		{"hard link to the canary", [][]entry{{link("h", "../canary")}}, "'..'", ""},
		{"hard link through a link up", [][]entry{{symlink("up", ".."), link("h", "up/canary")}}, "no such file", ""},
		{"whiteout through a link up", [][]entry{{symlink("up", "..")}, {file("up/.wh.canary", "")}}, "", "up->.."},
		{"whiteout of dots", [][]entry{{file("a/.wh...", "")}}, "whiteout names nothing", ""},
		{"whiteout of nothing", [][]entry{{file(".wh.", "")}}, "whiteout names nothing", ""},
		{"opaque through a link up", [][]entry{{symlink("up", "..")}, {file("up/.wh..wh..opq", "")}}, "", ""},
		{"device", [][]entry{{char("disk", 8, 0)}}, "device nodes", ""},
		{"block device below a folder like dev", [][]entry{{entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "devices/sda", Devmajor: 8}}}}, "device nodes", ""},
		{"the root as a file", [][]entry{{file(".", "x")}}, "the root is not a folder", ""},
		{"the root as a link", [][]entry{{symlink("./", "/etc")}}, "the root is not a folder", ""},
		{"link to itself as a folder", [][]entry{{symlink("l", "l"), file("l/f", "x")}}, "too many levels", ""},
		{"other type", [][]entry{{entry{Header: tar.Header{Typeflag: tar.TypeCont, Name: "c"}}}}, "not unpacked", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, err := unpack(t, writeLayout(t, imageWith(t, tc.layers...)), nil)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want …%s…", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); got != tc.tree {
				t.Errorf("got %s, want %s", got, tc.tree)
			}
		})
	}
}

func TestUnpackIsBounded(t *testing.T) {
	p := writeLayout(t, imageWith(t, []entry{file("a", strings.Repeat("x", 1<<16)), file("b", "y")}))
	if _, err := unpack(t, p, func(i *Image) { i.maxUnpacked = 1 << 15 }); !errors.Is(err, errTooLarge) {
		t.Errorf("bytes: %v", err)
	}
	if _, err := unpack(t, p, func(i *Image) { i.maxEntries = 1 }); err == nil || !strings.Contains(err.Error(), "entries") {
		t.Errorf("entries: %v", err)
	}
	if _, err := unpack(t, p, func(i *Image) { i.maxUnpacked, i.maxEntries = 1<<18, 2 }); err != nil {
		t.Errorf("within the bounds: %v", err)
	}
}

// Files keep all mode bits, including the set-user-ID bit.
func TestUnpackModes(t *testing.T) {
	e := file("su", "x")
	e.Mode = 0o4751
	root, err := unpack(t, writeLayout(t, imageWith(t, []entry{e})), nil)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "su"), &st); err != nil || st.Mode&0o7777 != 0o4751 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
}

// Files and folders keep their modification times, a folder also if files in it come later
// in the layer. If a link replaces a folder, the time is not set on the link's target.
func TestUnpackTimes(t *testing.T) {
	then := time.Unix(1_000_000_000, 0)
	old := func(e entry) entry { e.ModTime = then; return e }
	root, err := unpack(t, writeLayout(t, imageWith(t,
		[]entry{old(dir("./")), old(dir("a/")), old(file("a/f", "x")), old(dir("a/b/")), old(file("a/b/g", "x"))},
		[]entry{old(dir("a/c/")), old(dir("d/")), dir("e/"), old(symlink("d", "e"))})), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a/f": true, "a/b": true, "a/b/g": true, "a/c": true, "e": false} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil || st.ModTime().Equal(then) != want {
			t.Errorf("%s: %v, want 2001: %v, %v", name, st.ModTime(), want, err)
		}
	}
}

// The three forms of an image have the same contents.
func TestOpenForms(t *testing.T) {
	img := imageWith(t, []entry{file("f", "x")}, []entry{file("g", "y")})
	folder := writeLayout(t, img)
	oci := filepath.Join(t.TempDir(), "oci.tar")
	if out, err := exec.Command("tar", "-C", folder, "-cf", oci, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	docker := filepath.Join(t.TempDir(), "docker.tar")
	tag, err := name.NewTag("app:latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	for form, p := range map[string]string{"OCI layout": folder, "OCI tar": oci, "docker save": docker} {
		t.Run(form, func(t *testing.T) {
			root, err := unpack(t, p, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); got != "f=x g=y" {
				t.Errorf("got %s", got)
			}
			i, err := Open(p)
			if err != nil {
				t.Fatal(err)
			}
			c, err := i.Config()
			if err != nil || len(c.Cmd) != 1 || c.Cmd[0] != "/bin/app" {
				t.Errorf("config %+v, %v", c, err)
			}
			if err := i.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	img := imageWith(t, []entry{file("f", "x")})
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	write := func(d, name, text string) error { return os.WriteFile(filepath.Join(d, name), []byte(text), 0o600) }
	for _, tc := range []struct {
		name, want string
		change     func(d string) error
	}{
		{"no index", "no such file", func(d string) error { return os.Remove(filepath.Join(d, indexFile)) }},
		{"index is not JSON", "is not JSON", func(d string) error { return write(d, indexFile, "{") }},
		{"index without images", "holds 0 images", func(d string) error { return write(d, indexFile, `{"schemaVersion":2,"manifests":[]}`) }},
		{"index is huge", "larger than", func(d string) error { return write(d, indexFile, strings.Repeat(" ", MaxDocument+1)) }},
		{"digest is a path", "", func(d string) error {
			return write(d, indexFile, `{"schemaVersion":2,"manifests":[{"mediaType":"`+string(types.OCIManifestSchema1)+`","digest":"sha256:../../../../etc/passwd"}]}`)
		}},
		{"damaged configuration", "is damaged", func(d string) error { return write(d, blobName(config), `{"config":{}}`) }},
		{"damaged layer", "is damaged", func(d string) error { return write(d, blobName(blob), string(pack(t, []entry{file("evil", "x")}))) }},
		{"missing layer", "no such file", func(d string) error { return os.Remove(filepath.Join(d, blobName(blob))) }},
		{"layer is a link out", "escapes", func(d string) error {
			f := filepath.Join(d, blobName(blob))
			return errors.Join(os.Remove(f), os.Symlink("/etc/passwd", f))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := writeLayout(t, img)
			if err := tc.change(d); err != nil {
				t.Fatal(err)
			}
			if _, err := unpack(t, d, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want …%s…", err, tc.want)
			}
		})
	}
	for what, text := range map[string]string{"text": "hello", "empty": ""} {
		t.Run(what, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "image.tar")
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(f); err == nil || !strings.Contains(err.Error(), "image.tar") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	of := func(os, arch string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}
	}
	for _, tc := range []struct {
		name string
		all  []v1.Descriptor
		err  bool
	}{
		{"one for this machine", []v1.Descriptor{of("linux", "riscv64"), of("linux", runtime.GOARCH), of("unknown", "unknown")}, false},
		{"two for this machine", []v1.Descriptor{of("linux", runtime.GOARCH), of("linux", runtime.GOARCH)}, true},
		{"none for this machine", []v1.Descriptor{of("linux", "riscv64"), of("windows", runtime.GOARCH)}, true},
		{"platforms not said", []v1.Descriptor{{}, {}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := choose(tc.all)
			if (err != nil) != tc.err || err == nil && d.Platform.Architecture != runtime.GOARCH {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

func FuzzUnpackLayer(f *testing.F) {
	f.Add([]byte("up"), []byte(".."), []byte("up/canary"), byte(tar.TypeSymlink), byte(tar.TypeReg))
	f.Add([]byte("a/.wh..wh..opq"), []byte("x"), []byte("../canary"), byte(tar.TypeReg), byte(tar.TypeLink))
	f.Fuzz(func(t *testing.T, one, to, two []byte, typeOne, typeTwo byte) {
		top := t.TempDir()
		root := filepath.Join(top, "root")
		if err := errors.Join(os.Mkdir(root, 0o700), os.WriteFile(filepath.Join(top, "canary"), []byte("alive"), 0o600)); err != nil {
			t.Fatal(err)
		}
		r, err := os.OpenRoot(root)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		u := &unpacker{root: r, dir: root, bytes: 1 << 20, entries: 10, stream: 1 << 20, seen: map[string]bool{}, folders: map[string]time.Time{}}
		defer u.closeParent()
		for _, h := range []tar.Header{
			{Name: string(one), Linkname: string(to), Typeflag: typeOne, Mode: 0o755, Uid: os.Getuid(), Gid: os.Getgid()},
			{Name: string(two), Linkname: string(one), Typeflag: typeTwo, Mode: 0o755, Uid: os.Getuid(), Gid: os.Getgid()},
		} {
			_ = u.entry(&h, strings.NewReader("dead"))
		}
		if b, err := os.ReadFile(filepath.Join(top, "canary")); err != nil || string(b) != "alive" {
			t.Fatalf("the canary: %q, %v", b, err)
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 2 {
			t.Fatalf("beside the root: %v, %v", entries, err)
		}
	})
}
