// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// TestBypass_B42_OwnSandbox: with every file open to it the workload has nothing of
// what holds it: no policy, state, configuration or record, no control socket; what
// it changes of its trusted certificates it changes for itself.
func TestBypass_B42_OwnSandbox(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: openPolicy, spec: privileged, env: []string{"OPENSHELL_POLICY=none"}})
	control := filepath.Join(b.stateDir(), proxyapi.ControlSocketFile)
	for _, path := range []string{b.policy, b.config, b.stateDir(), control, filepath.Join(b.stateDir(), proxyapi.CAKeyFile), b.records(), filepath.Join(b.dir, "config.json"), "/run/openshell", "/etc/openshell"} {
		if _, err := os.Stat(path); err != nil && strings.HasPrefix(path, b.dir) {
			t.Fatalf("not even outside: %v", err)
		}
		if out := b.exec("/bin/probe", "stat", path); !strings.HasPrefix(out, "error: ENOENT") {
			t.Errorf("%s: %s", path, out)
		}
	}
	if out := b.exec("/bin/probe", "unix", control); !strings.Contains(out, "unix=ENOENT") {
		t.Errorf("control socket: %s", out)
	}
	before, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.CACertFile))
	if err != nil {
		t.Fatal(err)
	}
	// What it does to its certificates changes what the workload itself trusts, and no
	// more.
	for _, argv := range [][]string{
		{"write", debianBundle}, {"rename", debianBundle, "/tmp/old"}, {"rename", "/etc/passwd", debianBundle}, {"remove", debianBundle}, {"swap", "/etc/ssl", "/tmp"},
	} {
		b.exec(append([]string{"/bin/probe"}, argv...)...)
	}
	if after, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.CACertFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the CA was changed: %v", err)
	}
	if out := b.exec("/bin/probe", "http", "PUT", "http://127.0.0.1:15001/policy", "version: 1"); strings.Contains(out, " 200 ") {
		t.Errorf("the proxy takes a policy from inside: %s", out)
	}
	if st := b.proxy(); st.Revision != 1 {
		t.Errorf("revision %d", st.Revision)
	}
}

// TestBypass_B73_Key: the CA's key is in no file, environment, command line or
// descriptor that the container sees; outside it is root's alone, in processes that
// leave no core.
func TestBypass_B73_Key(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: openPolicy, spec: privileged})
	file := filepath.Join(b.stateDir(), proxyapi.CAKeyFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("the key is not PEM")
	}
	// The middle of the DER and of its text; what is at the edges, every key has.
	der, line := block.Bytes[len(block.Bytes)/4:len(block.Bytes)/2], bytes.Split(text, []byte("\n"))[1][16:48]
	search := []string{"/bin/probe", "search", hex.EncodeToString(der), hex.EncodeToString(line)}
	if out := b.exec(search...); out != "ok: found" {
		t.Errorf("printed %q", out)
	}
	// The control: where it lies in the container, it is found.
	b.imageFile("tmp/planted", "x"+string(text))
	if out := b.exec(search...); out != "ok: found /tmp/planted" {
		t.Errorf("the key in a file, and printed %q", out)
	}
	for path, want := range map[string]fs.FileMode{file: 0o600, b.stateDir(): 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	for role, pid := range b.trusted() {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		_, core, _ := strings.Cut(string(limits), "Max core file size")
		if f := strings.Fields(core); err != nil || len(f) < 2 || f[0] != "0" || f[1] != "0" {
			t.Errorf("%s may leave a core: %v %v", role, f, err)
		}
	}
}

// trusted are the processes that hold the sandbox: guard, worker and standby.
func (b *box) trusted() map[string]int {
	b.t.Helper()
	guard := b.guard()
	found := map[string]int{"guard": guard}
	b.until("guard, worker and standby run", func() bool {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", guard))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, l := range lists {
			text, _ := os.ReadFile(l)
			for _, child := range strings.Fields(string(text)) {
				pid := number(b.t, child)
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if args := bytes.Split(line, []byte{0}); len(args) > 1 {
					found[string(args[1])] = pid
				}
			}
		}
		return found["worker"] != 0 && found["standby"] != 0
	})
	return found
}

// TestWorkerIsLockedDown: no thread of the worker, which reads what the workload
// sends, has more rights than judging needs.
func TestWorkerIsLockedDown(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		o    boxOptions
		caps string
	}{
		"from the host":        {boxOptions{}, "0000000000000000"},
		"from the container's": {boxOptions{uplink: true}, fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, tc.o)
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.proxy().Pid))
			if err != nil || len(threads) < 2 {
				t.Fatalf("threads %v: %v", threads, err)
			}
			for _, thread := range threads {
				status, err := os.ReadFile(thread)
				if err != nil {
					continue // it has ended
				}
				for _, want := range []string{"CapEff:\t" + tc.caps, "CapPrm:\t" + tc.caps, "CapBnd:\t" + tc.caps, "NoNewPrivs:\t1", "Seccomp:\t2"} {
					if !strings.Contains(string(status), want+"\n") {
						t.Errorf("%s lacks %q: %s", thread, want, status)
					}
				}
			}
		})
	}
}

// TestBypass_B59_Environment: nothing of the runtime's or the image's environment
// reaches guard, worker and standby.
func TestBypass_B59_Environment(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	hostile := []string{
		"GODEBUG=tlsmaxrsasize=0,netdns=cgo", "SSLKEYLOGFILE=" + keys, "HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9",
		"SSL_CERT_FILE=/none", "SSL_CERT_DIR=/none", "GOTRACEBACK=crash", "MITM_SCRIPT=/tmp/x", "LD_PRELOAD=/none.so", "RES_OPTIONS=ndots:9",
	}
	b := boxOf(t, boxOptions{env: hostile})
	b.env = slices.DeleteFunc(slices.Clone(hostile), func(s string) bool { return strings.HasPrefix(s, "LD_PRELOAD") })
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	for role, pid := range b.trusted() {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || len(env) != 0 {
			t.Errorf("%s: environment %q, %v", role, env, err)
		}
	}
	b.up.Reset()
	// And the proxy's own way on goes through no other proxy.
	if out := b.exec("/bin/probe", "bare", "/bin/probe", "direct", "GET", "http://api.test/x"); !strings.Contains(out, "upstream saw ") {
		t.Errorf("printed %q", out)
	}
	if _, err := os.Stat(keys); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key log was written: %v", err)
	}
}

// traps are the names of programs that a runtime could be led to start.
var traps = []string{"ip", "nft", "nsenter", "mount", "umount", "iptables", "ip6tables", "ldconfig", "sh", "systemctl", "newuidmap", "newgidmap", "criu", "modprobe", "runc"}

// TestBypass_B58_ImagePrograms: through a sandbox's whole life nothing of the image
// is executed but what it was asked to run, in the container or outside, even where
// its folders come first in the runtime's own PATH.
func TestBypass_B58_ImagePrograms(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{files: func(rootfs string) {
		program, err := os.ReadFile(filepath.Join(rootfs, "bin/probe"))
		for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin"} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(rootfs, dir), 0o755))
		}
		// One copy, many names: the programs are large.
		err = errors.Join(err, os.WriteFile(filepath.Join(rootfs, "bin/trap"), program, 0o755))
		for _, name := range traps {
			for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin"} {
				err = errors.Join(err, os.Link(filepath.Join(rootfs, "bin/trap"), filepath.Join(rootfs, dir, name)))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}})
	b.env = []string{"PATH=" + strings.Join([]string{filepath.Join(b.rootfs, "bin"), filepath.Join(b.rootfs, "sbin"), filepath.Join(b.rootfs, "usr/bin"), filepath.Join(b.rootfs, "usr/sbin")}, ":")}
	sprung := func() (found []string) {
		for _, root := range []string{"", b.rootfs} {
			marks, err := filepath.Glob(root + "/tmp/openshell-trap-*")
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, marks...)
		}
		return found
	}
	if was := sprung(); len(was) > 0 {
		t.Fatalf("there before: %v", was)
	}
	for _, args := range [][]string{{"create", "--bundle", b.dir}, {"start"}, {"exec"}, {"ps"}, {"pause"}, {"resume"}, {"delete", "--force"}} {
		verb := append(slices.Clone(args), b.id)
		if args[0] == "exec" {
			verb = append(verb, "/bin/probe", "http1", "GET", "http://api.test/ok")
		}
		if out, err := b.runtime(verb...); err != nil {
			if args[0] != "ps" { // runc's ps is the host's program, from PATH
				t.Fatalf("%v: %v: %s", verb, err, out)
			}
		}
		if marks := sprung(); len(marks) > 0 {
			t.Errorf("%s: executed %v", args[0], marks)
		}
	}
	// The control: a trap that is run leaves its mark.
	b.env = nil
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	if out := b.exec("/bin/ip", "link"); out != "ok: sprung" || len(sprung()) != 1 {
		t.Errorf("printed %q, marks %v", out, sprung())
	}
}

// TestBypass_B55_LinkedTargets: an image whose mount targets are links gets nothing
// of the host mounted over, made or shown; every link ends in the image's root.
func TestBypass_B55_LinkedTargets(t *testing.T) {
	t.Parallel()
	victims, host := t.TempDir(), startUpstream(t)
	// A certificate, for a bundle takes nothing else over.
	secret := string(host.CA)
	line := strings.Split(secret, "\n")[2]
	up := strings.Repeat("../", 24)
	for name, place := range map[string]func(rootfs, victim string) error{
		"bundle, relative": func(r, v string) error { return relink(filepath.Join(r, debianBundle), up+v) },
		"bundle, absolute": func(r, v string) error { return relink(filepath.Join(r, debianBundle), v) },
		"its folder":       func(r, v string) error { return relink(filepath.Join(r, "etc/ssl"), filepath.Dir(v)) },
		"hosts":            func(r, v string) error { return relink(filepath.Join(r, "etc/hosts"), up+v) },
		"resolv.conf":      func(r, v string) error { return relink(filepath.Join(r, "etc/resolv.conf"), v) },
		"proc":             func(r, v string) error { return relink(filepath.Join(r, "proc"), filepath.Dir(v)) },
		"dev":              func(r, v string) error { return relink(filepath.Join(r, "dev"), up+filepath.Dir(v)) },
		"to the proc":      func(r, v string) error { return relink(filepath.Join(r, debianBundle), "/proc/self/root"+v) },
		"through a fd":     func(r, v string) error { return relink(filepath.Join(r, debianBundle), "/proc/1/root"+v) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(victims, strings.ReplaceAll(name, " ", "-"))
			victim := filepath.Join(dir, "ca-certificates.crt")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(victim, []byte(secret), 0o644)); err != nil {
				t.Fatal(err)
			}
			b := boxOf(t, boxOptions{policy: openPolicy, up: host, files: func(rootfs string) {
				// The image's own bundle has another's certificate, if any.
				if err := errors.Join(os.Remove(filepath.Join(rootfs, debianBundle)), place(rootfs, victim)); err != nil {
					t.Fatal(err)
				}
			}})
			// A refusal is as good; what must not be is a way out.
			out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
			if err == nil {
				for _, file := range []string{debianBundle, "/etc/hosts", "/etc/resolv.conf", victim} {
					if got := b.exec("/bin/probe", "cat", file); strings.Contains(got, line) {
						t.Errorf("%s in the container is the host's", file)
					}
				}
				mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", b.guard()))
				if err != nil || strings.Contains(string(mounts), dir) {
					t.Errorf("mounted on the host (%v)", err)
				}
			} else if !strings.Contains(out, "level=error") {
				t.Errorf("%v: %s", err, out)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != secret {
				t.Errorf("the host's file: %q, %v", text, err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("made on the host: %v, %v", entries, err)
			}
		})
	}
}

// relink makes path, whatever it was, a link.
func relink(path, to string) error {
	return errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path))
}

// TestBypass_B74_FileAfterwards: the file that a policy came from, swapped, loosened
// or gone, is not read again, not by a new worker either.
func TestBypass_B74_FileAfterwards(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	strict, loose := b.file("strict.yaml", netPolicy), b.file("loose.yaml", postPolicy)
	link := filepath.Join(b.dir, "link.yaml")
	if err := relink(link, strict); err != nil {
		t.Fatal(err)
	}
	if out, status := b.cli("policy", "set", b.id, "--policy", link); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	for name, change := range map[string]func() error{
		"the link leads to another": func() error { return relink(link, loose) },
		"the file is another":       func() error { return os.WriteFile(strict, []byte(postPolicy), 0o644) },
		"the first one is another":  func() error { return os.WriteFile(b.policy, []byte(postPolicy), 0o644) },
		"both are gone":             func() error { return errors.Join(os.Remove(link), os.Remove(strict)) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if b.post() {
			t.Errorf("%s: it holds", name)
		}
		worker := b.trusted()["worker"]
		p, err := os.FindProcess(worker)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		b.until("another worker serves", func() bool {
			_, err := b.control().Status(t.Context())
			return err == nil && b.trusted()["worker"] != worker
		})
		if b.post() {
			t.Errorf("%s: it holds for a new worker", name)
		}
	}
}
