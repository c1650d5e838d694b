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
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// File names by which a layer removes files of the layers below it (image-spec,
// layer.md, Whiteouts).
const (
	whiteout       = ".wh."         // followed by the name of the removed file
	whiteoutMeta   = ".wh..wh."     // followed by a name that aufs uses; not part of the image
	whiteoutOpaque = ".wh..wh..opq" // removes the contents of its folder
)

// Unpack unpacks the layers of the image into the folder dir, lowest first.
// It sets owners, modes and the modification times of files and folders. It
// ignores extended attributes: no process of a sandbox gains privileges by them.
// It refuses an image beyond a limit of limits.go, and a layer whose digest is not
// the one in the configuration; dir then holds what was unpacked until the error.
//
// Preconditions: dir is empty, and no other process writes to it.
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
	defer u.closeParent()
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

// unpacker unpacks layers into one folder.
type unpacker struct {
	// Every file operation goes through root, or through a folder opened by root. dir
	// is the path of root; only [unpacker.inside] uses it, to resolve symbolic links.
	root *os.Root
	dir  string
	// The rest of the budget: bytes of file contents, number of entries, and bytes of
	// decompressed layers.
	bytes   int64
	entries int
	stream  int64
	// seen holds the paths that the current layer wrote and the folders above them. Its
	// whiteouts do not remove these.
	seen map[string]bool
	// folders holds the modification times of the current layer's folders. They are
	// set at the end of the layer, because each new file in a folder changes its time.
	folders map[string]time.Time
	// parent is the open folder of the last entry, and parentPath its path. A tar lists
	// the files of a folder one after the other, and without parent each operation on a
	// file would open all folders above it: unpacking Debian took twice the CPU time.
	parent     *os.Root
	parentPath string
}

// errTooLarge says that a layer exceeds its budget. A reader that stopped with io.EOF
// instead would make a truncated layer look complete.
var errTooLarge = fmt.Errorf("the image unpacks to more than %d bytes", int64(MaxUnpacked))

// budget is a reader that fails with errTooLarge once more than left bytes were read.
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

// layer unpacks one decompressed layer and returns the SHA-256 digest of its bytes.
func (u *unpacker) layer(r io.Reader) (digest string, err error) {
	sum := sha256.New()
	in := io.TeeReader(budget{r, &u.stream}, sum)
	u.seen, u.folders = map[string]bool{}, map[string]time.Time{}
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
	// The digest covers the bytes behind the end of the tar, too.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", err
	}
	if err := u.folderTimes(); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// inside resolves the symbolic links of the folders above name and returns the path
// of its folder below the root, and its last element. A link that leads out of the root ends
// at the root, as in a chroot. The last element is not resolved.
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

// open opens folder, a path below the root, and creates it if it is missing. It
// stays open until open is called with another path or something is removed.
func (u *unpacker) open(folder string) (*os.Root, error) {
	if u.parent != nil && u.parentPath == folder {
		return u.parent, nil
	}
	u.closeParent()
	if err := u.root.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	r, err := u.root.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	u.parent, u.parentPath = r, folder
	return r, nil
}

func (u *unpacker) closeParent() {
	if u.parent != nil {
		_ = u.parent.Close() // no file was written through this descriptor
		u.parent = nil
	}
}

// remove removes target, a path below the root, and everything below it. It closes
// the open folder, which may be one of the removed ones.
func (u *unpacker) remove(target string) error {
	u.closeParent()
	return u.root.RemoveAll(target)
}

// entry unpacks one entry of a layer.
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
	overlayWhiteout := h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0
	switch {
	case overlayWhiteout && base != ".":
		return u.remove(target)
	case device && strings.HasPrefix(target, "dev/"):
		return nil // the sandbox mounts its own /dev over it
	case device:
		return errors.New("device nodes are not unpacked")
	}
	if err := u.make(h, folder, base, content); err != nil {
		return err
	}
	for p := target; p != "."; p = path.Dir(p) {
		u.seen[p] = true
	}
	if h.Typeflag == tar.TypeLink {
		return nil // the entry of the file's first name has set them
	}
	if h.Typeflag == tar.TypeDir {
		u.folders[target] = h.ModTime
	}
	return u.attributes(h, folder, base)
}

// make creates the file base in folder. It replaces a file of a lower layer; a folder
// that is already there stays.
func (u *unpacker) make(h *tar.Header, folder, base string, content io.Reader) error {
	parent, err := u.open(folder)
	if err != nil {
		return err
	}
	target := path.Join(folder, base)
	old, err := parent.Lstat(base)
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
		if err := u.remove(target); err != nil {
			return err
		}
		if parent, err = u.open(folder); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return parent.Mkdir(base, 0o700)
	case tar.TypeReg:
		return u.file(parent, base, content)
	case tar.TypeSymlink:
		return parent.Symlink(h.Linkname, base)
	case tar.TypeLink:
		return u.root.Link(from, target)
	case tar.TypeFifo:
		d, err := parent.Open(".")
		if err != nil {
			return err
		}
		defer d.Close()
		return unix.Mkfifoat(int(d.Fd()), base, 0o600)
	}
	return fmt.Errorf("tar entries of type %q are not unpacked", h.Typeflag)
}

func (u *unpacker) file(parent *os.Root, base string, content io.Reader) error {
	f, err := parent.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, budget{content, &u.bytes})
	return errors.Join(err, f.Close())
}

// attributes sets the owner of base in folder and, unless it is a symbolic link, its mode. It
// sets the modification time of a regular file; folderTimes sets those of folders.
func (u *unpacker) attributes(h *tar.Header, folder, base string) error {
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	parent, err := u.open(folder)
	if err != nil {
		return err
	}
	if err := parent.Lchown(base, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	// The mode comes after the owner: chown clears the set-user-ID bit.
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if err := parent.Chmod(base, h.FileInfo().Mode()&bits); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg && storable(h.ModTime) {
		return parent.Chtimes(base, h.ModTime, h.ModTime)
	}
	return nil
}

// storable reports whether every Linux file system can store t.
func storable(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= math.MaxUint32 }

// folderTimes sets the modification times of the layer's folders. Programs compare them
// with the times in their caches: fontconfig reads every font again if they differ.
func (u *unpacker) folderTimes() error {
	for p, t := range u.folders {
		if !storable(t) {
			continue
		}
		// A later entry of the layer may have removed the folder, or replaced it or a
		// folder above it by a link.
		folder, base, err := u.inside(p)
		if err != nil {
			return err
		}
		p = path.Join(folder, base)
		st, err := u.root.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
			continue
		}
		if err == nil {
			err = u.root.Chtimes(p, t, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whiteout applies the whiteout base in folder, which removes the file name of the lower
// layers. Files of the current layer stay: in a layer, whiteouts and files have no order.
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
	if !u.seen[victim] {
		return u.remove(victim)
	}
	// The layer has made a folder of this name: only the lower layers' files in it go.
	st, err := u.root.Lstat(victim)
	if err != nil || !st.IsDir() {
		return err
	}
	return u.empty(victim)
}

// empty removes everything in folder that the current layer did not write.
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
			err = u.remove(p)
		case e.IsDir():
			err = u.empty(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
