// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// holders are the files of processes that hold a namespace, by its name.
func holders(t *testing.T, ns string) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if got, err := os.Readlink(f); err == nil && got == ns {
				found = append(found, f)
			}
		}
	}
	return found
}

// However a sandbox ends, no process, mount, namespace, folder or cgroup of it is
// left.
func TestNothingRemains(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, b *box)
	}{
		{"delete --force", func(t *testing.T, b *box) {}},
		{"first process killed", func(t *testing.T, b *box) {
			kill(t, b.init(), unix.SIGKILL)
			b.until("the proxy ends with it", func() bool { return len(b.processes()) == 0 })
			if out, err := b.runtime("delete", b.id); err != nil {
				t.Errorf("delete: %v: %s", err, out)
			}
		}},
		{"kill", func(t *testing.T, b *box) {
			if out, err := b.runtime("kill", b.id, "KILL"); err != nil {
				t.Errorf("kill: %v: %s", err, out)
			}
			b.until("it is stopped", func() bool {
				out, err := b.runtime("state", b.id)
				return err == nil && strings.Contains(out, `"stopped"`)
			})
			if out, err := b.runtime("delete", b.id); err != nil {
				t.Errorf("delete: %v: %s", err, out)
			}
		}},
		{"with connections open", func(t *testing.T, b *box) {
			soFar, wait := b.watch(nil, "/bin/probe", "stream", "https://api.test/ok/events")
			b.until("the stream is open", func() bool { return strings.Contains(soFar(), "status 200") })
			kill(t, b.init(), unix.SIGKILL)
			wait()
			b.until("the upstream's side ends", func() bool { return b.up.Streams() == 0 })
		}},
		{"state folder gone", func(t *testing.T, b *box) {
			if err := os.RemoveAll(b.stateDir()); err != nil {
				t.Fatal(err)
			}
		}},
		{"proxy stopped", func(t *testing.T, b *box) {
			kill(t, b.proxy().Pid, unix.SIGSTOP)
			kill(t, b.guard(), unix.SIGSTOP)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{})
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", b.init()))
			if err != nil || len(holders(t, ns)) == 0 {
				t.Fatalf("namespace %s: %v, held by %v", ns, err, holders(t, ns))
			}
			tc.end(t, b)
			if out, err := b.runtime("delete", "--force", b.id); err != nil {
				t.Errorf("delete --force: %v: %s", err, out)
			}
			b.gone()
			// A guard that has let its lock go may still be on its way out.
			b.until("nobody holds the network namespace", func() bool { return len(holders(t, ns)) == 0 })
		})
	}
	t.Run("ran to its end", func(t *testing.T) {
		t.Parallel()
		b := boxOf(t, boxOptions{argv: []string{"/bin/probe", "direct", "GET", "https://api.test/ok/1"}})
		if out, err := b.runtime("run", "--bundle", b.dir, b.id); err != nil || !strings.HasPrefix(out, "ok: HTTP/2.0 200") {
			t.Errorf("run: %v: %s", err, out)
		}
		b.gone()
	})
	t.Run("created, never started", func(t *testing.T) {
		t.Parallel()
		b := boxOf(t, boxOptions{})
		if out, err := b.runtime("create", "--bundle", b.dir, b.id); err != nil {
			t.Fatalf("create: %v: %s", err, out)
		}
		if out, err := b.runtime("delete", b.id); err != nil {
			t.Errorf("delete: %v: %s", err, out)
		}
		b.gone()
	})
}

// programs copies the programs into a folder of the box's own.
func (b *box) programs() string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "bin")
	if err := os.CopyFS(dir, os.DirFS(built.bin)); err != nil {
		b.t.Fatal(err)
	}
	b.bin = dir
	return dir
}

// A sandbox that cannot be made says why, and nothing of it is left.
func TestFailedCreateLeavesNothing(t *testing.T) {
	t.Parallel()
	write := func(b *box, name, text string) {
		b.t.Helper()
		file := filepath.Join(b.programs(), name)
		if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func(b *box)
		want  string
	}{
		{"no proxy program", func(b *box) {
			if err := os.Remove(filepath.Join(b.programs(), "openshell-proxy")); err != nil {
				b.t.Fatal(err)
			}
		}, "openshell-proxy"},
		{"no launch program", func(b *box) {
			if err := os.Remove(filepath.Join(b.programs(), "openshell-launch")); err != nil {
				b.t.Fatal(err)
			}
		}, "openshell-launch"},
		{"proxy that ends at once", func(b *box) { write(b, "openshell-proxy", "#!/bin/sh\nexit 1\n") }, "openshell-proxy did not start"},
		{"proxy that says why", func(b *box) { write(b, "openshell-proxy", "#!/bin/sh\necho no reason >&4\nexit 1\n") }, "no reason"},
		{"proxy that is no program", func(b *box) { write(b, "openshell-proxy", "nonsense") }, "openshell-proxy"},
		{"log folder that is a file", func(b *box) { b.file("records", "") }, "records"},
		{"policy that is none", func(b *box) { b.file("policy.yaml", "version: 1\nnetwork_polices: {}\n") }, "policy.yaml:2"},
		{"no policy file", func(b *box) { b.policy += ".none" }, "policy.yaml.none"},
		{"configuration with an unknown key", func(b *box) { b.file("config.yaml", "log_dirs: /x\n") }, "log_dirs"},
		{"no upstream CA", func(b *box) { b.flags = append(b.flags, "--upstream-ca", "/none.pem") }, "/none.pem"},
		{"upstream CA that is none", func(b *box) { b.flags = append(b.flags, "--upstream-ca", b.config) }, "no certificate"},
		{"unknown egress", func(b *box) { b.flags = append(b.flags, "--egress", "everywhere") }, "everywhere"},
		{"missing program", func(b *box) { b.edit(`"/bin/probe","sleep"`, `"/bin/missing","sleep"`) }, "/bin/missing"},
		{"missing mount source", func(b *box) { b.edit(filepath.Join(b.dir, "resolv.conf"), filepath.Join(b.dir, "none")) }, "none"},
		{"network namespace that is none", func(b *box) { b.edit(`{"type":"network"}`, `{"type":"network","path":"/proc/self/ns/mnt"}`) }, "net namespace"},
		{"network namespace that is not there", func(b *box) { b.edit(`{"type":"network"}`, `{"type":"network","path":"/run/none"}`) }, "/run/none"},
		{"network namespace of the host", func(b *box) { b.edit(`{"type":"network"}`, `{"type":"network","path":"/proc/1/ns/net"}`) }, "network"},
		{"no network namespace", func(b *box) { b.edit(`,{"type":"network"}`, ``) }, "linux.namespaces.network"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := boxOf(t, boxOptions{})
			tc.spoil(b)
			before := b.up.Accepted()
			out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
			if err == nil || !strings.Contains(out, tc.want) {
				t.Errorf("run: %v: %s; want …%s…", err, out, tc.want)
			}
			if after := b.up.Accepted(); len(after) != len(before) {
				t.Errorf("the upstream got %v", after)
			}
			b.gone()
		})
	}
}

// TestCreateWithTakenID: a sandbox with the ID of a plain container is not made. The
// container stays, and no folder or proxy of the sandbox does.
func TestCreateWithTakenID(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{})
	policy, config := b.policy, b.config
	b.policy, b.config = "", filepath.Join(b.dir, "plain.yaml")
	b.file("plain.yaml", "policy: none\n")
	if out, err := b.runtime("create", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	b.policy, b.config = policy, config
	out, err := b.runtime("create", "--bundle", b.dir, b.id)
	if err == nil || !strings.Contains(out, "container with given ID already exists") {
		t.Errorf("create: %v: %s", err, out)
	}
	if _, err := os.Stat(b.stateDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder %s: %v", b.stateDir(), err)
	}
	if pids := b.proxies(); len(pids) > 0 {
		t.Errorf("processes %v of a proxy", pids)
	}
	if out, err := b.runtime("state", b.id); err != nil || !strings.Contains(out, `"created"`) {
		t.Errorf("the plain container: %v: %s", err, out)
	}
	if out, err := b.runtime("delete", b.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	b.gone()
}

// edit replaces a part of the box's config.json.
func (b *box) edit(from, to string) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	if err != nil || !strings.Contains(string(text), from) {
		b.t.Fatalf("config.json, %v, lacks %s: %s", err, from, text)
	}
	b.file("config.json", strings.Replace(string(text), from, to, 1))
}

// TestDeleteStaysInItsRoot: an ID is a name, not a way to another folder.
func TestDeleteStaysInItsRoot(t *testing.T) {
	w := newWorld(t, testPolicy)
	kept := filepath.Join(w.dir, "kept")
	if err := os.MkdirAll(filepath.Join(w.dir, "state", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"x/../../kept", "../kept", "/../kept", "..", "."} {
		if out, err := w.runtime("delete", "--force", id); err == nil {
			t.Errorf("delete --force %s: %s", id, out)
		}
		if _, err := os.Stat(kept); err != nil {
			t.Fatalf("delete --force %s: %v", id, err)
		}
	}
}
