// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/pathname"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/trust"
)

// caBundles are the paths at which programs of the distributions look for trusted
// certificates: Debian, Ubuntu and Alpine; Fedora and RHEL; SUSE; Alpine and the BSDs.
var caBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// keystores are the paths of the keystores to which the JDKs of the distributions link.
var keystores = []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/pki/java/cacerts", "/var/lib/ca-certificates/java-cacerts"}

// jdks are folders with JDKs in them. A JDK has its own keystore at one of jdkStores.
var (
	jdks      = []string{"/usr/lib/jvm", "/usr/lib64/jvm", "/usr/java", "/usr/local", "/opt", "/opt/java", "/root/.sdkman/candidates/java"}
	jdkStores = []string{"lib/security/cacerts", "jre/lib/security/cacerts"}
)

// browsers are folders of browsers, and the folder from which each browser reads the policies
// of its machine. A browser trusts the CAs in a policy, and ignores the system's bundles.
var browsers = []struct{ folder, policies string }{
	{"/etc/chromium", "/etc/chromium/policies/managed"},
	{"/ms-playwright", "/etc/chromium/policies/managed"},
	{"/root/.cache/ms-playwright", "/etc/chromium/policies/managed"},
	{"/ms-playwright", "/etc/opt/chrome_for_testing/policies/managed"},
	{"/root/.cache/ms-playwright", "/etc/opt/chrome_for_testing/policies/managed"},
	{"/root/.cache/puppeteer", "/etc/opt/chrome_for_testing/policies/managed"},
	{"/opt/google/chrome", "/etc/opt/chrome/policies/managed"},
	{"/opt/microsoft/msedge", "/etc/opt/edge/policies/managed"},
}

// storeFolders are the folders that can become an overlay, the innermost first. lib/security
// of a JDK and the folders of browsers can, too.
var storeFolders = []string{"/etc/pki/ca-trust/extracted", "/etc/pki/java", "/etc/pki/tls/certs", "/var/lib/ca-certificates", "/etc/ssl/certs", "/etc/pki/tls", "/etc/ssl"}

// keyFolders are the storeFolders that also have keys in them. Every process may read the
// bundle there, but not the folder.
var keyFolders = []string{"/etc/pki/tls", "/etc/ssl"}

const (
	// overlaySize and overlayFiles bound what a container can write into its folders of
	// stores, in bytes and in files. The folders of Debian have 300 files and 1 MiB. The
	// memory is charged to the container's cgroup.
	overlaySize  = 64 << 20
	overlayFiles = 16 << 10
	// maxJDKs bounds the entries of a folder that are looked at for JDKs, and maxStores
	// the stores of an image.
	maxJDKs   = 256
	maxStores = 64
)

// containerStores are the certificate stores of a container and the mounts that show them
// to it.
type containerStores struct {
	proxyapi.TrustStores
	// caBundle is the path for the environment's variables. Every process may read paths.
	caBundle string
	mounts   []specs.Mount
	paths    []string
	warnings []string

	spec         *specs.Spec
	destinations []string // of config.json's mounts, see destinations
	dir          string   // the sandbox's own
	root         int
	overlay      string // where the overlays' file system is mounted, or ""
	shared       *os.File
}

// store is a certificate store of the image: at is its usual path, real its path without
// links.
type store struct{ at, real string }

// trustStores finds the certificate stores of the image and prepares the overlays or files
// that show them to the container. The proxy adds its CA to them. dir is the sandbox's
// folder. The caller calls release when the container has its mounts.
func trustStores(spec *specs.Spec, dir string) (_ *containerStores, err error) {
	c := &containerStores{spec: spec, dir: dir}
	if c.Root, err = filepath.Abs(spec.Root.Path); err != nil {
		return nil, fmt.Errorf("find root.path: %w", err)
	}
	if c.root, err = unix.Open(c.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open root.path %s: %w", spec.Root.Path, err)
	}
	defer unix.Close(c.root)
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	// This comes first, because another sandbox with this root filesystem may end and remove
	// folders of it.
	if c.shared, err = trust.Share(c.Root); err != nil {
		return nil, err
	}
	c.destinations = destinations(c.Root, spec.Mounts)
	found := c.find()
	var alone []store
	for _, s := range found {
		switch why := c.join(s); why {
		case "":
			continue
		case whyMounted + s.at, whyMounted + s.real:
			// config.json has a mount there, so packages could not replace it under any runtime.
		default:
			c.warn(s.at, errors.New(why))
		}
		alone = append(alone, s)
	}
	c.nest()
	if err := c.mountFolders(); err != nil {
		// The root filesystem cannot be the lower layer of an overlay, or the runtime is in
		// a container itself.
		c.warn("each CA store of the image", err)
		c.unmount()
		c.Folders, c.mounts, c.paths, alone = nil, nil, nil, found
	}
	for _, s := range alone {
		if err := c.file(s); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// warn adds the warning about a store that is a read-only mount.
func (c *containerStores) warn(what string, why error) {
	c.warnings = append(c.warnings, fmt.Sprintf("%s cannot be replaced by packages, it is a read-only mount with the sandbox's CA: %v", what, why))
}

// find returns the stores of the image. An image without any gets the first bundle.
func (c *containerStores) find() (found []store) {
	add := func(at string) {
		real, ok := c.resolve(at, unix.S_IFREG)
		if len(found) < maxStores && (ok || slices.Contains(c.destinations, leadsTo(c.Root, at))) {
			found = append(found, store{at, cmp.Or(real, at)})
		}
	}
	for _, p := range caBundles {
		add(p)
	}
	if len(found) == 0 {
		found = []store{{caBundles[0], caBundles[0]}}
	}
	c.caBundle = found[0].at
	for _, p := range keystores {
		add(p)
	}
	for _, b := range browsers {
		at := path.Join(b.policies, trust.BrowserPolicy)
		if _, ok := c.resolve(b.folder, unix.S_IFDIR); ok && !slices.Contains(found, store{at, at}) {
			found = append(found, store{at, at})
		}
	}
	for _, e := range c.spec.Process.Env {
		if home, ok := strings.CutPrefix(e, "JAVA_HOME="); ok && path.IsAbs(home) {
			for _, s := range jdkStores {
				add(path.Join(home, s))
			}
		}
	}
	for _, d := range jdks {
		for _, name := range c.list(d) {
			for _, s := range jdkStores {
				add(path.Join(d, name, s))
			}
		}
	}
	return found
}

// resolve returns the path without links of a file in the image. It returns false unless
// the file exists and has that kind (S_IFMT).
func (c *containerStores) resolve(name string, kind uint32) (string, bool) {
	fd, err := unix.Openat2(c.root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != kind {
		return "", false
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", c.root))
	if err != nil {
		return "", false
	}
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || (root != "/" && !pathname.Below(real, root)) {
		return "", false
	}
	return path.Clean("/" + strings.TrimPrefix(real, root)), true
}

// list returns the names in a folder of the image.
func (c *containerStores) list(name string) []string {
	fd, err := unix.Openat2(c.root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, _ := f.Readdirnames(maxJDKs) // after an error, the names before it
	slices.Sort(names)
	return names
}

// storeFolder returns the folder of a store that can become an overlay, or "".
func storeFolder(name string) string {
	for _, f := range storeFolders {
		if pathname.Below(name, f) && name != f {
			return f
		}
	}
	dir := path.Dir(name)
	for _, b := range browsers {
		if dir == b.policies {
			// The folder above policies/managed, which belongs to the browser's package.
			return path.Dir(path.Dir(dir))
		}
	}
	if strings.HasSuffix(dir, "/lib/security") {
		return dir
	}
	return ""
}

// whyMounted is the beginning of join's reason if config.json has a mount there.
const whyMounted = "config.json mounts "

// join adds a store to the overlay that shows it to the container, and returns "". If no
// overlay can show the store, it returns the reason.
func (c *containerStores) join(s store) string {
	f := proxyapi.TrustFolder{Path: storeFolder(s.real)}
	inside := s.real
	if f.Path == "" {
		// The link itself can be replaced by a file.
		real, ok := c.resolve(path.Dir(s.at), unix.S_IFDIR)
		if inside = path.Join(real, path.Base(s.at)); !ok || storeFolder(inside) == "" {
			return fmt.Sprintf("it leads to %s", s.real)
		}
		f.Path = storeFolder(inside)
	}
	if at := c.mountedAt(f.Path); at != "" {
		return whyMounted + at
	}
	if real, ok := c.resolve(f.Path, unix.S_IFDIR); ok && real != f.Path {
		// The image has no bundle, so the path of the folder may have links in it.
		if storeFolder(path.Join(real, path.Base(inside))) != real {
			return fmt.Sprintf("%s leads to %s", f.Path, real)
		}
		inside, f.Path = path.Join(real, path.Base(inside)), real
	} else if !ok && !c.missing(&f) {
		return fmt.Sprintf("a link or a file is in the place of a folder above %s", f.Path)
	}
	i := slices.IndexFunc(c.Folders, func(o proxyapi.TrustFolder) bool { return o.Path == f.Path })
	if i < 0 {
		i = len(c.Folders)
		c.Folders = append(c.Folders, f)
		// A package can make these while the container runs.
		for _, k := range keystores {
			if pathname.Below(k, f.Path) {
				c.Folders[i].Stores = append(c.Folders[i].Stores, strings.TrimPrefix(k, f.Path+"/"))
			}
		}
	}
	if name := strings.TrimPrefix(inside, f.Path+"/"); !slices.Contains(c.Folders[i].Stores, name) {
		c.Folders[i].Stores = append(c.Folders[i].Stores, name)
	}
	if slices.Contains(caBundles, s.at) {
		readable := f.Path
		if slices.Contains(keyFolders, f.Path) {
			readable = s.at
		}
		c.paths = append(c.paths, readable)
	}
	return ""
}

// leadsTo returns the path without links, in the image, of a mount's destination.
// libcontainer follows the links of the image in the same way, also links to a missing file.
func leadsTo(root, destination string) string {
	real, err := securejoin.SecureJoin(root, destination)
	if err != nil {
		// libcontainer refuses the destination with the same error.
		return path.Clean("/" + destination)
	}
	return path.Clean("/" + strings.TrimPrefix(real, root))
}

// destinations returns the paths without links, in the image, of the destinations of mounts.
func destinations(root string, mounts []specs.Mount) (out []string) {
	for _, m := range mounts {
		out = append(out, leadsTo(root, m.Destination))
	}
	return out
}

// mountedAt returns the destination of a mount of config.json that is at, above or below a
// folder, or "".
func (c *containerStores) mountedAt(folder string) string {
	for _, d := range c.destinations {
		if d != "/" && (pathname.Below(d, folder) || pathname.Below(folder, d)) {
			return d
		}
	}
	return ""
}

// missing sets in f which part of its path the image does not have. It returns false if
// the path has a link in it.
func (c *containerStores) missing(f *proxyapi.TrustFolder) bool {
	for f.Made = f.Path; ; f.Made = path.Dir(f.Made) {
		above := path.Dir(f.Made)
		real, ok := c.resolve(above, unix.S_IFDIR)
		if !ok && above != "/" {
			continue
		}
		st, err := os.Lstat(filepath.Join(c.Root, above))
		if real != above || err != nil {
			return false
		}
		if _, err := os.Lstat(filepath.Join(c.Root, f.Made)); !errors.Is(err, os.ErrNotExist) {
			return false
		}
		f.MadeIn = st.ModTime()
		return true
	}
}

// nest merges each folder that is in another one into that one. Otherwise the overlay of the
// outer folder would hide the overlay of the inner one.
func (c *containerStores) nest() {
	slices.SortFunc(c.Folders, func(a, b proxyapi.TrustFolder) int { return cmp.Compare(len(a.Path), len(b.Path)) })
	var outer []proxyapi.TrustFolder
	for _, f := range c.Folders {
		i := slices.IndexFunc(outer, func(o proxyapi.TrustFolder) bool { return pathname.Below(f.Path, o.Path) })
		if i < 0 {
			outer = append(outer, f)
			continue
		}
		for _, s := range f.Stores {
			s = strings.TrimPrefix(path.Join(f.Path, s), outer[i].Path+"/")
			if !slices.Contains(outer[i].Stores, s) {
				outer[i].Stores = append(outer[i].Stores, s)
			}
		}
	}
	c.Folders = outer
}

// mountFolders mounts an overlay for each folder, on the host, and adds the mounts that
// show them to the container.
func (c *containerStores) mountFolders() error {
	if len(c.Folders) == 0 {
		return nil
	}
	top := filepath.Join(c.dir, proxyapi.StoresDir)
	if err := os.Mkdir(top, 0o700); err != nil {
		return fmt.Errorf("create folder for CA stores: %w", err)
	}
	options := fmt.Sprintf("mode=0755,size=%d,nr_inodes=%d", overlaySize, overlayFiles)
	if err := unix.Mount("openshell", top, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount a file system for CA stores: %w", err)
	}
	c.overlay = top
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", top, err)
	}
	defer unix.Close(fd)
	mode := "rw"
	if c.spec.Root.Readonly {
		mode = "ro"
	}
	for i := range c.Folders {
		f := &c.Folders[i]
		f.View, f.Upper = filepath.Join(top, fmt.Sprint(i), "view"), filepath.Join(top, fmt.Sprint(i), "upper")
		if err := c.mountFolder(f, fd, fmt.Sprint(i)); err != nil {
			return err
		}
		c.mounts = append(c.mounts, specs.Mount{Destination: f.Path, Type: "bind", Source: f.View, Options: []string{"bind", mode, "nosuid", "nodev"}})
	}
	return nil
}

// mountFolder mounts the overlay of f in the folder name below top. A folder that the image
// does not have needs no overlay: it is a folder of the file system at top.
func (c *containerStores) mountFolder(f *proxyapi.TrustFolder, top int, name string) error {
	for _, d := range []string{"", "upper", "work", "view"} {
		if err := unix.Mkdirat(top, path.Join(name, d), 0o755); err != nil {
			return fmt.Errorf("create folder for CA stores: %w", err)
		}
	}
	var st unix.Stat_t
	if f.Made != "" {
		f.View = f.Upper
		uid, gid := mappedRoot(c.spec)
		if err := unix.Fchownat(top, path.Join(name, "upper"), uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("change the owner of the folder for %s: %w", f.Path, err)
		}
		if err := unix.Stat(f.View, &st); err != nil {
			return fmt.Errorf("look at the folder for %s: %w", f.Path, err)
		}
		f.Device = st.Dev
		return nil
	}
	lower, err := unix.Openat2(c.root, f.Path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("open %s in the image: %w", f.Path, err)
	}
	defer unix.Close(lower)
	if err := unix.Fstat(lower, &st); err != nil {
		return fmt.Errorf("look at %s in the image: %w", f.Path, err)
	}
	// The container sees the owner, the mode and the times of the upper layer's folder.
	upper := fmt.Sprintf("/proc/self/fd/%d/%s/upper", top, name)
	at := []unix.Timespec{st.Atim, st.Mtim}
	err = errors.Join(unix.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777), unix.UtimesNanoAt(unix.AT_FDCWD, upper, at, 0))
	if err != nil {
		return fmt.Errorf("create folder for CA stores: %w", err)
	}
	// The paths are those of descriptors, because the kernel takes ':' and ',' in a path for
	// separators of options.
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=%s,workdir=/proc/self/fd/%d/%s/work,index=off,metacopy=off,redirect_dir=off", lower, upper, top, name)
	if err := unix.Mount("openshell", f.View, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount an overlay for %s: %w", f.Path, err)
	}
	if err := unix.Stat(f.View, &st); err != nil {
		return fmt.Errorf("look at the overlay for %s: %w", f.Path, err)
	}
	f.Device = st.Dev
	return nil
}

// file adds a read-only mount of a copy of the store.
func (c *containerStores) file(s store) error {
	if path.Base(s.at) == trust.BrowserPolicy {
		c.warnings = append(c.warnings, fmt.Sprintf("browsers do not trust the sandbox's CA: %s cannot be an overlay", path.Dir(s.at)))
		return nil
	}
	data, err := readSeen(c.spec, c.root, s.at, trust.MaxStore)
	if err != nil {
		return err
	}
	name := filepath.Join(c.dir, fmt.Sprintf("store-%d", len(c.Files)))
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return fmt.Errorf("write the container's CA store: %w", err)
	}
	// Independent of the umask, because every user of the container reads it.
	if err := os.Chmod(name, 0o644); err != nil {
		return fmt.Errorf("write the container's CA store: %w", err)
	}
	c.Files = append(c.Files, name)
	c.mounts = append(c.mounts, specs.Mount{Destination: s.at, Type: "bind", Source: name, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	if slices.Contains(caBundles, s.at) {
		c.paths = append(c.paths, s.at)
	}
	return nil
}

// release unmounts the overlays from the host. A container keeps the overlays that it has, and
// its guard keeps the mark of the root filesystem (trust.Share).
func (c *containerStores) release() {
	if c.shared != nil {
		_ = c.shared.Close()
		c.shared = nil
	}
	c.unmount()
}

// unmount unmounts the overlays from the host, if they are mounted.
func (c *containerStores) unmount() {
	if c.overlay != "" {
		unmountStores(c.dir)
		c.overlay = ""
	}
}

// unmountStores unmounts the overlays in a sandbox's folder from the host. It does nothing if
// there are none.
func unmountStores(dir string) {
	_ = unix.Unmount(filepath.Join(dir, proxyapi.StoresDir), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}
