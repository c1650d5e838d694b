// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/libsandbox/plan"
)

// inMounts runs f on a thread that has its own mount namespace, in which /run, /var/lib, /srv
// and /mnt are empty. The thread and its mounts end with f.
func inMounts(t *testing.T, f func()) {
	t.Helper()
	testenv.Require(t, testenv.Root)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		for _, dir := range []string{"/run", "/var/lib", "/srv", "/mnt"} {
			if err == nil {
				err = unix.Mount("tmpfs", dir, "tmpfs", 0, "")
			}
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// must fails the test for any error; it may be called on any goroutine.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func bind(from, to string, flags uintptr) error {
	return errors.Join(os.MkdirAll(to, 0o755), unix.Mount(from, to, "", unix.MS_BIND|flags, ""))
}

// specOf returns a config.json with one bind mount.
func specOf(root, source string, options ...string) *specs.Spec {
	return &specs.Spec{
		Root: &specs.Root{Path: root}, Process: &specs.Process{}, Linux: &specs.Linux{},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/at", Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)},
		},
	}
}

// guardOf returns guarded folders that log_dir names.
func guardOf(paths ...string) (out []guardedFolder) {
	for _, p := range paths {
		out = append(out, guardedFolder{p, "log_dir"})
	}
	return out
}

// refused returns the field and the reason of the refusal of s, or "" if s is accepted.
func refused(t *testing.T, s *specs.Spec, guarded ...string) (field, reason string) {
	t.Helper()
	checked, err := checkMountSources(s, nil, guardOf(guarded...))
	if err == nil {
		checked.close()
		return "", ""
	}
	var r *plan.Refusal
	if !errors.As(err, &r) {
		t.Errorf("%v: %v", s.Mounts[1], err)
		return "", ""
	}
	return r.Field, r.Reason
}

// TestBypass_B45_MountSources: a source is judged by the opened file, not only by its path.
// An engine's folder, a folder above it and parts of the kernel's file systems are refused,
// also through links, bind mounts and mounts below. The mounts of engines are accepted.
func TestBypass_B45_MountSources(t *testing.T) {
	inMounts(t, func() {
		for _, dir := range []string{
			"/var/lib/kubelet/pods/u/volumes/p/v", "/var/lib/kubelet/device-plugins", "/var/lib/docker/volumes/v/_data", "/var/lib/docker/containers/c/mounts/shm",
			"/run/k3s/containerd", "/run/mysqld", "/srv/data/folder", "/srv/links", "/srv/with/proc", "/srv/root", "/srv/guarded/inner", "/srv/state/@sandbox/box",
		} {
			must(t, os.MkdirAll(dir, 0o755))
		}
		for _, file := range []string{"/var/lib/docker/containers/c/hosts", "/srv/data/file", "/srv/null"} {
			must(t, os.WriteFile(file, nil, 0o644))
		}
		must(t,
			os.Symlink("/run", "/srv/links/run"),
			os.Symlink("/srv/links/run/k3s", "/srv/links/second"),
			os.Symlink("/run/mysqld", "/srv/links/mysqld"),
			os.Symlink("/var/lib/docker/volumes/v/_data", "/srv/links/volume"),
			bind("/run", "/mnt/run", unix.MS_REC),
			bind("/mnt/run", "/mnt/twice", 0),
			bind("/var/lib/kubelet/device-plugins", "/mnt/plugins", 0),
			bind("/var/lib", "/mnt/lib", 0),
			bind("/var/lib/docker/volumes", "/mnt/volumes", 0),
			bind("/run/k3s", "/srv/holds/deep/k3s", 0),
			bind("/proc", "/mnt/proc", unix.MS_REC),
			bind("/proc", "/srv/with/proc", 0),
			bind("/dev/pts", "/mnt/pts", 0),
			bind("/srv/state/@sandbox", "/mnt/state", 0),
			bind("/srv/guarded", "/mnt/guarded", 0),
			unix.Mount("/dev/null", "/srv/null", "", unix.MS_BIND, ""),
		)
		// Docker mounts a part of a volume, or a file of it, at such a path.
		for at, from := range map[string]string{"good": "/var/lib/docker/volumes/v/_data", "device": "/srv/data", "container": "/var/lib/docker/containers/c", "run": "/run"} {
			must(t, bind(from, "/var/lib/docker/tmp/safe-mount-"+at, 0))
		}
		must(t, os.WriteFile("/var/lib/docker/tmp/safe-mount-file", nil, 0o644),
			unix.Mount("/srv/data/file", "/var/lib/docker/tmp/safe-mount-file", "", unix.MS_BIND, ""))
		// A named volume of another device: Docker mounts it at the volume's folder.
		must(t, os.MkdirAll("/var/lib/docker/volumes/device/_data", 0o755), bind("/srv/data", "/var/lib/docker/volumes/device/_data", 0),
			os.MkdirAll("/var/lib/docker/volumes/evil/_data", 0o755), bind("/run", "/var/lib/docker/volumes/evil/_data", 0))
		cwd, err := os.Getwd()
		must(t, err)
		up := strings.Repeat("../", strings.Count(cwd, "/"))
		for source, want := range map[string]bool{
			"/": true, "/run": true, "/run/": true, "/run/.": true, "//run": true, "/run/k3s": true, "/run/k3s/containerd": true, "/var/run": true,
			"/run/mysqld/..": true, "/srv/links/mysqld/..": true, "/srv/data/../../run": true, up + "run": true,
			"/srv/links/run": true, "/srv/links/run/": true, "/srv/links/second": true, "/proc/self/root/run": true,
			"/mnt": true, "/mnt/run": true, "/mnt/run/k3s": true, "/mnt/twice": true, "/mnt/plugins": true, "/mnt/lib": true, "/mnt/volumes": true,
			"/srv/holds": true, "/srv/holds/deep": true, "/srv/holds/deep/k3s/containerd": true,
			"/mnt/proc": true, "/mnt/proc/sys": true, "/srv/with": true, "/sys/kernel": true,
			"/var/lib/kubelet": true, "/var/lib/kubelet/pods": true, "/var/lib/docker": true, "/var/lib": true,
			"/var/lib/docker/volumes/evil/_data": true,
			"/var/lib/docker/tmp/safe-mount-run": true, "/var/lib/docker/tmp/safe-mount-container": true, "/var/lib/docker/tmp": true,
			"/dev": true, "/dev/": true, "/dev/pts": true, "/mnt/pts": true,
			"/srv/state/@sandbox/box": true, "/mnt/state": true, "/mnt/state/box": true,
			"/srv/guarded": true, "/srv/guarded/inner": true, "/mnt/guarded/inner": true, "/srv": true,

			"/srv/data": false, "/srv/data/": false, "/srv/data/file": false, up + "srv/data": false, "/srv/links": false, "/srv/links/volume": false,
			"/run/mysqld": false, "/srv/links/mysqld": false, "/srv/null": false, "/dev/null": false, "/dev/shm": false, "/missing": false,
			"/var/lib/kubelet/pods/u/volumes/p/v": false, "/var/lib/docker/volumes/v/_data": false, "/mnt/volumes/v/_data": false,
			"/var/lib/docker/tmp/safe-mount-good": false, "/var/lib/docker/tmp/safe-mount-device": false, "/var/lib/docker/tmp/safe-mount-file": false,
			"/var/lib/docker/volumes/device/_data": false, "/var/lib/docker/containers/c/hosts": false, "/var/lib/docker/containers/c/mounts/shm": false,
		} {
			field, reason := refused(t, specOf("/srv/root", source), "/srv/guarded")
			if (field == fieldMounts) != want {
				t.Errorf("%s: refused by %q %s", source, field, reason)
			}
			checked, err := checkMountSources(specOf("/srv/root", source), []string{fieldMounts}, guardOf("/srv/guarded"))
			if err != nil {
				t.Errorf("%s: allowed by the operator, still refused: %v", source, err)
				continue
			}
			if accepted := strings.Join(checked.accepted, "\n"); want != strings.HasPrefix(accepted, "mounts: mounts[1] ") || strings.Count(accepted, "mounts[1]") > 1 {
				t.Errorf("%s: allowed by the operator, recorded as accepted: %q", source, accepted)
			}
			checked.close()
		}
		// A mount that is not recursive does not show the mounts below.
		s := specOf("/srv/root", "/srv/holds")
		s.Mounts[1].Options = []string{"bind"}
		if field, reason := refused(t, s); field != "" {
			t.Errorf("refused by %q %s", field, reason)
		}
		for root, want := range map[string]bool{
			"/": true, "/run": true, "/mnt/run": true, "/var": true, "/mnt/lib": true, "/proc": true, "/srv/links/run": true,
			"/srv/root": false, "/var/lib/docker/volumes/v/_data": false, "/missing": false,
		} {
			if field, reason := refused(t, specOf(root, "/srv/data")); (field == fieldRoot) != want {
				t.Errorf("root file system %s: refused by %q %s", root, field, reason)
			}
		}
		testMountsBelowRoot(t)
	})
}

// testMountsBelowRoot mounts folders of the host below root file systems. The container
// gets them unless a mount or a mask of config.json covers them.
func testMountsBelowRoot(t *testing.T) {
	l, err := net.Listen("unix", "/srv/plain")
	must(t, err)
	defer l.Close()
	covered := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
	}
	for i, tc := range []struct {
		source, at string
		edit       func(*specs.Spec)
		want       bool
	}{
		{"/run", "/run", nil, true},
		{"/var/lib", "/a/b/c", nil, true},
		{"/", "/host", nil, true},
		{"/run/k3s", "/k3s", nil, true},
		{"/dev", "/dev", nil, true},
		{"/dev/pts", "/pts", nil, true},
		{"/sys", "/sys", nil, true},
		{"/proc", "/host", nil, true},
		{"/srv/state/@sandbox", "/state", nil, true},
		{"/srv/guarded", "/records", nil, true},
		{"/srv", "/srv", nil, true},
		{"/srv/plain", "/socket", nil, true},
		{"/srv/data", "/run", nil, false},
		{"/srv/data/file", "/file", nil, false},
		{"/var/lib/docker/volumes/v/_data", "/run", nil, false},

		{"/proc", "/proc", nil, false},
		{"/run", "/at", nil, false},
		{"/run", "/at/deep/run", nil, false},
		{"/run", "/atx", nil, true},
		{"/run", "/run", covered(specs.Mount{Destination: "run/.//", Type: "tmpfs"}), false},
		{"/run", "/run", covered(specs.Mount{Destination: "/run/inner", Type: "tmpfs"}), true},
		{"/run", "/run", covered(specs.Mount{Destination: "/run", Type: "tmpfs", Options: []string{"tmpcopyup"}}), true},
		{"/run", "/run", covered(specs.Mount{Destination: "/run", Type: "tmpfs", Options: []string{"remount"}}), true},
		{"/run", "/run", covered(specs.Mount{Destination: "/link/../run", Type: "tmpfs"}), true},
		{"/run", "/run", covered(specs.Mount{Destination: "/", Type: "tmpfs"}), true},
		{"/run", "/run", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/run"} }, false},
		{"/run", "/run", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/link/../run"} }, true},
	} {
		for _, root := range []string{fmt.Sprintf("/srv/roots/%d", i), fmt.Sprintf("/var/lib/docker/overlay2/%d/merged", i)} {
			at := filepath.Join(root, tc.at)
			if st, err := os.Stat(tc.source); err == nil && !st.IsDir() {
				must(t, os.MkdirAll(root, 0o755), os.WriteFile(at, nil, 0o644), unix.Mount(tc.source, at, "", unix.MS_BIND, ""))
			} else {
				must(t, bind(tc.source, at, 0))
			}
			s := specOf(root, "/srv/data")
			if tc.edit != nil {
				tc.edit(s)
			}
			if field, reason := refused(t, s, "/srv/guarded"); (field == fieldRoot) != tc.want {
				t.Errorf("%s at %s in %s: refused by %q %s", tc.source, tc.at, root, field, reason)
			}
			must(t, unix.Unmount(at, 0))
		}
	}
	// libcontainer strips the root's path from a destination: this one is /srv/root/run.
	must(t, bind("/run", "/srv/root/srv/root/run", 0))
	s := specOf("/srv/root", "/srv/data")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/srv/root/run", Type: "tmpfs"})
	if field, _ := refused(t, s); field != fieldRoot {
		t.Errorf("refused by %q", field)
	}
}

// TestBypass_B45_SocketsInTheRoot: a root file system in which an engine listens is
// refused, also if it listens in a mount below the root. Other listeners are recorded.
func TestBypass_B45_SocketsInTheRoot(t *testing.T) {
	for _, tc := range []struct {
		name, root, socket string
		hide               string
		dead               bool
		want               string
		recorded           int
	}{
		{"an engine's", "/srv/root", "/srv/root/a/docker.sock", "", false, "listens at /srv/root/a/docker.sock (a/docker.sock)", 0},
		{"a bus", "/srv/root", "/srv/root/run/user/bus", "", false, "listens", 0},
		{"covered", "/srv/root", "/srv/root/a/docker.sock", "/a", false, "", 0},
		{"from an earlier run", "/srv/root", "/srv/root/docker.sock", "", true, "", 0},
		{"a database's", "/srv/root", "/srv/root/a/mysqld.sock", "", false, "", 1},
		{"in an engine's folder", "/var/lib/docker/overlay2/x/merged", "/var/lib/docker/overlay2/x/merged/a/mysqld.sock", "", false, "", 1},
		{"an engine's in an engine's folder", "/var/lib/docker/overlay2/x/merged", "/var/lib/docker/overlay2/x/merged/a/docker.sock", "", false, "listens", 0},
		{"beside it", "/srv/root", "/srv/rootx/docker.sock", "", false, "", 0},
		{"in a mount below", "/srv/root", "/srv/below/docker.sock", "", false, "listens", 0},
		{"deep in a mount below", "/srv/root", "/srv/below/a/b/docker.sock", "", false, "listens", 0},
		{"at a usual place below", "/srv/root", "/srv/below/docker/docker.sock", "", true, "listens", 0},
		{"a database's below", "/srv/root", "/srv/below/mysqld.sock", "", false, "", 1},
		{"below and covered", "/srv/root", "/srv/below/a/docker.sock", "/below/a", false, "", 0},
		{"usual and covered", "/srv/root", "/srv/below/docker/docker.sock", "/below/docker", true, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inMounts(t, func() {
				must(t, os.MkdirAll(tc.root, 0o755), os.MkdirAll(filepath.Dir(tc.socket), 0o755), os.MkdirAll("/srv/below", 0o755))
				must(t, unix.Mount("tmpfs", "/srv/below", "tmpfs", 0, ""), os.MkdirAll(filepath.Dir(tc.socket), 0o755), bind("/srv/below", tc.root+"/below", 0))
				l, err := net.Listen("unix", tc.socket)
				if err != nil {
					t.Error(err)
					return
				}
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				defer l.Close()
				if tc.dead {
					must(t, l.Close())
				}
				s := specOf(tc.root, "/missing")
				if tc.hide != "" {
					s.Mounts = append(s.Mounts, specs.Mount{Destination: tc.hide, Type: "tmpfs"})
				}
				checked, err := checkMountSources(s, nil, nil)
				if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), "root.path: ") || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("%v, want %q", err, tc.want)
				}
				if err == nil {
					if len(checked.sockets) != tc.recorded {
						t.Errorf("recorded %q", checked.sockets)
					}
					checked.close()
				}
				if checked, err = checkMountSources(s, []string{fieldRoot}, nil); err != nil {
					t.Errorf("allowed by the operator, still refused: %v", err)
					return
				}
				if accepted := strings.Join(checked.accepted, "\n"); !strings.Contains(accepted, tc.want) || (tc.want == "") != (accepted == "") {
					t.Errorf("allowed by the operator, recorded as accepted: %q", accepted)
				}
				checked.close()
			})
		})
	}
}

// TestBypass_B45_GuardedFolders: the folder of all sandboxes' records, a folder above it
// and a record are refused. The error names the setting that moves the folder.
func TestBypass_B45_GuardedFolders(t *testing.T) {
	inMounts(t, func() {
		must(t, os.MkdirAll("/srv/log/openshell/box", 0o755), os.MkdirAll("/srv/log/app", 0o755), os.MkdirAll("/srv/root", 0o755), bind("/srv/log", "/mnt/log", 0))
		for source, want := range map[string]bool{
			"/srv/log": true, "/srv/log/openshell": true, "/srv/log/openshell/box": true, "/mnt/log": true, "/mnt/log/openshell/box": true, "/srv/log/app": false,
		} {
			field, reason := refused(t, specOf("/srv/root", source), "/srv/log/openshell")
			if (field == fieldMounts) != want || want && !strings.Contains(reason, "/srv/log/openshell, the folder of the operator's log_dir, which can be set to") {
				t.Errorf("%s: refused by %q %s", source, field, reason)
			}
		}
	})
}

// TestBypass_B45_DeviceFolders: a folder of devices is refused unless a specification of the
// operator names it.
func TestBypass_B45_DeviceFolders(t *testing.T) {
	folders := cdiFolders
	t.Cleanup(func() { cdiFolders = folders })
	inMounts(t, func() {
		dir := "/srv/cdi"
		must(t, os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", "/dev/shm", "tmpfs", 0, ""))
		cdiFolders = []string{dir, "/srv/missing"}
		// /dev/pts stands for a folder as /dev/dri/by-path.
		for _, tc := range []struct {
			name, text string
			want       bool
		}{
			{"none.json", `{}`, true},
			{"broken.json", `{"containerEdits": `, true},
			{"other.yaml", "containerEdits: {mounts: [{hostPath: /dev/shm}, {hostPath: /dev}]}\n", true},
			{"above.yaml", "containerEdits: {mounts: [{hostPath: /dev/pts/x}]}\n", true},
			{"device.yaml", "devices: [{name: a}, {name: b, containerEdits: {mounts: [{hostPath: /dev/pts, containerPath: /x}]}}]\n", false},
			{"all.json", `{"cdiVersion": "0.6.0", "containerEdits": {"mounts": [{"hostPath": "/dev/pts/"}]}}`, false},
		} {
			file := filepath.Join(dir, tc.name)
			must(t, os.WriteFile(file, []byte(tc.text), 0o644))
			if field, reason := refused(t, specOf("/srv", "/dev/pts")); (field != "") != tc.want {
				t.Errorf("%s: refused by %q %s", tc.name, field, reason)
			}
			must(t, os.Remove(file))
		}
	})
}

// TestBypass_B45_B71_LiveSockets: a folder in which an engine, a bus or an agent listens is
// refused, at every depth and for every name by which the listener has bound its socket.
// Other listeners are recorded. A socket outside of the folder has no effect.
func TestBypass_B45_B71_LiveSockets(t *testing.T) {
	for _, tc := range []struct {
		name, socket, mount, env string
		refused                  bool
		recorded                 int
	}{
		{"an engine's", "a/docker.sock", "a", "", true, 0},
		{"an engine's, deep below", "a/b/c/d/containerd.sock", "a", "", true, 0},
		{"a plugin's of the kubelet", "a/device-plugins/nvidia.sock", "a", "", true, 0},
		{"systemd's", "a/systemd/private", "a", "", true, 0},
		{"a bus", "a/user/1000/bus", "a", "", true, 0},
		{"OpenSSH's folder", "ssh-XXab/agent.7", "ssh-XXab", "", true, 0},
		{"all temporary files", "t/ssh-XXab/agent.7", "t", "", true, 0},
		{"a keyring", "u/keyring/ssh", "u", "", true, 0},
		{"GnuPG's", "h/.gnupg/S.gpg-agent.ssh", "h", "", true, 0},
		{"named by the environment", "s/plain", "s", "SSH_AUTH_SOCK=/at/plain", true, 0},
		{"our own", "r/@sandbox/box/control.sock", "r", "", true, 0},
		{"another folder's", "v/ssh-tools/lib/x", "v", "SSH_AUTH_SOCK=/elsewhere/x", false, 1},
		{"a database's", "m/mysqld.sock", "m", "", false, 1},
		{"X11's, deep below", "m/.X11-unix/X0", "m", "", false, 1},
		{"beside the folder", "n/docker.sock", "o", "", false, 0},
		{"a name that begins alike", "ab/docker.sock", "a", "", false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inMounts(t, func() {
				file := filepath.Join("/srv", tc.socket)
				must(t, os.MkdirAll(filepath.Dir(file), 0o755), os.MkdirAll(filepath.Join("/srv", tc.mount), 0o755), os.MkdirAll("/run/root", 0o755),
					bind(filepath.Join("/srv", tc.mount), "/mnt/bound", 0), os.Symlink("/srv", "/mnt/link"))
				for how, bound := range map[string]string{"": file, "by a link": filepath.Join("/mnt/link", tc.socket)} {
					l, err := net.Listen("unix", bound)
					if err != nil {
						t.Error(err)
						return
					}
					for _, source := range []string{filepath.Join("/srv", tc.mount), filepath.Join("/mnt/link", tc.mount), "/mnt/bound"} {
						s := specOf("/run/root", source)
						s.Process.Env = []string{"A=b", tc.env}
						checked, err := checkMountSources(s, nil, nil)
						if (err != nil) != tc.refused {
							t.Errorf("%s, bound %s: %v", source, how, err)
						}
						if err == nil {
							if len(checked.sockets) != tc.recorded {
								t.Errorf("%s, bound %s: recorded %q", source, how, checked.sockets)
							}
							checked.close()
						}
						checked, err = checkMountSources(s, []string{fieldMounts}, nil)
						if err != nil {
							t.Errorf("allowed by the operator, still refused: %v", err)
							continue
						}
						if shown := len(checked.sockets); (len(checked.accepted) == 1) != tc.refused || shown != tc.recorded && !tc.refused || shown < 1 && tc.refused {
							t.Errorf("%s, bound %s: allowed by the operator, accepted %q with the sockets %q", source, how, checked.accepted, checked.sockets)
						}
						checked.close()
					}
					must(t, l.Close())
				}
			})
		})
	}
}

// TestLiveSocketsElsewhere: a socket that was bound by a relative name, or below another root,
// is found. A socket that cannot be located causes a warning.
func TestLiveSocketsElsewhere(t *testing.T) {
	inMounts(t, func() {
		must(t, os.MkdirAll("/srv/chroot/var/spool/private", 0o755), os.MkdirAll("/srv/other", 0o755), os.MkdirAll("/run/root", 0o755))
		l, err := net.Listen("unix", "/srv/chroot/var/spool/private/bus")
		must(t, err)
		defer l.Close()
		list, err := boundSockets()
		must(t, err)
		i := slices.IndexFunc(list, func(b boundSocket) bool { return b.name == "/srv/chroot/var/spool/private/bus" })
		if i < 0 {
			t.Error("the socket is not listed")
			return
		}
		host, err := readHostMounts(nil)
		must(t, err)
		for _, tc := range []struct {
			name, source, found string
			lost                int
		}{
			{"private/bus", "/srv/chroot/var/spool", "/srv/chroot/var/spool/private/bus", 0},
			{"private/bus", "/srv/chroot/var/spool/private", "/srv/chroot/var/spool/private/bus", 0},
			{"/var/spool/private/bus", "/srv/chroot", "/srv/chroot/var/spool/private/bus", 0},
			{"/var/spool/private/bus", "/srv/chroot/var", "/srv/chroot/var/spool/private/bus", 0},
			{"./private/../private/bus", "/srv/chroot/var/spool", "/srv/chroot/var/spool/private/bus", 0},
			{"private/bus", "/srv", "", 1},
			{"/var/spool/private/bus", "/srv/other", "", 1},
			{"/srv/chroot/var/spool/private/bus", "/srv/other", "", 0},
			{"/proc/self/fd/17/control.sock", "/srv/other", "", 0}, // another sandbox's
			{"/proc/self/fd/17/other.sock", "/srv/other", "", 1},
		} {
			c := &mountSources{}
			must(t, c.add(host, 1, tc.source, false))
			search := &socketSearch{host: host, devices: map[uint64]bool{c.list[0].place.dev: true}, folders: map[string]*located{}}
			got := ""
			search.find([]boundSocket{{dev: list[i].dev, ino: list[i].ino, name: tc.name}}, c.list, func(_ *source, socket string) { got = socket })
			if got != tc.found || len(search.lost) != tc.lost {
				t.Errorf("%s in %s: found %q, lost %v", tc.name, tc.source, got, search.lost)
			}
			if tc.lost > 0 { // on the file system of a root, it is likelier elsewhere
				search = &socketSearch{host: host, devices: map[uint64]bool{c.list[0].place.dev: false}, folders: map[string]*located{}}
				search.find([]boundSocket{{dev: list[i].dev, ino: list[i].ino, name: tc.name}}, c.list, func(*source, string) {})
				if len(search.lost) > 0 {
					t.Errorf("%s in %s as a root: lost %v", tc.name, tc.source, search.lost)
				}
			}
			c.close()
		}
	})
}

// BenchmarkCheckMountSources measures the check of a container's root file system, alone and
// with one mounted folder, without sockets of the host and with 1000 of them.
func BenchmarkCheckMountSources(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("not root")
	}
	for _, sockets := range []int{0, 1000} {
		for _, where := range []string{"same file system", "another"} {
			for _, mounted := range []string{"folder", "nothing"} {
				b.Run(fmt.Sprintf("%d sockets, %s, %s mounted", sockets, where, mounted), func(b *testing.B) {
					dir, err := os.MkdirTemp("", "b")
					if err != nil {
						b.Fatal(err)
					}
					defer os.RemoveAll(dir)
					root, source, at := filepath.Join(dir, "root"), filepath.Join(dir, "folder"), filepath.Join(dir, "s")
					if where != "same file system" {
						at = "/dev/shm/" + filepath.Base(dir)
						defer os.RemoveAll(at)
					}
					if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(source, 0o755), os.Mkdir(at, 0o755)); err != nil {
						b.Fatal(err)
					}
					for i := range sockets {
						l, err := net.Listen("unix", fmt.Sprintf("%s/%d", at, i))
						if err != nil {
							b.Fatal(err)
						}
						defer l.Close()
					}
					for b.Loop() {
						checked, err := checkMountSources(specOf(root, filepath.Join(dir, mounted)), nil, nil)
						if err != nil {
							b.Fatal(err)
						}
						checked.close()
					}
				})
			}
		}
	}
}

// FuzzParseUnixDiag: no message makes the parser panic, and every socket that it accepts has a
// name in the file system.
func FuzzParseUnixDiag(f *testing.F) {
	f.Add([]byte("\x01\x01\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00/run/x\x00\x00\x0c\x00\x01\x00\x01\x00\x00\x00\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, ok := parseUnixDiag(data); ok && (s.name == "" || s.name[0] == 0) {
			t.Errorf("%q is taken as %+v", data, s)
		}
	})
}

// TestBypass_B45_SwappedSource: a source that is replaced by another file between the check
// and the mount is refused, and so is a source that appears. The same file under another
// name is accepted, and so is a later mount over the destination.
func TestBypass_B45_SwappedSource(t *testing.T) {
	for name, tc := range map[string]struct {
		source string
		swap   func() error
		later  string
		want   string
	}{
		"the same": {"/srv/data", func() error { return bind("/srv/data", "/mnt/at", 0) }, "", ""},
		"renamed": {"/srv/data", func() error {
			return errors.Join(os.Rename("/srv/data", "/srv/moved"), bind("/srv/moved", "/mnt/at", 0))
		}, "", ""},
		"another folder": {"/srv/data", func() error { return bind("/srv/other", "/mnt/at", 0) }, "", "was swapped"},
		"a link": {"/srv/link", func() error {
			return errors.Join(os.Remove("/srv/link"), os.Symlink("/run", "/srv/link"), bind("/srv/link", "/mnt/at", 0))
		}, "", "was swapped"},
		"appeared": {"/srv/missing", func() error {
			return errors.Join(os.Symlink("/run", "/srv/missing"), bind("/srv/missing", "/mnt/at", 0))
		}, "", "appeared"},
		"under a later mount":     {"/srv/data", func() error { return bind("/srv/other", "/mnt/at", 0) }, "/at", ""},
		"below a later mount":     {"/srv/data", func() error { return bind("/srv/other", "/mnt/at", 0) }, "/", ""},
		"beside a later one":      {"/srv/data", func() error { return bind("/srv/other", "/mnt/at", 0) }, "/at/below", "was swapped"},
		"by a later mount's link": {"/srv/data", func() error { return bind("/srv/other", "/mnt/at", 0) }, "/link/../at", "was swapped"},
	} {
		t.Run(name, func(t *testing.T) {
			inMounts(t, func() {
				must(t, os.MkdirAll("/srv/data", 0o755), os.MkdirAll("/srv/other", 0o755), os.Symlink("/srv/data", "/srv/link"))
				s := specOf("/", tc.source)
				s.Mounts[1].Destination = "/mnt/../mnt/at"
				checked, err := checkMountSources(s, []string{fieldRoot}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer checked.close()
				must(t, os.Mkdir("/mnt/at", 0o755), os.Symlink("/mnt/at", "/mnt/link"))
				must(t, tc.swap())
				if tc.later != "" {
					s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt" + tc.later, Type: "tmpfs"})
				}
				err = checked.verify(unix.Gettid(), s)
				if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("%v, want %q", err, tc.want)
				}
			})
		})
	}
}
