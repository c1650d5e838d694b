// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/decisionlog"
)

// auditPolicy only records what its rules do not allow.
var auditPolicy = strings.Replace(netPolicy, "enforcement: enforce\n", "enforcement: audit\n", 1)

// Every decision is recorded with who asked, for what, and why it was decided so.
func TestRecords(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: auditPolicy})
	probe, err := os.ReadFile(filepath.Join(b.rootfs, "bin/probe"))
	if err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(probe))
	const body = "twelve bytes"
	for _, tc := range []struct {
		name string
		argv []string
		want decisionlog.Record
	}{
		{"allow", []string{"http", "GET", "https://api.test/ok/1?key=c2VjcmV0"}, decisionlog.Record{
			Verdict: "allow", Layer: "l7", Host: "api.test", Port: 443, Protocol: "h2", Method: "GET", Path: "/ok/1", Policy: "api", Status: 200, Revision: 1,
		}},
		{"audit", []string{"http1", "POST", "https://api.test/audited", body}, decisionlog.Record{
			Verdict: "audit", Layer: "l7", Host: "api.test", Port: 443, Protocol: "https", Method: "POST", Path: "/audited", Policy: "api", Status: 200, Revision: 1,
			BytesOut: int64(len(body)),
		}},
		{"deny a request", []string{"direct", "POST", "http://api.test/refused", body}, decisionlog.Record{
			Verdict: "deny", Layer: "l7", Host: "api.test", Port: 80, Protocol: "http", Method: "POST", Path: "/refused", Policy: "api", Status: 403, Revision: 1,
		}},
		{"deny a host", []string{"http", "GET", "https://denied.test/"}, decisionlog.Record{
			Verdict: "deny", Layer: "l4", Host: "denied.test", Port: 443, Status: 403, Revision: 1,
		}},
		{"deny a name", []string{"lookup", "c2VjcmV0.attacker.test"}, decisionlog.Record{
			Verdict: "deny", Layer: "dns", Host: "c2vjcmv0.attacker.test", Protocol: "dns",
		}},
		{"tunnel", []string{"say", "tcp", "raw.test:7000", body}, decisionlog.Record{
			Verdict: "allow", Layer: "l4", Host: "raw.test", Port: 7000, Protocol: "tcp", Policy: "api", BytesIn: int64(len(body)), BytesOut: int64(len(body)), Revision: 1,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			out := b.exec(append([]string{"/bin/probe"}, tc.argv...)...)
			w := tc.want
			r := b.record(tc.name, func(r decisionlog.Record) bool {
				return r.Verdict == w.Verdict && r.Host == w.Host && r.Path == w.Path && r.Port == w.Port && (w.Protocol == "" || r.Protocol == w.Protocol)
			})
			got := decisionlog.Record{
				Verdict: r.Verdict, Layer: r.Layer, Host: r.Host, Port: r.Port, Protocol: w.Protocol, Method: r.Method, Path: r.Path,
				Policy: r.Policy, Status: r.Status, Revision: r.Revision, BytesIn: r.BytesIn, BytesOut: r.BytesOut,
			}
			if w.BytesIn == 0 {
				got.BytesIn = 0
			}
			if w.Layer == "dns" {
				got.Method, got.Revision = "", 0
			}
			if g, want := line(t, got), line(t, w); g != want {
				t.Errorf("printed %q, recorded\n%s, want\n%s", out, g, want)
			}
			if w.Layer != "dns" && (r.Binary != "/bin/probe" || r.Digest != digest || r.Pid <= 1) {
				t.Errorf("recorded program %s, %s, process %d", r.Binary, r.Digest, r.Pid)
			}
			if w.Verdict == "deny" && r.Reason == "" {
				t.Error("no reason is recorded")
			}
		})
	}
	t.Run("no secret of a query", func(t *testing.T) {
		if text := strings.Join(b.log(), "\n"); strings.Contains(text, "key=") {
			t.Errorf("a query is recorded:\n%s", text)
		}
	})
	t.Run("openshell logs", func(t *testing.T) {
		out, status := b.logs("--denied")
		if status != 0 || !strings.Contains(out, "denied.test") || strings.Contains(out, "/audited") {
			t.Errorf("status %d, printed\n%s", status, out)
		}
	})
}

func line(t *testing.T, r decisionlog.Record) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// logs prints the box's records with the CLI.
func (b *box) logs(args ...string) (string, int) {
	b.t.Helper()
	return b.command(append([]string{"logs", b.id, "--config", b.config}, args...)...)
}

// TestBypass_B75_HostileRecords: what a workload writes into names and requests
// makes no line of its own in the record, nor anything of a terminal.
func TestBypass_B75_HostileRecords(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{})
	const evil = `\x1b[2J\x1b]0;owned\x07`
	long := strings.Repeat("x", 9000)
	before := len(b.log())
	var hostile []string
	for _, text := range []string{
		`CONNECT a` + evil + `:443 HTTP/1.1\r\nHost: a\r\n\r\n`,
		`CONNECT a%0d%0a{"verdict":"allow"}:443 HTTP/1.1\r\nHost: x\r\n\r\n`,
		`GET http://api.test/x` + evil + ` HTTP/1.1\r\nHost: api.test\r\n\r\n`,
		`GET http://api.test/%0d%0a%1b[2J{"verdict":"allow","host":"forged.test"} HTTP/1.1\r\nHost: api.test\r\n\r\n`,
		`GET http://api.test/ok HTTP/1.1\r\nHost: api.test\r\nUser-Agent: ` + evil + `\r\n\r\n`,
		`GET http://api.test/ok HTTP/1.1\r\nHost: api.test` + evil + `\r\n\r\n`,
		`FOO` + evil + ` http://api.test/ok HTTP/1.1\r\nHost: api.test\r\n\r\n`,
		`GET http://` + long + `.test/ HTTP/1.1\r\nHost: ` + long + `.test\r\n\r\n`,
		`GET http://api.test/` + long + ` HTTP/1.1\r\nHost: api.test\r\n\r\n`,
		`POST http://api.test/\xe2\x80\xae\xff\xfe HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\n\r\n`,
	} {
		hostile = append(hostile, b.exec("/bin/probe", "say", "tcp", "127.0.0.1:15001", text))
	}
	for _, name := range []string{`a\nb.attacker.test`, "a\x1b[2J.attacker.test", `{"verdict":"allow"}.test`} {
		b.exec("/bin/probe", "query", "udp", "127.0.0.1:53", "A", name)
	}
	b.until("most attempts are recorded", func() bool { return len(b.log()) >= before+8 })
	b.exec("/bin/probe", "say", "tcp", "127.0.0.1:15001", `CONNECT last.test:443 HTTP/1.1\r\nHost: last.test:443\r\n\r\n`)
	b.deny("last.test")
	for i, text := range b.log() {
		var r decisionlog.Record
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.Seq != uint64(i+1) || r.Container != b.id {
			t.Errorf("line %d is %q: %v", i+1, text, err)
		}
		if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("line %d is not plain: %q", i+1, text)
		}
		if r.Host == "forged.test" || r.Verdict == "allow" && r.Path != "/ok" && !strings.HasPrefix(r.Path, "/") {
			t.Errorf("line %d is forged: %s", i+1, text)
		}
		if len(text) > 64<<10 {
			t.Errorf("line %d has %d bytes", i+1, len(text))
		}
	}
	out, status := b.logs()
	if status != 0 || strings.ContainsFunc(out, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c > '~' }) {
		t.Errorf("status %d, printed %q; the answers were %q", status, out, hostile)
	}
	if n := strings.Count(out, "\n") + 1; n > len(b.log())*2 {
		t.Errorf("%d lines are printed of %d records", n, len(b.log()))
	}
}
