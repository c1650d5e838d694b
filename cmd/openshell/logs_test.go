// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/decisionlog"
)

func TestLogLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	for _, tc := range []struct {
		name string
		r    decisionlog.Record
		want string
	}{
		{
			"request",
			decisionlog.Record{Verdict: "allow", Layer: "l7", Pid: 7, Binary: "/usr/bin/curl", Host: "api.test", Port: 443, Protocol: "h2", Method: "GET", Path: "/zen", Policy: "api", Rule: "GET /**"},
			"allow /usr/bin/curl[7] GET api.test:443/zen  api: GET /**",
		},
		{
			"connection",
			decisionlog.Record{Verdict: "deny", Layer: "l4", Binary: "/bin/nc", Host: "evil.test", Port: 80, Protocol: "tcp", Reason: "no policy matches"},
			"deny  /bin/nc TCP evil.test:80  no policy matches",
		},
		{
			"denied by a rule",
			decisionlog.Record{Verdict: "deny", Layer: "l7", Binary: "/usr/bin/curl", Host: "api.test", Port: 443, Method: "GET", Path: "/x", Policy: "api", Rule: "deny_rules[1] GET /**", Line: 18, Reason: "GET /x blocked by deny rule"},
			"deny  /usr/bin/curl GET api.test:443/x  GET /x blocked by deny rule (api: deny_rules[1] GET /**, line 18)",
		},
		{"caller unknown, address alone", decisionlog.Record{Verdict: "deny", Layer: "l4", Address: "fd00::1", Port: 80}, "deny  unknown L4 [fd00::1]:80"},
		{"escapes", decisionlog.Record{Verdict: "deny", Binary: "/x\x1b[2J", Method: "G\nET", Host: "a", Path: "/\u202e", Reason: "r\r"}, `deny  /x\x1b[2J G\nET a/\u202e  r\r`},
		{
			"counted",
			decisionlog.Record{Verdict: "deny", Layer: "l4", Host: "evil.test", Port: 80, Reason: "no", Count: 7, First: at.Add(-time.Minute), Last: at},
			"deny  unknown L4 evil.test:80  no (7 more like this from 03:03:05.006 to 03:04:05.006)",
		},
		{
			"counted, of many kinds",
			decisionlog.Record{Verdict: "deny", Layer: "dns", Reason: "refusals of more kinds than are recorded one by one", Count: 7, First: at, Last: at},
			"deny  unknown DNS   refusals of more kinds than are recorded one by one (7 more like this from 03:04:05.006 to 03:04:05.006)",
		},
		{"gap", decisionlog.Record{Dropped: 3}, "3 records before this are missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.r.Time = at
			_, got, _ := strings.Cut(logLine(tc.r), " ")
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	top := t.TempDir()
	for id, text := range map[string]string{
		"4f3a": "{\"seq\":1,\"verdict\":\"allow\",\"host\":\"one\"}\nbroken\n{\"seq\":2,\"verdict\":\"deny\",\"host\":\"two\"}\n{\"seq\":3,\"verdict\":\"deny\",\"host\":\"three\"}\n",
		"4f3b": "", "box": "", "box-2": "",
		"fold": "{\"seq\":1,\"verdict\":\"deny\",\"host\":\"one\"}\n{\"seq\":2,\"verdict\":\"deny\",\"host\":\"one\",\"count\":7,\"first\":\"2026-01-02T03:04:05Z\",\"last\":\"2026-01-02T03:04:06Z\"}\n",
	} {
		dir := filepath.Join(top, id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, decisionlog.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, args string
		want       []string
		errs, err  string
	}{
		{"all", "4f3a", []string{"one", "two", "three"}, "line 2", ""},
		{"denied", "4f3a --denied", []string{"two", "three"}, "line 2", ""},
		{"last", "4f3a -n 2", []string{"two", "three"}, "line 2", ""},
		{"last of the denied", "4f3a -n 1 --denied", []string{"three"}, "line 2", ""},
		{"json", "4f3a -n 1 -o json", []string{`"host":"three"`}, "line 2", ""},
		{"counts for programs", "fold --denied -o json -n 1", []string{`"count":7,"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:06Z"`}, "", ""},
		{"exact beats prefix", "box", nil, "", ""},
		{"ambiguous", "4f3", nil, "", "means more than one log"},
		{"unknown", "web", nil, "", "names are not known here"},
		{"a way up", "..", nil, "", "holds no log"},
		{"negative", "4f3a -n=-1", nil, "", "wants a number"},
		{"other format", "4f3a -o yaml", nil, "", "want text or json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			app := &cli.App{Commands: []*cli.Command{logsCommand()}, Writer: &out, ErrWriter: &errs, ExitErrHandler: func(*cli.Context, error) {}}
			args := append([]string{"openshell", "logs", "--log-dir", top}, strings.Fields(tc.args)...)
			err := app.Run(order(app.Commands, args))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || !strings.Contains(errs.String(), tc.errs) {
				t.Errorf("error %v, printed %s", err, errs.String())
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if out.Len() == 0 {
				lines = nil
			}
			if len(lines) != len(tc.want) {
				t.Fatalf("printed %q", lines)
			}
			for i := range lines {
				if !strings.Contains(lines[i], tc.want[i]) {
					t.Errorf("line %d: %s, want …%s…", i, lines[i], tc.want[i])
				}
			}
		})
	}
}
