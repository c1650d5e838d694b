// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// Names of layers that take away (image-spec, layer.md, Whiteouts).
const (
	whiteout       = ".wh."
	whiteoutMeta   = ".wh..wh." // aufs's own, no part of the image
	whiteoutOpaque = ".wh..wh..opq"
)

// Unpack lays the image's layers out in dir, which must be empty and which nobody
// else may be writing to. Owners and modes are the image's; extended attributes
// are left out, as no process of a sandbox gains privileges by them.
func (i *Image) Unpack(dir string) error {
	layers, err := i.image.Layers()
	if err != nil {
		return fmt.Errorf("read the image's layers: %w", err)
	}
	config, err := i.image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the image's configuration: %w", err)
	}
	if n := len(layers); n > MaxLayers || n != len(config.RootFS.DiffIDs) {
		return fmt.Errorf("the image has %d layers (at most %d), its configuration names %d", n, MaxLayers, len(config.RootFS.DiffIDs))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the folder to unpack to: %w", err)
	}
	defer root.Close()
	u := &unpacker{root: root, dir: dir, bytes: i.maxUnpacked, entries: i.maxEntries, stream: i.maxUnpacked}
	for n, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return fmt.Errorf("read layer %d: %w", n, err)
		}
		digest, err := u.layer(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("unpack layer %d: %w", n, err)
		}
		if want := config.RootFS.DiffIDs[n].Hex; digest != want {
			return fmt.Errorf("layer %d has the digest %s, the configuration says %s: the image is damaged", n, digest, want)
		}
	}
	return nil
}

// unpacker writes below root, which is dir; every operation goes through root, and
// dir only helps to follow the image's own links.
type unpacker struct {
	root *os.Root
	dir  string
	// What may still come: bytes of files, entries, and bytes of layers.
	bytes   int64
	entries int
	stream  int64
	// seen are the paths of this layer and the folders above them, which its
	// whiteouts leave alone.
	seen map[string]bool
}

// Read limits are errors of their own, so that a cut-off layer is no short one.
var errTooLarge = fmt.Errorf("the image unpacks to more than %d bytes", int64(MaxUnpacked))

// budget fails a read beyond what is left.
type budget struct {
	r    io.Reader
	left *int64
}

func (b budget) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// layer unpacks one and gives the digest of what was read.
func (u *unpacker) layer(r io.Reader) (digest string, err error) {
	sum := sha256.New()
	in := io.TeeReader(budget{r, &u.stream}, sum)
	u.seen = map[string]bool{}
	for t := tar.NewReader(in); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if u.entries--; u.entries < 0 {
			return "", fmt.Errorf("the image has more than %d entries", MaxEntries)
		}
		if err := u.entry(h, t); err != nil {
			return "", fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// inside is where name is below the root once the links of the folders above it
// are followed, which all stay below the root.
func (u *unpacker) inside(name string) (folder, base string, err error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", "", errors.New("the path has a '..'")
		}
	}
	clean := path.Clean("/" + name)
	if strings.ContainsRune(clean, 0) {
		return "", "", errors.New("the path has a NUL byte")
	}
	if clean == "/" {
		return ".", ".", nil
	}
	full, err := securejoin.SecureJoin(u.dir, path.Dir(clean))
	if err != nil {
		return "", "", err
	}
	folder, err = filepath.Rel(u.dir, full)
	return folder, path.Base(clean), err
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	folder, base, err := u.inside(h.Name)
	if err != nil {
		return err
	}
	target := path.Join(folder, base)
	if name, ok := strings.CutPrefix(base, whiteout); ok {
		return u.whiteout(folder, base, name)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	gone := h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 // overlayfs's whiteout
	switch {
	case gone && base != ".":
		return u.root.RemoveAll(target)
	case device && strings.HasPrefix(target, "dev/"):
		return nil // hidden by the sandbox's own /dev
	case device:
		return errors.New("device nodes are not unpacked")
	}
	if err := u.root.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := u.make(h, target, content); err != nil {
		return err
	}
	for p := target; p != "."; p = path.Dir(p) {
		u.seen[p] = true
	}
	if h.Typeflag == tar.TypeLink {
		return nil // owner and mode are the first name's
	}
	return u.attributes(h, target)
}

// make brings target into being, in the place of what a lower layer had there.
func (u *unpacker) make(h *tar.Header, target string, content io.Reader) error {
	old, err := u.root.Lstat(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && h.Typeflag == tar.TypeDir && old.IsDir() {
		return nil
	}
	if target == "." {
		return errors.New("the root is not a folder")
	}
	from := ""
	if h.Typeflag == tar.TypeLink {
		folder, base, err := u.inside(h.Linkname)
		if err != nil {
			return fmt.Errorf("link to %.200q: %w", h.Linkname, err)
		}
		if from = path.Join(folder, base); from == target {
			return nil
		}
	}
	if err == nil {
		if err := u.root.RemoveAll(target); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.root.Mkdir(target, 0o700)
	case tar.TypeReg:
		return u.file(target, content)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, target)
	case tar.TypeLink:
		return u.root.Link(from, target)
	case tar.TypeFifo:
		folder, err := u.root.Open(path.Dir(target))
		if err != nil {
			return err
		}
		defer folder.Close()
		return unix.Mkfifoat(int(folder.Fd()), path.Base(target), 0o600)
	}
	return fmt.Errorf("tar entries of type %q are not unpacked", h.Typeflag)
}

func (u *unpacker) file(target string, content io.Reader) error {
	f, err := u.root.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, budget{content, &u.bytes})
	return errors.Join(err, f.Close())
}

func (u *unpacker) attributes(h *tar.Header, target string) error {
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	if err := u.root.Lchown(target, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	// After the owner, whose change takes the set-user-ID bit away.
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if err := u.root.Chmod(target, h.FileInfo().Mode()&bits); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg && h.ModTime.Unix() >= 0 && h.ModTime.Unix() <= math.MaxUint32 {
		return u.root.Chtimes(target, h.ModTime, h.ModTime)
	}
	return nil
}

// whiteout takes away what lower layers put there.
func (u *unpacker) whiteout(folder, base, name string) error {
	if base == whiteoutOpaque {
		return u.empty(folder)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	if name == "" || name == "." || name == ".." {
		return errors.New("the whiteout names nothing")
	}
	victim := path.Join(folder, name)
	if u.seen[victim] {
		return nil
	}
	return u.root.RemoveAll(victim)
}

// empty takes away all below folder that is not of this layer.
func (u *unpacker) empty(folder string) error {
	d, err := u.root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(folder, e.Name())
		switch {
		case !u.seen[p]:
			err = u.root.RemoveAll(p)
		case e.IsDir():
			err = u.empty(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
