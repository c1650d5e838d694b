// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// TestDeviceOfImage: the runtime and the proxy, which are root of the host, never open a device node or a FIFO
// that a file of the image leads to: to open a device (a watchdog, a tape) can have an effect on the host.
func TestDeviceOfImage(t *testing.T) {
	t.Parallel()
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	opened := func() bool {
		n, _ := unix.Read(events, make([]byte, 4096))
		return n > 0
	}
	var device string
	b := boxOf(t, boxOptions{policy: writableEtc, files: func(rootfs string) {
		device = filepath.Join(rootfs, "device")
		pipe := filepath.Join(rootfs, "pipe")
		err := errors.Join(unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))), unix.Mkfifo(pipe, 0o600))
		for name, to := range map[string]string{debianBundle: "/device", "etc/ssl/cert.pem": "/pipe", "etc/hosts": "/device", "etc/resolv.conf": "/pipe"} {
			at := filepath.Join(rootfs, name)
			if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			err = errors.Join(err, os.Symlink(to, at))
		}
		for _, watched := range []string{device, pipe} {
			_, watch := unix.InotifyAddWatch(events, watched, unix.IN_OPEN)
			err = errors.Join(err, watch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}})
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Errorf("run: %v: %s", err, out)
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	if opened() {
		t.Error("a device or a FIFO of the image was opened")
	}
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !opened() {
		t.Error("the watch does not see an open")
	}
}
