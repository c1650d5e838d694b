// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// writableEtc is netPolicy for a workload that may write where packages do.
var writableEtc = strings.Replace(netPolicy, "read_write: [/tmp]", "read_write: [/tmp, /etc, /usr]", 1)

// newBundle is a bundle as a package brings it, in a file beside the bundle.
const newBundle = "/etc/ssl/certs/ca-certificates.crt.new"

// authority is the sandbox's CA (PEM).
func (b *box) authority() string {
	b.t.Helper()
	ca, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.CACertFile))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(ca))
}

// sees is the content of a file as the container has it.
func (b *box) sees(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", b.init(), name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// layer is the content of a file of the root filesystem on the host, "" if there is none.
func (w *world) layer(name string) string {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.rootfs, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return string(data)
}

// packaged is a box whose image has the bundle of the next version of its package.
func packaged(t *testing.T, o boxOptions) *box {
	t.Helper()
	o.policy = writableEtc
	more := o.files
	o.files = func(rootfs string) {
		text, err := os.ReadFile(filepath.Join(rootfs, debianBundle))
		if err == nil {
			err = os.WriteFile(filepath.Join(rootfs, newBundle), append([]byte("# of the package\n"), text...), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		if more != nil {
			more(rootfs)
		}
	}
	return newBox(t, o)
}

// replaceBundle renames the package's bundle over the one that is there.
func (b *box) replaceBundle() {
	b.t.Helper()
	if out := b.exec("/bin/probe", "rename", newBundle, debianBundle); !strings.HasPrefix(out, "ok") {
		b.t.Fatalf("rename over the bundle: %s", out)
	}
	b.until("the package's bundle has the CA", func() bool {
		text := b.sees(debianBundle)
		return strings.HasPrefix(text, "# of the package") && strings.Contains(text, b.authority())
	})
	b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
}

// TestTrustRenameOver (issue 11, point 5): a package replaces its bundle by rename; the CA is trusted
// after it, and the layer gets the package's bundle without the CA.
func TestTrustRenameOver(t *testing.T) {
	t.Parallel()
	b := packaged(t, boxOptions{})
	before := b.layer(debianBundle)
	if !strings.Contains(b.sees(debianBundle), b.authority()) || strings.Contains(before, b.authority()) {
		t.Fatal("the CA is not in the container's bundle, or it is in the layer")
	}
	if out := b.exec("/bin/probe", "symlink", "nowhere", "/etc/ssl/certs/link"); !strings.HasPrefix(out, "ok") {
		t.Error(out)
	}
	b.replaceBundle()
	if b.layer(debianBundle) != before {
		t.Error("the layer was changed while the container runs")
	}
	for _, verb := range []string{"pause", "resume"} {
		if out, err := b.runtime(verb, b.id); err != nil || out != "" {
			t.Fatalf("%s: %v: %s", verb, err, out)
		}
	}
	check := func() {
		t.Helper()
		text := b.layer(debianBundle)
		if !strings.HasPrefix(text, "# of the package") || strings.Contains(text, b.authority()) || !strings.Contains(text, strings.TrimSpace(string(b.up.CA))) {
			t.Errorf("the layer's bundle:\n%s", text)
		}
		names, err := os.ReadDir(filepath.Join(b.rootfs, "etc/ssl/certs"))
		if err != nil || len(names) != 2 { // and the link
			t.Errorf("the layer has %v, %v", names, err)
		}
	}
	check()
	b.authority()
	// And again, at its end: a bundle that was changed in place, by another name.
	if out := b.exec("/bin/probe", "copy", debianBundle, newBundle); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	if out := b.exec("/bin/probe", "rename", newBundle, debianBundle); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	ca := b.authority()
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	if text := b.layer(debianBundle); strings.Contains(text, ca) || !strings.HasPrefix(text, "# of the package") {
		t.Errorf("after the end, the layer's bundle:\n%s", text)
	}
	b.gone()
}

// TestTrustNoTrace (issue 11, point 5): what the container sees of its stores leaves nothing in the layer,
// with and without an image's own CAs, and read-only.
func TestTrustNoTrace(t *testing.T) {
	t.Parallel()
	none := func(rootfs string) {
		if err := os.RemoveAll(filepath.Join(rootfs, "etc/ssl")); err != nil {
			t.Fatal(err)
		}
	}
	for name, o := range map[string]boxOptions{
		"CAs": {}, "CAs, read-only": {readonly: true}, "none": {files: none}, "none, read-only": {files: none, readonly: true},
		"an empty folder": {files: func(rootfs string) {
			none(rootfs)
			if err := os.MkdirAll(filepath.Join(rootfs, "etc/ssl/certs"), 0o755); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := boxOf(t, o)
			before := tree(t, b.rootfs)
			if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			if !strings.Contains(b.sees(debianBundle), b.authority()) {
				t.Error("the CA is not in the container's bundle")
			}
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
			if out, err := b.runtime("delete", "--force", b.id); err != nil {
				t.Fatalf("delete: %v: %s", err, out)
			}
			if after := tree(t, b.rootfs); !slices.Equal(before, after) {
				t.Errorf("the layer was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		})
	}
}

// tree lists the files of a root filesystem with their sizes and times. Mount points that
// config.json asks for are left out: every runtime makes them.
func tree(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if slices.Contains([]string{"", "/proc", "/dev", "/etc", "/etc/hosts", "/etc/resolv.conf"}, name) {
			return nil
		}
		st, err := d.Info()
		if err == nil {
			out = append(out, fmt.Sprint(name, st.Mode(), st.Size(), st.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTrustPackageInstalled (issue 11, point 5): an image without CAs gets them from a package while the
// container runs.
func TestTrustPackageInstalled(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: writableEtc, files: func(rootfs string) {
		text, err := os.ReadFile(filepath.Join(rootfs, debianBundle))
		err = errors.Join(err, os.RemoveAll(filepath.Join(rootfs, "etc/ssl")), os.WriteFile(filepath.Join(rootfs, "etc/package"), text, 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}})
	if out := b.exec("/bin/probe", "copy", "/etc/package", newBundle); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	if out := b.exec("/bin/probe", "rename", newBundle, debianBundle); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	own := strings.TrimSpace(string(b.up.CA))
	b.until("the package's bundle has the CA", func() bool {
		text := b.sees(debianBundle)
		return strings.Contains(text, own) && strings.Contains(text, b.authority())
	})
	b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
	ca := b.authority()
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	if text := b.layer(debianBundle); !strings.Contains(text, own) || strings.Contains(text, ca) {
		t.Errorf("the layer's bundle:\n%s", text)
	}
}

// TestTrustGuardKilled (issue 11, point 5): a guard that takes another's place adds the CA as well, and not
// to folders that the workload has put in the place of the sandbox's.
func TestTrustGuardKilled(t *testing.T) {
	t.Parallel()
	standby := func(b *box) {
		first := b.guard()
		b.until("the standby waits", func() bool {
			text, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.StandbyLockFile))
			return err == nil && len(text) > 0 && len(b.proxies()) == 3
		})
		kill(t, first, unix.SIGKILL)
		b.until("another guard has its place", func() bool { return b.guard() != first })
	}
	t.Run("the package's bundle", func(t *testing.T) {
		t.Parallel()
		b := packaged(t, boxOptions{})
		standby(b)
		b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
		b.replaceBundle()
	})
	t.Run("another folder", func(t *testing.T) {
		t.Parallel()
		b := packaged(t, boxOptions{})
		before := b.layer(debianBundle)
		if out := b.exec("/bin/probe", "rename", "/etc/ssl", "/etc/moved"); !strings.HasPrefix(out, "ok") {
			t.Fatal(out)
		}
		// Where an absolute link leads on the host is not the container's.
		outside := t.TempDir()
		victim := filepath.Join(outside, "certs/ca-certificates.crt")
		if err := errors.Join(os.Mkdir(filepath.Dir(victim), 0o755), os.WriteFile(victim, []byte("outside\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if out := b.exec("/bin/probe", "symlink", outside, "/etc/ssl"); !strings.HasPrefix(out, "ok") {
			t.Fatal(out)
		}
		standby(b)
		b.until("the guard finds that the folder is not the sandbox's", func() bool {
			text, err := os.ReadFile(filepath.Join(b.records(), b.id, "proxy.log"))
			return err == nil && strings.Contains(string(text), "changes of CA stores are not seen")
		})
		if out, err := b.runtime("delete", "--force", b.id); err != nil {
			t.Fatalf("delete: %v: %s", err, out)
		}
		if text, err := os.ReadFile(victim); err != nil || string(text) != "outside\n" {
			t.Errorf("a file of the host is %q, %v", text, err)
		}
		if b.layer("/etc/moved/certs/ca-certificates.crt") != before {
			t.Error("the layer's bundle was changed")
		}
	})
}

// TestTrustFileMount (issue 11, point 5): where config.json mounts a folder of stores itself, the bundle is
// a file mount as before, and the runtime says so.
func TestTrustFileMount(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	b := boxOf(t, boxOptions{policy: writableEtc, spec: func(spec map[string]any) {
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any{"destination": "/etc/ssl/certs", "type": "bind", "source": volume, "options": []string{"bind", "rw"}})
	}})
	if err := os.WriteFile(filepath.Join(volume, "ca-certificates.crt.new"), b.up.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err != nil || !strings.Contains(out, debianBundle+" cannot be replaced by packages") || !strings.Contains(out, "config.json mounts /etc/ssl/certs") {
		t.Fatalf("run: %v: %s", err, out)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if out := b.exec("/bin/probe", "rename", newBundle, debianBundle); !strings.HasPrefix(out, "error: EBUSY") {
		t.Errorf("rename over the mount: %s", out)
	}
}

// TestTrustHostileImage (issue 11, point 5): an image whose stores are no files, or lead elsewhere, gets its
// sandbox, and nothing outside the stores' folders is changed.
func TestTrustHostileImage(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]func(rootfs string) error{
		"a pipe": func(r string) error {
			return errors.Join(os.Remove(filepath.Join(r, debianBundle)), unix.Mkfifo(filepath.Join(r, debianBundle), 0o644))
		},
		"a folder": func(r string) error {
			return errors.Join(os.Remove(filepath.Join(r, debianBundle)), os.Mkdir(filepath.Join(r, debianBundle), 0o755))
		},
		"a link to passwd": func(r string) error {
			return errors.Join(os.Remove(filepath.Join(r, debianBundle)), os.Symlink("/etc/passwd", filepath.Join(r, debianBundle)))
		},
		"a folder that is a link": func(r string) error {
			return errors.Join(os.Rename(filepath.Join(r, "etc/ssl/certs"), filepath.Join(r, "etc/certs")), os.Symlink("/etc/certs", filepath.Join(r, "etc/ssl/certs")))
		},
		"a folder that is a link to the root": func(r string) error {
			return errors.Join(os.RemoveAll(filepath.Join(r, "etc/ssl/certs")), os.Symlink("/", filepath.Join(r, "etc/ssl/certs")))
		},
		"keystores": func(r string) error {
			dir := filepath.Join(r, "usr/lib/jvm")
			var errs []error
			for name, text := range map[string]string{
				"junk": "junk", "jks": "\xfe\xed\xfe\xed\x00\x00\x00\x02\xff\xff\xff\xff", "jceks": "\xce\xce\xce\xce", "der": "\x30\x84\xff\xff\xff\xff", "none": "",
			} {
				file := filepath.Join(dir, name, "lib/security/cacerts")
				errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644))
			}
			file := filepath.Join(dir, "pipe/lib/security/cacerts")
			errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), unix.Mkfifo(file, 0o644))
			errs = append(errs, os.Symlink("../../..", filepath.Join(dir, "loop")), os.Symlink("/", filepath.Join(dir, "root")))
			return errors.Join(errs...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := boxOf(t, boxOptions{policy: writableEtc, files: func(rootfs string) {
				if err := files(rootfs); err != nil {
					t.Fatal(err)
				}
			}})
			passwd := b.layer("/etc/passwd")
			out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
			if name == "a folder" {
				// Neither today's programs nor the CA have a place there.
				if err == nil {
					t.Error("the sandbox was made without a bundle")
				}
				return
			}
			if err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			if out, err := b.runtime("delete", "--force", b.id); err != nil {
				t.Fatalf("delete: %v: %s", err, out)
			}
			if b.layer("/etc/passwd") != passwd {
				t.Errorf("/etc/passwd is\n%s", b.layer("/etc/passwd"))
			}
		})
	}
}

// TestTrustKeystores (issue 11, point 4): the keystores of an image have the sandbox's CA, wherever a JDK
// keeps its own, and the layer's do not.
func TestTrustKeystores(t *testing.T) {
	t.Parallel()
	// A keystore without entries, with the password of the JDK's.
	empty := []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x00")
	sum := sha1.Sum(slices.Concat([]byte("\x00c\x00h\x00a\x00n\x00g\x00e\x00i\x00tMighty Aphrodite"), empty))
	empty = append(empty, sum[:]...)
	stores := []string{"/etc/ssl/certs/java/cacerts", "/usr/lib/jvm/b/lib/security/cacerts", "/opt/java/openjdk/lib/security/cacerts", "/opt/jdk8/jre/lib/security/cacerts", "/srv/jdk/lib/security/cacerts"}
	b := newBox(t, boxOptions{policy: strings.Replace(writableEtc, "/usr]", "/usr, /opt, /srv]", 1), env: []string{"JAVA_HOME=/srv/jdk"}, files: func(rootfs string) {
		var errs []error
		for _, s := range stores {
			file := filepath.Join(rootfs, s)
			errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, empty, 0o644))
		}
		// As Debian's JDK.
		link := filepath.Join(rootfs, "usr/lib/jvm/a/lib/security/cacerts")
		errs = append(errs, os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink("/etc/ssl/certs/java/cacerts", link))
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}})
	block, _ := pem.Decode([]byte(b.authority()))
	for _, s := range stores {
		if !strings.Contains(b.sees(s), string(block.Bytes)) {
			t.Errorf("%s has not the CA", s)
		}
		if b.layer(s) != string(empty) {
			t.Errorf("%s of the layer was changed", s)
		}
	}
	// A program changes one, as keytool does: a new file, renamed over it.
	if out := b.exec("/bin/probe", "copy", "/opt/jdk8/jre/lib/security/cacerts", "/opt/java/openjdk/lib/security/cacerts.tmp"); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	if out := b.exec("/bin/probe", "rename", "/opt/java/openjdk/lib/security/cacerts.tmp", "/opt/java/openjdk/lib/security/cacerts"); !strings.HasPrefix(out, "ok") {
		t.Fatal(out)
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	for _, s := range stores {
		if b.layer(s) != string(empty) {
			t.Errorf("%s of the layer was changed at the end", s)
		}
	}
}

// TestTrustDocker (issue 11, point 5): in Docker, `docker diff` and `docker commit` show what the workload
// has written and nothing of the sandbox.
func TestTrustDocker(t *testing.T) {
	w := newWorld(t, writableEtc)
	ca := string(startUpstream(t).CA)
	w.imageFile(debianBundle, ca)
	w.imageFile(newBundle, "# of the package\n"+ca)
	e := startDocker(t, map[string]string{"openshell": strings.Replace(testPolicy, "/tmp, ", "/tmp, /etc, ", 1)})
	e.importImage("cas", w.rootfs)
	if err := os.RemoveAll(filepath.Join(w.rootfs, "etc/ssl")); err != nil {
		t.Fatal(err)
	}
	e.importImage("none", w.rootfs)
	run := func(name, image string) {
		t.Helper()
		e.must("run", "--detach", "--name", name, "--runtime", "openshell", image, "/bin/probe", "serve", "8080")
		t.Cleanup(func() { e.docker("rm", "--force", name) })
		e.until("the server serves", func() bool { return strings.Contains(e.must("logs", name), "serving") })
	}
	run("box", "cas")
	if out := e.must("diff", "box"); out != "" {
		t.Errorf("docker diff of a container that has written nothing:\n%s", out)
	}
	if out, status := e.docker("exec", "box", "/bin/probe", "rename", newBundle, debianBundle); status != 0 {
		t.Fatal(out)
	}
	e.must("commit", "box", "committed")
	e.must("create", "--name", "look", "committed", "/bin/probe")
	t.Cleanup(func() { e.docker("rm", "--force", "look") })
	if text := e.file("look", debianBundle); text != "# of the package\n"+ca {
		t.Errorf("the committed image's bundle:\n%s", text)
	}
	e.must("stop", "--time", "0", "box")
	if out := e.must("diff", "box"); !strings.Contains(out, "C "+debianBundle) || !strings.Contains(out, "D "+newBundle) || strings.Contains(out, "openshell") {
		t.Errorf("docker diff at the end:\n%s", out)
	}
	run("bare", "none")
	e.must("stop", "--time", "0", "bare")
	if out := e.must("diff", "bare"); out != "" {
		t.Errorf("docker diff of an image without CAs:\n%s", out)
	}
	e.must("start", "box")
	e.until("the server serves again", func() bool { return strings.Count(e.must("logs", "box"), "serving") == 2 })
	if out, status := e.docker("exec", "box", "/bin/probe", "cat", debianBundle); status != 0 || strings.Count(out, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("the bundle after a restart: %s", out)
	}
	for _, name := range []string{"box", "bare", "look"} {
		e.must("rm", "--force", name)
	}
	e.nothingRemains()
}

// file is the content of a container's file.
func (e *engine) file(container, name string) string {
	e.t.Helper()
	out, err := exec.Command("docker", "--host", "unix://"+e.socket(), "cp", container+":"+name, "-").Output()
	if err != nil {
		e.t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(out))
	if _, err := r.Next(); err != nil {
		e.t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}

// TestTrustUserNamespace (issue 11, point 5): a container in a user namespace replaces its bundle as well,
// and what it writes belongs to its user on the host.
func TestTrustUserNamespace(t *testing.T) {
	t.Parallel()
	const first = 100000
	b := packaged(t, boxOptions{
		files: func(rootfs string) {
			err := filepath.WalkDir(rootfs, func(path string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Lchown(path, first, first))
			})
			// The container's root is nobody on the way to its root filesystem.
			for dir := filepath.Dir(rootfs); dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
				err = errors.Join(err, os.Chmod(dir, 0o755))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		spec: userNamespace(first),
	})
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	b.replaceBundle()
	ca := b.authority()
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	if text := b.layer(debianBundle); strings.Contains(text, ca) || !strings.HasPrefix(text, "# of the package") {
		t.Errorf("the layer's bundle:\n%s", text)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.rootfs, debianBundle), &st); err != nil || st.Uid != first || st.Gid != first {
		t.Errorf("the layer's bundle belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// userNamespace adds a user namespace whose root is the user and the group first of the host.
func userNamespace(first int) func(spec map[string]any) {
	return func(spec map[string]any) {
		linux := spec["linux"].(map[string]any)
		linux["namespaces"] = append(linux["namespaces"].([]any), map[string]any{"type": "user"})
		ids := []any{map[string]any{"containerID": 0, "hostID": first, "size": 65536}}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
	}
}

// TestTrustUserNamespaceWithoutStore: a container in a user namespace starts although root
// of it may not create the folder for the CA in the root filesystem, which is the host's
// root's. A package of it can write into that folder.
func TestTrustUserNamespaceWithoutStore(t *testing.T) {
	t.Parallel()
	const first = 100000
	b := newBox(t, boxOptions{policy: writableEtc, spec: userNamespace(first), files: func(rootfs string) {
		text, err := os.ReadFile(filepath.Join(rootfs, debianBundle))
		err = errors.Join(err, os.RemoveAll(filepath.Join(rootfs, "etc/ssl")), os.WriteFile(filepath.Join(rootfs, "etc/package"), text, 0o644),
			os.WriteFile(filepath.Join(rootfs, "etc/hosts"), nil, 0o644), os.WriteFile(filepath.Join(rootfs, "etc/resolv.conf"), nil, 0o644)) // mountpoints of the test's own
		for dir := filepath.Dir(rootfs); dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
			err = errors.Join(err, os.Chmod(dir, 0o755)) // the container's root is nobody there
		}
		if err != nil {
			t.Fatal(err)
		}
	}})
	b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
	for _, command := range [][]string{{"copy", "/etc/package", newBundle}, {"rename", newBundle, debianBundle}} {
		if out := b.exec(append([]string{"/bin/probe"}, command...)...); !strings.HasPrefix(out, "ok") {
			t.Fatal(out)
		}
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.rootfs, debianBundle), &st); err != nil || st.Uid != first {
		t.Errorf("the layer's bundle belongs to %d, %v", st.Uid, err)
	}
}

// TestTrustNoOverlay (issue 11, point 5): on a root filesystem that no further overlay can stand on, the
// stores are file mounts, and the runtime says so.
func TestTrustNoOverlay(t *testing.T) {
	t.Parallel()
	var top string
	b := boxOf(t, boxOptions{
		policy: writableEtc,
		files: func(rootfs string) {
			top = rootfs
			for range 2 { // the kernel's limit
				dir := t.TempDir()
				at := filepath.Join(dir, "root")
				err := errors.Join(os.Mkdir(at, 0o755), os.Mkdir(filepath.Join(dir, "upper"), 0o755), os.Mkdir(filepath.Join(dir, "work"), 0o755))
				if err == nil {
					err = unix.Mount("test", at, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", top, dir, dir))
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
				top = at
			}
		},
		spec: func(spec map[string]any) { spec["root"].(map[string]any)["path"] = top },
	})
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err != nil || !strings.Contains(out, "each CA store of the image cannot be replaced by packages") {
		t.Fatalf("run: %v: %s", err, out)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	b.allowed("/bin/probe", "bare", "/bin/probe", "http", "GET", "https://api.test/ok/1")
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
}

// TestBypass_B51_MovedCAFolder: a folder of the image that the workload renames to the name
// of a CA folder is as it was after the container's end.
func TestBypass_B51_MovedCAFolder(t *testing.T) {
	t.Parallel()
	b := packaged(t, boxOptions{files: func(rootfs string) {
		dir := filepath.Join(rootfs, "etc/ssl.new/certs")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "precious.pem"), []byte("precious"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}})
	b.replaceBundle()
	for _, names := range [][2]string{{"/etc/ssl", "/etc/ssl.old"}, {"/etc/ssl.new", "/etc/ssl"}} {
		if out := b.exec("/bin/probe", "rename", names[0], names[1]); !strings.HasPrefix(out, "ok") {
			t.Fatalf("rename %s: %s", names[0], out)
		}
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatal(err, out)
	}
	names, err := os.ReadDir(filepath.Join(b.rootfs, "etc/ssl/certs"))
	if err != nil || len(names) != 1 || names[0].Name() != "precious.pem" {
		t.Errorf("the folder has %v, %v", names, err)
	}
}
