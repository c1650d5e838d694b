// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
)

// soakVariable says how long TestSoak takes; usualSoak is enough to see that it works.
const (
	soakVariable = "OPENSHELL_TEST_SOAK"
	usualSoak    = "10s"
)

// What a proxy may have more after a soak than it had once it was warm.
const (
	soakMemory      = 64 << 10 // KiB
	soakDescriptors = 8
)

// sharedAddress is the traffic that is left out where names are in a hosts file, at one
// address: who connects there and is silent for too long (on a busy machine anybody) is
// taken to mean the first of them that is allowed (docs/compat.md).
const sharedAddress = "not inspected, led there"

// publishedPause is between two requests to a published port.
const publishedPause = 20 * time.Millisecond

// TestSoak: whatever a workload does for however long, and while its policy changes to
// others that allow the same, everything allowed works, all else is refused, and
// nothing is left.
func TestSoak(t *testing.T) {
	length := soakLength(t)
	t.Parallel()
	up := startUpstream(t)
	for name, o := range map[string]boxOptions{"from the host": {up: up}, "from its own network": {up: up, uplink: true, nth: 1, resolver: "timeout:10 attempts:1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var without []string
			if !o.uplink {
				without = append(without, sharedAddress)
			}
			o.argv = lives(length)
			newBox(t, o).soak(length, without...)
		})
	}
}

// TestDockerSoak is a soak in a container of Docker's that also serves a published port.
func TestDockerSoak(t *testing.T) {
	length := soakLength(t)
	t.Parallel()
	w := newWorld(t, netPolicy)
	ca := filepath.Join(w.dir, "upstream.pem")
	e := startDocker(t, map[string]string{"openshell": netPolicy}, "--upstream-ca", ca)
	up := e.upstream(names...)
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	w.imageFile("etc/ssl/certs/ca-certificates.crt", string(up.CA))
	e.importImage("probe", w.rootfs)
	run := []string{"run", "--detach", "--name", "busy", "--publish", "18080:8080", "--runtime", "openshell"}
	for _, name := range names {
		run = append(run, "--add-host", name+":"+up.Addr.String())
	}
	e.must(append(run, "probe", "/bin/probe", "serve", "8080")...)
	e.until("it serves", func() bool { return strings.Contains(e.must("logs", "busy"), "serving") })
	cmd := e.command("exec", "busy", "/bin/probe", "soak", length.String(), "IPv6", sharedAddress)
	asked := 0
	soaking(t, cmd, length, publishedPause, func() {
		for _, addr := range []string{"127.0.0.1:18080", up.Gateway.String() + ":18080"} {
			if got, err := e.get(addr); err != nil || got != "served GET /published" {
				t.Errorf("%s the %dth time, at %s: %q, %v", addr, asked, time.Now().UTC().Format(time.StampMilli), got, err)
			}
		}
		asked++
	})
	if asked == 0 {
		t.Error("the published port was never asked")
	}
	t.Logf("the published port was asked %d times", 2*asked)
	e.must("rm", "--force", "busy")
	e.nothingRemains()
}

// get asks for /published at addr, of Docker's host, on a new connection.
func (e *engine) get(addr string) (body string, err error) {
	e.within(func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", addr, runTimeout); err != nil {
			return nil
		}
		defer c.Close()
		client := http.Client{Timeout: runTimeout, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
		var resp *http.Response
		if resp, err = client.Get("http://server/published"); err != nil {
			return nil
		}
		defer resp.Body.Close()
		var b []byte
		b, err = io.ReadAll(resp.Body)
		body = string(b)
		return nil
	})
	return body, err
}

// soaking runs a soak of that length and calls aside from time to time. The soak must end,
// have done something of every kind, and have had no surprises.
func soaking(t *testing.T, cmd *exec.Cmd, length, every time.Duration, aside func()) {
	t.Helper()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.After(length + time.Minute)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			if aside != nil {
				aside()
			}
		case <-late:
			_ = cmd.Process.Kill()
			t.Fatalf("it does not end: %s", out)
		case err := <-ended:
			if running = false; err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	text := out.String()
	if strings.Contains(text, "surprise") || strings.Contains("\n"+text, "\n0\t") || !strings.Contains(text, "\t") {
		t.Error(text)
	}
	t.Log(text)
}

// soakMargin is the time that a soak takes beside its length.
const soakMargin = 10 * time.Minute

// lives is a first process that outlives a soak: the sandbox ends with it.
func lives(length time.Duration) []string {
	return []string{"/bin/probe", "sleep", (length + soakMargin).String()}
}

func soakLength(t *testing.T) time.Duration {
	t.Helper()
	length, err := time.ParseDuration(cmp.Or(os.Getenv(soakVariable), usualSoak))
	if err != nil {
		t.Fatal(err)
	}
	return length
}

func (b *box) soak(length time.Duration, without ...string) {
	t := b.t
	const more = "\n  more:\n    endpoints: [{host: other.test, port: 443}]\n    binaries: [{path: /bin/probe}]\n"
	policies := []string{b.file("policy1.yaml", netPolicy), b.file("policy2.yaml", netPolicy+more)}
	n := 0
	b.lasting(length, "soak", func() {
		if out, status := b.cli("policy", "set", b.id, "--policy", policies[n%2], "--wait"); status != 0 {
			t.Errorf("set the policy the %dth time: %s", n, out)
		}
		n++
		for _, r := range b.up.Requests() {
			if r.Method != http.MethodGet || !strings.HasPrefix(r.Path, "/ok/") || r.Host == "denied.test" {
				t.Errorf("the upstream saw %+v", r)
			}
		}
		b.up.Reset()
	}, without...)
	b.refusedOnly(func(r decisionlog.Record) bool {
		return r.Host == "denied.test" || r.Method == http.MethodPost || strings.HasPrefix(r.Path, "/not/")
	})
	t.Logf("%d policies", n)
}

// lasting is traffic after which the proxy is as it was.
func (b *box) lasting(length time.Duration, verb string, aside func(), without ...string) {
	t := b.t
	t.Helper()
	// Whatever is made once, is made.
	b.traffic(time.Second, verb, nil, without...)
	began := b.size()
	b.traffic(length, verb, aside, without...)
	b.until("all connections have ended", func() bool { return b.proxy().Connections == 0 })
	ended := b.size()
	for i, was := range began {
		is := ended[i]
		t.Logf("%s: %d KiB and %d descriptors, then %d KiB and %d", was.program, was.memory, was.descriptors, is.memory, is.descriptors)
		if is.pid != was.pid || is.memory > was.memory+soakMemory || is.descriptors > was.descriptors+soakDescriptors {
			t.Errorf("%+v became %+v", was, is)
		}
	}
}

// traffic has the box do what one of the probe's verbs says, and calls aside now and
// then.
func (b *box) traffic(length time.Duration, verb string, aside func(), without ...string) {
	t := b.t
	t.Helper()
	cmd := exec.Command(filepath.Join(b.bin, "openshell-runtime"), b.runtimeArgs(append([]string{"exec", b.id, "/bin/probe", verb, length.String()}, without...)...)...)
	soaking(t, cmd, length, time.Second, aside)
}

// refusedOnly fails if anything else was refused than what meant says. A soak makes
// refusals of more kinds than have records of their own: those are counted without a
// host, and here the answers that the probe got must do.
func (b *box) refusedOnly(meant func(r decisionlog.Record) bool) {
	b.t.Helper()
	lines := b.log()
	if len(lines) == 0 {
		b.t.Error("nothing was recorded")
	}
	for _, line := range lines {
		var r decisionlog.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("%s: %v", line, err)
		}
		if grouped := r.Count > 0 && r.Host == ""; r.Verdict != "allow" && !grouped && !meant(r) {
			b.t.Errorf("recorded: %s", line)
		}
	}
}

// size is what a process of the box's proxy takes.
type size struct {
	program                  string
	pid, memory, descriptors int
}

func (b *box) size() (sizes []size) {
	t := b.t
	t.Helper()
	for _, s := range []size{{program: "guard", pid: b.guard()}, {program: "worker", pid: b.proxy().Pid}} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
		if err != nil {
			t.Fatal(err)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		s.memory, s.descriptors = number(t, rss), len(fds)
		sizes = append(sizes, s)
	}
	return sizes
}
