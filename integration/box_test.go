// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/testenv"
	"openshell.dev/runtime/libsandbox/state"
)

// netPolicy allows one program little; RULES stands for more policies.
const netPolicy = `version: 1
filesystem_policy:
  read_only: [/bin, /usr, /lib, /lib64, /etc, /proc]
  read_write: [/tmp]
network_policies:
  api:
    endpoints:
      - host: api.test
        port: 443
        protocol: rest
        enforcement: enforce
        rules:
          - allow: {method: GET, path: "/ok/**"}
      - {host: api.test, port: 80, protocol: rest, enforcement: enforce, access: read-only}
      - {host: six.test, port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: plain.test, port: 443}
      - {host: raw.test, port: 7000, protocol: tcp}
    binaries: [{path: /bin/probe}]
`

// names are those of the upstream's certificate. No policy allows the last one.
var names = []string{"api.test", "plain.test", "raw.test", "six.test", "denied.test"}

// boxOptions say how a box differs from the usual one.
type boxOptions struct {
	policy string
	// config is added to the operator's configuration.
	config string
	// uplink plugs the container into the upstream, where it asks the upstream's
	// name server; without it the proxy connects from the host and names are in
	// the container's hosts file.
	uplink bool
	// resolver has the options of resolv.conf there; the default gives up after a second.
	resolver string
	// up is an upstream to share; nth is the container's number at it.
	up  *upstream.Host
	nth int
	// files change the root filesystem before the container is made.
	files func(rootfs string)
	// env and argv are the first process's.
	env, argv []string
	readonly  bool
	// spec changes config.json.
	spec func(map[string]any)
}

// box is a sandbox that runs, with the attacker's server at the other end.
type box struct {
	*world
	id   string
	up   *upstream.Host
	addr netip.Addr // the container's own, of its uplink
}

var boxes atomic.Int64

// newBox starts a sandbox and, unless one is shared, its upstream.
func newBox(t *testing.T, o boxOptions) *box {
	t.Helper()
	b := boxOf(t, o)
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	return b
}

// boxOf lays a bundle out and does not run it.
func boxOf(t *testing.T, o boxOptions) *box {
	t.Helper()
	if o.policy == "" {
		o.policy = netPolicy
	}
	b := &box{world: newWorld(t, o.policy), id: fmt.Sprintf("box%d-%d", boxes.Add(1), os.Getpid()), up: o.up}
	if o.config != "" {
		b.config = b.file("config.yaml", "log_dir: "+b.records()+"\n"+o.config)
	}
	if b.up == nil {
		b.up = startUpstream(t)
	}
	ca := filepath.Join(b.dir, "ca.pem")
	if err := b.up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	b.flags = []string{"--upstream-ca", ca}
	network := map[string]any{"type": "network"}
	hosts, resolv := "127.0.0.1 localhost\n", "# no resolver\n"
	if o.uplink {
		path, addr, err := b.up.Uplink(o.nth)
		if err != nil {
			t.Fatal(err)
		}
		network["path"], b.addr = path, addr
		resolv = fmt.Sprintf("nameserver %s\noptions %s\n", b.up.Inside(), cmp.Or(o.resolver, "timeout:1 attempts:1"))
	} else {
		b.flags = append(b.flags, "--egress", "host")
		hosts += fmt.Sprintf("%s api.test plain.test raw.test denied.test\n%s six.test\n", b.up.Addr, b.up.Addr6)
	}
	b.imageFile("etc/ssl/certs/ca-certificates.crt", string(b.up.CA))
	if o.files != nil {
		o.files(b.rootfs)
	}
	if o.argv == nil {
		o.argv = []string{"/bin/probe", "sleep", "10m"}
	}
	bind := func(name, text string) map[string]any {
		return map[string]any{"destination": "/etc/" + name, "type": "bind", "source": b.file(name, text), "options": []string{"bind", "rw"}}
	}
	spec := map[string]any{
		"ociVersion": "1.2.0", "root": map[string]any{"path": b.rootfs, "readonly": o.readonly},
		"process": map[string]any{
			"args": o.argv, "cwd": "/", "env": append([]string{"PATH=/bin:/usr/bin"}, o.env...), "user": map[string]any{"uid": 0, "gid": 0},
		},
		"mounts": []any{
			map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
			map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
			bind("hosts", hosts), bind("resolv.conf", resolv),
		},
		"linux": map[string]any{
			"namespaces": []any{
				map[string]any{"type": "pid"}, map[string]any{"type": "mount"}, map[string]any{"type": "ipc"}, map[string]any{"type": "uts"}, network,
			},
			"maskedPaths":   []any{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"},
			"readonlyPaths": []any{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if o.spec != nil {
		o.spec(spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	b.file("config.json", string(text))
	t.Cleanup(func() { _, _ = b.runtime("delete", "--force", b.id) })
	return b
}

// imageFile writes a file of the image.
func (w *world) imageFile(name, text string) {
	w.t.Helper()
	file := filepath.Join(w.rootfs, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
		w.t.Fatal(err)
	}
}

func startUpstream(t *testing.T) *upstream.Host {
	t.Helper()
	up, err := upstream.Open(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := up.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		addr := up.Inside()
		if name == "six.test" {
			addr = up.Inside6()
		}
		up.Name(name, func(int) []netip.Addr { return []netip.Addr{addr} })
	}
	return up
}

// exec runs argv in the box and returns what it printed.
func (b *box) exec(argv ...string) string {
	b.t.Helper()
	return b.start(nil, argv...)()
}

// execEnv is exec with more environment variables.
func (b *box) execEnv(env []string, argv ...string) string {
	b.t.Helper()
	return b.start(env, argv...)()
}

// start is exec that does not wait; the returned function does.
func (b *box) start(env []string, argv ...string) (wait func() string) {
	b.t.Helper()
	_, wait = b.watch(env, argv...)
	return wait
}

// watch is start with a look at what was printed so far.
func (b *box) watch(env []string, argv ...string) (soFar, wait func() string) {
	b.t.Helper()
	args := []string{"exec"}
	for _, e := range env {
		args = append(args, "--env", e)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "openshell-runtime"), b.runtimeArgs(append(append(args, b.id), argv...)...)...)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		cancel()
		b.t.Fatal(err)
	}
	b.t.Cleanup(cancel)
	done := sync.OnceFunc(func() {
		defer cancel()
		_ = cmd.Wait() // the status is the program's, which says so itself
		if ctx.Err() != nil {
			b.t.Errorf("%v: still running after %s", argv, runTimeout)
		}
	})
	return out.String, func() string {
		done()
		return out.String()
	}
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(o.buf.String())
}

// allowed fails unless argv's request reached the upstream's server.
func (b *box) allowed(argv ...string) string {
	b.t.Helper()
	b.up.Reset()
	out := b.exec(argv...)
	if !strings.HasPrefix(out, "ok: ") || !strings.Contains(out, "upstream saw ") || len(b.up.Requests()) == 0 {
		b.t.Errorf("%v printed %q; the upstream saw %v", argv, out, b.up.Requests())
	}
	return out
}

// refused fails if anything of what argv does reaches the upstream, or if the
// program is told that it did.
func (b *box) refused(argv ...string) string {
	b.t.Helper()
	b.up.Reset()
	out := b.exec(argv...)
	b.nothingArrived(argv, out)
	return out
}

// quiet is how long a test watches for something that must not arrive at the upstream: a packet
// that has been sent arrives within a millisecond.
const quiet = 20 * time.Millisecond

// nothingArrived fails if the upstream saw anything since its last Reset.
func (b *box) nothingArrived(argv []string, out string) {
	b.t.Helper()
	if strings.Contains(out, "upstream saw ") {
		b.t.Errorf("%v printed %q", argv, out)
	}
	if testenv.Eventually(quiet, func() bool { return len(b.up.Arrived())+len(b.up.Requests())+len(b.up.Queries()) > 0 }) {
		b.t.Errorf("%v printed %q, and the upstream got packets %v, requests %v, queries %v", argv, out, b.up.Arrived(), b.up.Requests(), b.up.Queries())
	}
}

// noRequestArrived fails if a request reached the upstream's servers: the
// connection itself was allowed.
func (b *box) noRequestArrived(argv []string, out string) {
	b.t.Helper()
	if strings.Contains(out, "upstream saw ") || testenv.Eventually(quiet, func() bool { return len(b.up.Requests()) > 0 || b.up.Saw("c2VjcmV0") }) {
		b.t.Errorf("%v printed %q, and the upstream got %v", argv, out, b.up.Requests())
	}
}

// proxy asks the box's proxy how it is.
func (b *box) proxy() *proxyapi.Status {
	b.t.Helper()
	st, err := b.control().Status(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func (b *box) control() *proxyapi.Client {
	return proxyapi.Dial(proxyapi.ControlSocket(b.stateDir()))
}

func (b *box) stateDir() string { return state.Dir(b.state(), b.id) }

// guard is the number of the proxy's guard, once whoever holds the lock has written it.
func (b *box) guard() int {
	b.t.Helper()
	var text []byte
	b.until("a guard says its number", func() (there bool) {
		var err error
		if text, err = os.ReadFile(filepath.Join(b.stateDir(), proxyapi.LockFile)); err != nil {
			b.t.Fatal(err)
		}
		return len(text) > 0
	})
	return number(b.t, string(text))
}

// init is the number of the container's first process.
func (b *box) init() int {
	b.t.Helper()
	out, err := b.runtime("state", b.id)
	var s struct{ Pid int }
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || s.Pid == 0 {
		b.t.Fatalf("state: %v: %s", err, out)
	}
	return s.Pid
}

func number(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q is no number: %v", s, err)
	}
	return n
}

// log is the record of the box's decisions, line by line.
func (b *box) log() []string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.records(), b.id, "decisions.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	return lines[:len(lines)-1] // the last one is empty, or not yet whole
}

// record waits for a decision for which meant returns true.
func (b *box) record(what string, meant func(decisionlog.Record) bool) (found decisionlog.Record) {
	b.t.Helper()
	if !testenv.Eventually(5*time.Second, func() bool {
		for _, line := range slices.Backward(b.log()) {
			var r decisionlog.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				b.t.Fatalf("line %q: %v", line, err)
			}
			if meant(r) {
				found = r
				return true
			}
		}
		return false
	}) {
		b.t.Errorf("no record of %s in\n%s", what, strings.Join(b.log(), "\n"))
	}
	return found
}

// deny waits for the record of a refusal of host.
func (b *box) deny(host string) decisionlog.Record {
	b.t.Helper()
	return b.record("a refusal of "+host, func(r decisionlog.Record) bool { return r.Verdict == "deny" && r.Host == host })
}
