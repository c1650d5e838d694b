// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/decisionlog"
)

// introduce prints the policy with line numbers, to which the steps refer.
func (s *scene) introduce() {
	fmt.Printf("The policy:\n\n")
	for i, l := range strings.Split(strings.TrimSuffix(s.text, "\n"), "\n") {
		fmt.Printf("  %3d  %s\n", i+1, l)
	}
	fmt.Printf("\nThe other side: a host of the demo's own at %s, with a CA that the proxy\nis told of; its names are api, docs and evil.demo.test.\n", s.up.Addr)
}

// show performs one step, prints it, and reports whether all results were as expected.
func (s *scene) show(n int, st step) (bool, error) {
	before := len(s.up.Requests())
	said, err := s.act(&st)
	if err != nil {
		return false, err
	}
	var problems []string
	for _, want := range st.answers {
		if !strings.Contains(said, want) {
			problems = append(problems, fmt.Sprintf("the answer lacks %q", want))
		}
	}
	got := strings.Join(spell(s.up.Requests()[before:]), ", ")
	if got != st.received {
		problems = append(problems, fmt.Sprintf("the server received %q, want %q", got, st.received))
	}
	by, why := s.decider(&st)
	if why != "" {
		problems = append(problems, why)
	}
	verdict := "as expected"
	if len(problems) > 0 {
		verdict = "UNEXPECTED: " + strings.Join(problems, "; ")
	}
	fmt.Printf("\n%2d  %-46s %s\n", n, st.title, verdict)
	row("answer", said)
	row("by", by)
	if st.verdict != "" {
		if got == "" {
			got = "nothing"
		}
		row("received", got)
	}
	return len(problems) == 0, nil
}

// decider returns a description of the line or rule that decided.
func (s *scene) decider(st *step) (by, problem string) {
	if st.line != "" {
		if by, problem = s.lineOf(st.line); problem != "" {
			return by, problem
		}
	}
	if st.verdict == "" {
		return by + st.builtin, ""
	}
	rec, err := s.recorded(st.host, st.verdict)
	switch {
	case err != nil:
		return by, err.Error()
	case rec == nil:
		return by, fmt.Sprintf("no record says %s of %s", st.verdict, st.host)
	case rec.Line > 0 && st.line == "":
		by = fmt.Sprintf("policy.yaml:%d  %s: %s", rec.Line, rec.Policy, rec.Rule)
	case rec.Line > 0 || st.line == "":
		return by, fmt.Sprintf("the record names line %d", rec.Line)
	}
	if rec.Reason != "" {
		by += " | " + rec.Reason
	}
	return by, ""
}

// Sizes of the output, in columns and lines.
const (
	width    = 84
	maxLines = 4
)

// row prints a text with a label. It breaks lines at the end of words or members, and cuts
// long texts.
func row(name, text string) {
	for n := 1; n == 1 || text != ""; n++ {
		line := text
		if len(line) > width {
			line = line[:width]
			if i := strings.LastIndexAny(line, " ,"); i > width/2 {
				line = line[:i+1]
			}
		}
		if text = text[len(line):]; n == maxLines && text != "" {
			line, text = line+" ...", ""
		}
		fmt.Printf("    %-9s %s\n", name, line)
		name = ""
	}
}

// act performs a step's action and returns the line that it printed.
func (s *scene) act(st *step) (string, error) {
	if old, changed := st.reload[0], st.reload[1]; old != "" {
		s.text = strings.Replace(s.text, old, changed, 1)
		file := filepath.Join(s.dir, "policy-2.yaml")
		if err := os.WriteFile(file, []byte(s.text), 0o600); err != nil {
			return "", fmt.Errorf("write the new policy: %w", err)
		}
		return s.run("openshell", "policy", "set", s.name, "--policy", file, "--wait", "--root", s.states())
	}
	program := st.program
	if program == "" {
		program = "/bin/probe"
	}
	return s.ask(append([]string{program}, st.args...))
}

// lineOf returns the line of text in the policy in force.
func (s *scene) lineOf(text string) (where, problem string) {
	for i, l := range strings.Split(s.text, "\n") {
		if strings.Contains(l, text) {
			l, _, _ = strings.Cut(l, " #")
			return fmt.Sprintf("policy.yaml:%d  %s", i+1, strings.Trim(l, " -:")), ""
		}
	}
	return "policy.yaml", fmt.Sprintf("the policy has no line with %q", text)
}

// recordTimeout limits the wait for a record. Records are written asynchronously: traffic
// does not wait for them.
const recordTimeout = 3 * time.Second

// recorded returns the newest decision on host since the last step, or nil if none has the
// verdict.
func (s *scene) recorded(host, verdict string) (*decisionlog.Record, error) {
	for deadline := time.Now().Add(recordTimeout); ; time.Sleep(10 * time.Millisecond) {
		all, err := s.records()
		if err != nil {
			return nil, err
		}
		var found *decisionlog.Record
		for i := range all {
			if r := &all[i]; r.Seq > s.seen && r.Host == host && r.Verdict == verdict {
				found = r
			}
		}
		if found != nil {
			s.seen = found.Seq
			return found, nil
		}
		if time.Now().After(deadline) {
			return nil, nil
		}
	}
}

// summarise compares the server's log of the whole demo with the expected one.
func (s *scene) summarise() error {
	fmt.Printf("\nWhat the other side saw, in all:\n\n")
	var want []string
	for _, st := range steps {
		if st.received != "" {
			want = append(want, st.received)
		}
	}
	requests, queries := spell(s.up.Requests()), s.up.Queries()
	fmt.Printf("  requests   %s\n  questions  %s\n", strings.Join(requests, ", "), strings.Join(queries, ", "))
	var errs []error
	if !slices.Equal(requests, want) {
		errs = append(errs, fmt.Errorf("the requests were not %q", want))
	}
	// The control: the proxy does resolve a name that the policy allows.
	asked := slices.ContainsFunc(queries, func(q string) bool { return strings.HasSuffix(q, " docs.demo.test.") })
	other := slices.ContainsFunc(queries, func(q string) bool { return !strings.HasSuffix(q, " docs.demo.test.") })
	if !asked || other {
		errs = append(errs, errors.New("the questions were not for docs.demo.test alone"))
	}
	leaked := s.up.Saw(secret) || slices.ContainsFunc(s.up.Requests(), func(r upstream.Request) bool { return strings.Contains(r.Path+r.Body, secret) })
	if leaked {
		errs = append(errs, fmt.Errorf("the secret %s arrived", secret))
	} else {
		fmt.Printf("  the secret in no packet and in no request\n")
	}
	if first, err := s.firstProcess(); err != nil || first != s.first {
		errs = append(errs, fmt.Errorf("the sandbox's first process was %d and is %d (%w)", s.first, first, err))
	}
	return errors.Join(errs...)
}

func spell(requests []upstream.Request) []string {
	var out []string
	for _, r := range requests {
		out = append(out, r.Method+" "+r.Host+r.Path)
	}
	return out
}
