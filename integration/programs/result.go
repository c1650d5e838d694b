// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Verdicts about a command.
const (
	// verdictPass: the results are equal.
	verdictPass = "PASS"
	// verdictKnown: they differ, and programs.known says why.
	verdictKnown = "known"
	// verdictDiffers: they differ, and nothing says why.
	verdictDiffers = "DIFFERS"
	// verdictEqual: they are equal, and programs.known says that they differ.
	verdictEqual = "REMOVE"
	// verdictBroken: under runc the command does not do what its entry says, or one
	// side did not run at all.
	verdictBroken = "BROKEN"
)

// statusTimeout is the exit status of a side that did not end in time.
const statusTimeout = -1

// side is what a command did in one place.
type side struct {
	Status int    `json:"status"`
	Output string `json:"output"`
	// Errors is the standard error, which is not compared.
	Errors  string  `json:"errors,omitempty"`
	Seconds float64 `json:"seconds"`
	// Err says why there is no result. The cause is this program or the machine.
	Err string `json:"error,omitempty"`
}

// result is the outcome of a command in both places.
type result struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	Runc    side   `json:"runc"`
	Sandbox side   `json:"sandbox"`

	command *command
}

// judge sets Verdict and Reason.
func (r *result) judge(known map[string]string) {
	reason, isKnown := known[r.Name]
	equal := r.Runc.Status == r.Sandbox.Status && r.Runc.Output == r.Sandbox.Output
	switch broken := r.broken(); {
	case broken != "":
		r.Verdict, r.Reason = verdictBroken, broken
	case equal && isKnown:
		r.Verdict, r.Reason = verdictEqual, "no longer differs: remove it from programs.known"
	case equal:
		r.Verdict = verdictPass
	case isKnown:
		r.Verdict, r.Reason = verdictKnown, reason
	default:
		r.Verdict, r.Reason = verdictDiffers, r.difference()
	}
}

// broken says why the two sides cannot be compared.
func (r *result) broken() string {
	switch c := r.command; {
	case r.Runc.Err != "":
		return "runc: " + r.Runc.Err
	case r.Sandbox.Err != "":
		return "sandbox: " + r.Sandbox.Err
	case r.Runc.Status != c.Status:
		return fmt.Sprintf("runc: %s, want status %d", status(r.Runc.Status), c.Status)
	case !c.prints.MatchString(r.Runc.Output):
		return "runc: the output does not match prints"
	}
	return ""
}

// difference names the first difference.
func (r *result) difference() string {
	if r.Runc.Status != r.Sandbox.Status {
		return fmt.Sprintf("%s, under runc %s", status(r.Sandbox.Status), status(r.Runc.Status))
	}
	want, got := strings.Split(r.Runc.Output, "\n"), strings.Split(r.Sandbox.Output, "\n")
	for i := range max(len(want), len(got)) {
		if a, b := line(want, i), line(got, i); a != b {
			return fmt.Sprintf("line %d: %q, under runc %q", i+1, b, a)
		}
	}
	return "unknown"
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func status(n int) string {
	if n == statusTimeout {
		return "no end"
	}
	return fmt.Sprintf("status %d", n)
}

// failed reports whether the verdict fails the run.
func (r *result) failed() bool {
	return r.Verdict != verdictPass && r.Verdict != verdictKnown
}

// report prints the results, and returns an error if one of them fails the run.
func report(out io.Writer, o options, results []*result) error {
	count := map[string]int{}
	failed := 0
	for _, r := range results {
		count[r.Verdict]++
		if r.failed() {
			failed++
		}
	}
	if o.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(results); err != nil {
			return err
		}
	} else if err := table(out, o, results); err != nil {
		return err
	} else {
		fmt.Fprintf(out, "\n%d commands: %d equal, %d differ as known, %d failed\n", len(results), count[verdictPass], count[verdictKnown], failed)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d commands failed", failed, len(results))
	}
	return nil
}

func table(out io.Writer, o options, results []*result) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "COMMAND\tRUNC\tSANDBOX\tRESULT")
	for _, r := range results {
		text := r.Verdict
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Name, r.Runc.brief(), r.Sandbox.brief(), text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if !o.verbose && !r.failed() {
			continue
		}
		fmt.Fprintf(out, "\n=== %s: %s\n", r.Name, r.Verdict)
		r.Runc.print(out, "runc")
		r.Sandbox.print(out, "sandbox")
	}
	return nil
}

// brief is a side's column in the table.
func (s *side) brief() string {
	if s.Err != "" {
		return "error"
	}
	return fmt.Sprintf("%s, %.1fs", status(s.Status), s.Seconds)
}

// shown is how many bytes of a side's output and errors the report prints, from the end,
// which is the most informative part.
const shown = 3000

func (s *side) print(out io.Writer, name string) {
	fmt.Fprintf(out, "--- %s: %s\n", name, s.brief())
	for _, text := range []string{s.Output, s.Errors, s.Err} {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(out, "%s\n", text[max(0, len(text)-shown):])
		}
	}
}

func (s *side) took(began time.Time) {
	s.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
}
