// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// minCommands is how many commands the list has at least.
const minCommands = 60

func TestCommands(t *testing.T) {
	all, err := parseCommands(commandsText)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < minCommands {
		t.Errorf("%d commands, want %d", len(all), minCommands)
	}
	if _, err := parseKnown(knownText, all); err != nil {
		t.Error(err)
	}
}

func TestCommandsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown field":      {"- {name: a, run: b, prints: c, nets: d}", "field nets not found"},
		"no name":            {"- {run: b, prints: c}", "want a name"},
		"no script":          {"- {name: a, prints: c}", "want run or exec"},
		"no output":          {"- {name: a, run: b}", "want prints"},
		"another network":    {"- {name: a, run: b, prints: c, network: all}", "want test, none or registries"},
		"bad expression":     {"- {name: a, run: b, prints: '('}", "prints: error parsing regexp"},
		"two of one name":    {"- {name: a, run: b, prints: c}\n- {name: a, run: b, prints: c}", "is there twice"},
		"openshell run":      {"- {name: a, run: b, prints: c, cli: true}", "want network: none"},
		"terminal":           {"- {name: a, run: b, prints: c, tty: true}", "want cli and run"},
		"other runc scripts": {"- {name: a, exec: [b], runc_exec: [b, b], prints: c}", "as many runc_exec"},
	} {
		if _, err := parseCommands([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want …%s…", name, err, tc.want)
		}
	}
}

func TestKnown(t *testing.T) {
	all := []*command{{Name: "a b"}}
	if known, err := parseKnown("# text\n\na b\tpoint 1: why\n", all); err != nil || known["a b"] != "point 1: why" {
		t.Errorf("%v, %v", known, err)
	}
	for text, want := range map[string]string{
		"a b\n":               "no reason",
		"a b point 1\n":       "no reason",
		"a b\tx\na b\ty\n":    "is there twice",
		"other\tpoint 1: x\n": "has no command",
	} {
		if _, err := parseKnown(text, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want …%s…", text, err, want)
		}
	}
}

func TestJudge(t *testing.T) {
	list, err := parseCommands([]byte("- {name: a, run: b, prints: ^ok, status: 3}"))
	if err != nil {
		t.Fatal(err)
	}
	good := side{Status: 3, Output: "ok\n"}
	known := map[string]string{"a": "point 1: why"}
	for name, tc := range map[string]struct {
		runc, sandbox   side
		known           map[string]string
		verdict, reason string
		failed          bool
	}{
		"equal":               {good, good, nil, verdictPass, "", false},
		"equal, other errors": {good, side{Status: 3, Output: "ok\n", Errors: "x"}, nil, verdictPass, "", false},
		"other status":        {good, side{Status: 1, Output: "ok\n"}, nil, verdictDiffers, "status 1, under runc status 3", true},
		"other output":        {good, side{Status: 3, Output: "ok\nmore\n"}, nil, verdictDiffers, `line 2: "more", under runc ""`, true},
		"no end":              {good, side{Status: statusTimeout}, nil, verdictDiffers, "no end, under runc status 3", true},
		"not run":             {good, side{Status: 3, Output: "ok\n", Err: "x"}, known, verdictBroken, "sandbox: x", true},
		"known":               {good, side{Status: 1}, known, verdictKnown, "point 1: why", false},
		"no longer differs":   {good, good, known, verdictEqual, "remove it", true},
		"fails in both":       {side{Status: 1}, side{Status: 1}, nil, verdictBroken, "status 1, want status 3", true},
		"prints nothing":      {side{Status: 3}, side{Status: 3}, known, verdictBroken, "does not match", true},
		"runc does not run":   {side{Status: 3, Output: "ok\n", Err: "x"}, good, nil, verdictBroken, "runc: x", true},
	} {
		r := &result{Name: "a", command: list[0], Runc: tc.runc, Sandbox: tc.sandbox}
		r.judge(tc.known)
		if r.Verdict != tc.verdict || !strings.Contains(r.Reason, tc.reason) || r.failed() != tc.failed {
			t.Errorf("%s: %s: %s, want %s: …%s…", name, r.Verdict, r.Reason, tc.verdict, tc.reason)
		}
		var out bytes.Buffer
		if err := report(&out, options{output: "table"}, []*result{r}); (err != nil) != tc.failed {
			t.Errorf("%s: report: %v", name, err)
		}
		if !strings.Contains(out.String(), "1 commands: ") || strings.Contains(out.String(), "=== a") != tc.failed {
			t.Errorf("%s: printed %s", name, out.String())
		}
	}
}
