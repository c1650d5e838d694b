// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/testenv"
)

// enforcedWithin bounds the time from `openshell policy set` to its end, after
// which the policy is enforced.
const enforcedWithin = 5 * time.Second

func (b *box) set(policy string) (string, int) {
	b.t.Helper()
	return b.cli("policy", "set", b.id, "--policy", b.file("next.yaml", policy))
}

func (b *box) mustSet(policy string) {
	b.t.Helper()
	began := time.Now()
	if out, status := b.set(policy); status != 0 {
		b.t.Fatalf("policy set: status %d: %s", status, out)
	}
	if d := time.Since(began); d > enforcedWithin {
		b.t.Errorf("policy set took %s", d)
	}
}

// post says whether a POST arrives.
func (b *box) post() bool {
	b.t.Helper()
	b.up.Reset()
	out := b.exec("/bin/probe", "http", "POST", "https://api.test/ok/1", "c2VjcmV0")
	arrived := len(b.up.Requests()) > 0
	if said := strings.HasPrefix(out, "ok: HTTP/2.0 200"); said != arrived {
		b.t.Errorf("printed %q, arrived: %v", out, arrived)
	}
	return arrived
}

// TestBypass_B74_Reload: a policy that is set is enforced when the command ends,
// without a restart, and one that is refused changes nothing.
func TestBypass_B74_Reload(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	began := b.proxy().Started
	if b.post() {
		t.Fatal("POST was allowed from the start")
	}
	b.mustSet(postPolicy)
	if !b.post() {
		t.Error("POST is refused after the reload")
	}
	b.mustSet(netPolicy)
	if b.post() {
		t.Error("POST is allowed after it was turned off")
	}
	b.mustSet(postPolicy)
	for _, tc := range []struct{ name, text, want string }{
		{"static change", strings.Replace(netPolicy, "read_write: [/tmp]", "read_write: [/tmp, /usr]", 1), "filesystem_policy"},
		{"truncated", netPolicy[:strings.Index(netPolicy, "protocol: rest")+12], "next.yaml"},
		{"cut in a word", netPolicy[:len(netPolicy)-6], "next.yaml"},
		{"empty", "", "next.yaml"},
		{"no YAML", "\x00\x01\x02", "next.yaml"},
		{"unknown field", netPolicy + "network_polices: {}\n", "network_polices"},
		{"unknown version", strings.Replace(netPolicy, "version: 1", "version: 2", 1), "version"},
		{"too large", netPolicy + strings.Repeat("# comment\n", 1<<19), "larger"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			out, status := b.set(tc.text)
			if status == 0 || !strings.Contains(out, tc.want) {
				t.Errorf("status %d, printed %s; want …%s…", status, out, tc.want)
			}
			if !b.post() {
				t.Error("the policy before does not hold any more")
			}
		})
	}
	if out, status := b.cli("policy", "rollback", b.id, "--revision", "1"); status != 0 {
		t.Errorf("rollback: %s", out)
	}
	if b.post() {
		t.Error("POST is allowed after the rollback")
	}
	st := b.proxy()
	if !st.Started.Equal(began) {
		t.Error("the proxy was restarted")
	}
	if st.Revision != 5 {
		t.Errorf("revision %d, want 5: what was refused counts for none", st.Revision)
	}
}

// TestBypass_B74_FailClosed: where the operator chose it, an invalid policy has
// everything denied, to the next worker too, until a valid one is set.
func TestBypass_B74_FailClosed(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{})
	b.file("config.yaml", "log_dir: "+b.records()+"\npolicy_validation_failure_mode: fail_closed\n")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	soFar, wait := b.watch(nil, "/bin/probe", "stream", "https://plain.test/ok/events")
	b.until("it is open", func() bool { return strings.Contains(soFar(), "status 200") && b.up.Streams() == 1 })
	if out, status := b.set(strings.Replace(netPolicy, "read_write: [/tmp]", "read_write: [/tmp, /usr]", 1)); status != 3 || b.up.Streams() != 1 {
		t.Errorf("a locked field: status %d, %s, %d streams", status, out, b.up.Streams())
	}
	const invalid = netPolicy + "network_polices: {}\n"
	out, status := b.set(invalid)
	if status != 3 || !strings.Contains(out, "network_polices") || !strings.Contains(out, "denied everything until a valid policy is set (revision 2)") {
		t.Errorf("status %d, %s", status, out)
	}
	b.until("the upstream's side ends", func() bool { return b.up.Streams() == 0 })
	if out := wait(); strings.Contains(out, "still open") {
		t.Errorf("printed %q", out)
	}
	const why = "an invalid policy was set"
	r := b.record("the end of the stream", func(r decisionlog.Record) bool { return r.Protocol == "tcp" && r.Host == "plain.test" })
	if r.Verdict != "deny" || r.Revision != 2 || !strings.Contains(r.Reason, why) {
		t.Errorf("recorded %+v", r)
	}
	recorded := func() int { return strings.Count(strings.Join(b.log(), "\n"), why) }
	closed := func() {
		t.Helper()
		before := recorded()
		for _, argv := range [][]string{{"http", "GET", "https://api.test/ok/1"}, {"http", "GET", "http://api.test/ok/1"}, {"http", "GET", "https://plain.test/ok/1"}} {
			b.refused(append([]string{"/bin/probe"}, argv...)...)
		}
		b.until("all three are recorded", func() bool { return recorded() == before+3 })
		if st := b.proxy(); !strings.Contains(st.Closed, why) || st.Revision != 2 {
			t.Errorf("status %+v", st)
		}
		if out, _ := b.cli("policy", "list", b.id); !strings.Contains(out, "failed") || strings.Contains(out, "loaded") {
			t.Errorf("list printed %s", out)
		}
		if out, _ := b.cli("inspect", b.id); !strings.Contains(out, why) {
			t.Errorf("inspect printed %s", out)
		}
	}
	closed()
	before := b.proxy()
	kill(t, before.Pid, unix.SIGKILL)
	b.until("another worker serves", func() bool {
		st, err := b.control().Status(t.Context())
		return err == nil && st.Pid != before.Pid
	})
	closed()
	b.mustSet(postPolicy)
	if !b.post() {
		t.Error("a valid policy does not heal it")
	}
	if st := b.proxy(); st.Closed != "" || st.Revision != 3 {
		t.Errorf("status %+v", st)
	}
	if _, status := b.set(invalid); status != 3 || b.post() {
		t.Error("it does not close again")
	}
	if out, status := b.cli("policy", "rollback", b.id, "--revision", "1"); status != 0 || out != "revision 5" {
		t.Errorf("rollback: %s", out)
	}
	b.allowed("/bin/probe", "http", "GET", "https://api.test/ok/1")
}

// TestBypass_B30_B77_OpenConnections: what a new policy does not allow ends, on
// connections that were open before it, too; what it still allows stays.
func TestBypass_B30_B77_OpenConnections(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	for _, tc := range []struct {
		name string
		argv []string
		// without is the policy that turns it off, other one that leaves it on.
		without, other string
	}{
		{
			"event stream over TLS",
			[]string{"stream", "https://api.test/ok/events"},
			strings.Replace(netPolicy, `path: "/ok/**"`, `path: "/none/**"`, 1), postPolicy,
		},
		{"event stream", []string{"stream", "http://api.test/ok/events"}, strings.Replace(netPolicy, "port: 80,", "port: 81,", 1), postPolicy},
		{"event stream of a spliced host", []string{"stream", "https://plain.test/ok/events"}, strings.Replace(netPolicy, "host: plain.test", "host: none.test", 1), postPolicy},
		{"tunnel", []string{"tunnel", "raw.test:7000"}, strings.Replace(netPolicy, "host: raw.test", "host: none.test", 1), postPolicy},
		{
			"spliced host whose requests are judged now",
			[]string{"stream", "https://plain.test/ok/events"},
			strings.Replace(netPolicy, "{host: plain.test, port: 443}", "{host: plain.test, port: 443, protocol: rest, access: full, enforcement: enforce}", 1), postPolicy,
		},
		{"program that is not allowed any more", []string{"stream", "https://api.test/ok/events"}, strings.Replace(netPolicy, "path: /bin/probe", "path: /bin/none", 1), postPolicy},
		{"no policies", []string{"stream", "https://api.test/ok/events"}, netPolicy[:strings.Index(netPolicy, "network_policies:")] + "network_policies: {}\n", postPolicy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			b.mustSet(netPolicy)
			soFar, wait := b.watch(nil, append([]string{"/bin/probe"}, tc.argv...)...)
			b.until("it is open", func() bool { return strings.Contains(soFar(), "status") && b.up.Streams() == 1 })
			if strings.Contains(soFar(), "status 403") {
				t.Fatalf("printed %q", soFar())
			}
			b.mustSet(tc.other)
			if testenv.Eventually(50*time.Millisecond, func() bool { return b.up.Streams() != 1 }) {
				t.Fatal("a policy that allows it ended it")
			}
			b.mustSet(tc.without)
			ended := time.Now()
			b.until("the upstream's side ends", func() bool { return b.up.Streams() == 0 })
			if d := time.Since(ended); d > time.Second {
				t.Errorf("it ended %s after the policy was set", d)
			}
			if out := wait(); strings.Contains(out, "still open") {
				t.Errorf("printed %q", out)
			}
		})
	}
}

// Many who set policies at once get a revision each, and the last one holds.
func TestReloadAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	const times = 20
	var wait sync.WaitGroup
	revisions := make([]string, times)
	for i := range times {
		text := netPolicy
		if i%2 == 0 {
			text = postPolicy
		}
		file := b.file(fmt.Sprintf("p%d.yaml", i), text)
		wait.Go(func() {
			out, status := b.cli("policy", "set", b.id, "--policy", file)
			if revisions[i] = out; status != 0 {
				t.Errorf("status %d: %s", status, out)
			}
		})
	}
	wait.Wait()
	seen := map[string]bool{}
	for _, r := range revisions {
		seen[r] = true
	}
	if len(seen) != times || b.proxy().Revision != times+1 {
		t.Errorf("%d revisions, the last is %d: %v", len(seen), b.proxy().Revision, revisions)
	}
	text, _, err := b.control().Policy(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if b.post() != (string(text) == postPolicy) {
		t.Error("what is shown is not what is enforced")
	}
}
