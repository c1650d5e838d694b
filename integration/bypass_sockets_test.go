// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/netns"
)

// TestBypass_B44_AbstractSockets: listeners at abstract names of the host and of another
// sandbox are not there. In a network namespace that others may share (config.json names it
// by path), the listener of a process outside the sandbox is refused. In a namespace of the
// sandbox's own the only other processes are the sandbox's, and they reach each other.
func TestBypass_B44_AbstractSockets(t *testing.T) {
	t.Parallel()
	own, other, shared := newBox(t, boxOptions{policy: openPolicy}), newBox(t, boxOptions{policy: openPolicy}), newBox(t, boxOptions{policy: openPolicy, uplink: true})
	of := func(b *box) string { return fmt.Sprintf("/proc/%d/ns/net", b.init()) }
	for _, tc := range []struct {
		name     string
		b        *box
		ns, want string
	}{
		{"the host's", own, "/proc/self/ns/net", "ECONNREFUSED"},
		{"the host's, from a shared namespace", shared, "/proc/self/ns/net", "ECONNREFUSED"},
		{"another sandbox's", own, of(other), "ECONNREFUSED"},
		{"from outside in a shared namespace", shared, of(shared), "EPERM"},
		{"in the sandbox's own namespace", own, of(own), "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if abi, err := llsys.LandlockGetABIVersion(); tc.want == "EPERM" && (err != nil || abi < scopes) {
				t.Skipf("Landlock ABI %d keeps no abstract socket apart: docs/threat-model.md says so", abi)
			}
			address := fmt.Sprintf("@openshell-test-%d-%d", os.Getpid(), boxes.Add(1))
			var stream net.Listener
			var packets net.PacketConn
			inNetns(t, tc.ns, func() (err error) {
				if stream, err = net.Listen("unix", address); err == nil {
					packets, err = net.ListenPacket("unixgram", address+"-gram")
				}
				return err
			})
			defer stream.Close()
			defer packets.Close()
			// The control: who is in the namespace and in no sandbox reaches it.
			inNetns(t, tc.ns, func() error {
				c, err := net.Dial("unix", address)
				if err == nil {
					err = c.Close()
				}
				return err
			})
			if got := answers(t, tc.b.exec("/bin/probe", "unix", address)); got["unix"] != tc.want {
				t.Errorf("stream: %s, want %s", got["unix"], tc.want)
			}
			if got := answers(t, tc.b.exec("/bin/probe", "unix", address+"-gram")); got["unixgram"] != tc.want {
				t.Errorf("datagram: %s, want %s", got["unixgram"], tc.want)
			}
		})
	}
}

// TestSignalsOfAnotherExec: a process of one exec signals a process of another and the
// container's first one. Where config.json names the PID namespace by path, others may
// share it, and signals stay within each exec.
func TestSignalsOfAnotherExec(t *testing.T) {
	t.Parallel()
	own := newBox(t, boxOptions{policy: openPolicy})
	joined := newBox(t, boxOptions{policy: openPolicy, spec: func(spec map[string]any) {
		for _, ns := range spec["linux"].(map[string]any)["namespaces"].([]any) {
			if ns := ns.(map[string]any); ns["type"] == "pid" {
				ns["path"] = fmt.Sprintf("/proc/%d/ns/pid", own.init())
			}
		}
	}})
	for _, tc := range []struct {
		name string
		b    *box
		want string
	}{{"a PID namespace of its own", own, "0"}, {"the PID namespace of another container", joined, "EPERM"}} {
		t.Run(tc.name, func(t *testing.T) {
			if abi, err := llsys.LandlockGetABIVersion(); tc.want == "EPERM" && (err != nil || abi < scopes) {
				t.Skipf("Landlock ABI %d keeps no signal apart: docs/threat-model.md says so", abi)
			}
			got := answers(t, tc.b.exec("/bin/probe", "signal", "1"))
			if got["1"] != tc.want {
				t.Errorf("the first process: %s, want %s", got["1"], tc.want)
			}
		})
	}
}

// scopes is the first ABI of Landlock that keeps abstract sockets apart.
const scopes = 6

// inNetns runs f in a network namespace, which may be this one.
func inNetns(t *testing.T, path string, f func() error) {
	t.Helper()
	ns, err := os.Open(path)
	if err == nil {
		defer ns.Close()
		err = netns.Within(ns, f)
	}
	if errors.Is(err, netns.ErrHost) {
		err = f()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBypass_B45_B71_MountedSockets: a socket of the host's, an engine's or an SSH
// agent's, is not mounted, whatever it is called and however it is named; a folder
// without one is.
func TestBypass_B45_B71_MountedSockets(t *testing.T) {
	t.Parallel()
	host := t.TempDir()
	listen := func(name string) string {
		path := filepath.Join(host, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return path
	}
	link := func(name, to string) string {
		path := filepath.Join(host, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := listen("x.txt")
	if err := os.Mkdir(filepath.Join(host, "ssh-XXabc"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]string{
		"an engine's":                listen("docker.sock"),
		"under another name":         plain,
		"an SSH agent's":             listen("ssh-XXabc/agent.42"),
		"by a link":                  link("innocent", plain),
		"by a link to its folder":    link("folder", "/run/"),
		"by a link to a link":        link("second", filepath.Join(host, "innocent")),
		"from the bundle":            "../../../../../../../../../../" + plain,
		"its folder from the bundle": "../../../../../../../../../../run",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newWorld(t, openPolicy).refuses("mounts", func(spec map[string]any) {
				spec["mounts"] = append(spec["mounts"].([]any), map[string]any{"destination": "/mnt", "type": "bind", "source": source, "options": []any{"rbind"}})
			})
		})
	}
	t.Run("a folder without", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		b := newBox(t, boxOptions{policy: openPolicy, spec: func(spec map[string]any) {
			spec["mounts"] = append(spec["mounts"].([]any), map[string]any{"destination": "/mnt", "type": "bind", "source": dir, "options": []any{"rbind"}})
		}})
		if out := b.exec("/bin/probe", "cat", "/mnt/file"); out != `ok: "text"` {
			t.Errorf("printed %q", out)
		}
	})
}

// TestBypass_B45_BelowTheRoot: a root file system with an engine's socket in it, or in
// a folder of the host that is mounted below it, is refused, and the engine gets no
// connection. The control is the same bundle where the operator accepts it.
func TestBypass_B45_BelowTheRoot(t *testing.T) {
	for name, mounted := range map[string]bool{"in the root": false, "in a mount": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, openPolicy)
			at := filepath.Join(w.rootfs, "run")
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if mounted {
				host := t.TempDir()
				if err := unix.Mount(host, at, "", unix.MS_BIND, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := unix.Unmount(at, 0); err != nil {
						t.Error(err)
					}
				})
			}
			l, err := net.Listen("unix", filepath.Join(at, "docker.sock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			var connections atomic.Int32
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					connections.Add(1)
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}
			}()
			dir := w.bundle()
			w.edit(dir, func(spec map[string]any) {
				spec["process"].(map[string]any)["args"] = []string{"/bin/probe", "unix", "/run/docker.sock"}
			})
			run := func(id string) (string, error) {
				t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
				return w.runtime("run", "--bundle", dir, id)
			}
			if out, err := run("hostile"); err == nil || !strings.Contains(out, "config.json: root.path: ") {
				t.Errorf("%v: %s", err, out)
			}
			if n := connections.Load(); n != 0 {
				t.Errorf("the engine got %d connections", n)
			}
			w.config = w.file("config.yaml", "log_dir: "+w.records()+"\nallow: [root.path]\n")
			if out, err := run("accepted"); err != nil || !strings.Contains(out, "unix=0") {
				t.Errorf("control: %v: %s", err, out)
			}
			waitFor(t, "the control's connection is accepted", func() bool { return connections.Load() > 0 })
			if n := connections.Load(); n != 1 {
				t.Errorf("the engine got %d connections, want the control's only", n)
			}
		})
	}
}
