// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/decisionlog"
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "print what a sandbox's proxy decided", ArgsUsage: "CONTAINER",
		Description: "CONTAINER is an ID or the start of one that no other log has; it need not run any\n" +
			"more. An engine's names are not known here: take the ID from the engine (docker ps).\n" +
			"With --prune and without a CONTAINER, logs of ended sandboxes are removed: those older\n" +
			"than the operator's log_max_age, then the oldest until all logs fit into log_max_bytes.\n" +
			"The runtime does the same when it creates a sandbox, at most once an hour.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "print further decisions as they are made, until the sandbox ends"},
			&cli.BoolFlag{Name: "denied", Usage: "only refusals"},
			&cli.IntFlag{Name: "n", Usage: "begin with the last `N` (default: all that are kept)"},
			&cli.BoolFlag{Name: "prune", Usage: "remove logs of ended sandboxes"},
			&cli.StringFlag{Name: "older-than", Usage: "with --prune: remove each log whose sandbox ended this `TIME` ago (36h; 0s is every ended one)"},
			outputFlag(),
			logDirFlag(), operatorFlag(),
		},
		Action: logsAction,
	}
}

func logsAction(c *cli.Context) error {
	if c.Bool("prune") {
		return pruneAction(c)
	}
	if c.IsSet("older-than") {
		return usage(c, "--older-than goes with --prune")
	}
	name, err := oneArgument(c, "CONTAINER")
	if err != nil {
		return err
	}
	if c.Int("n") < 0 {
		return cli.Exit("openshell logs: -n wants a number from 1 on", exitUsage)
	}
	top, err := logDir(c)
	if err != nil {
		return err
	}
	dir, err := findLog(top, name)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return printLog(ctx, c, dir)
}

// pruneAction removes logs and prints which.
func pruneAction(c *cli.Context) error {
	if c.NArg() > 0 || c.Bool("follow") || c.Bool("denied") || c.IsSet("n") {
		return usage(c, "--prune is for the logs of all sandboxes: want no CONTAINER, --follow, --denied or -n")
	}
	age, err := time.ParseDuration(cmp.Or(c.String("older-than"), "0"))
	if err != nil || age < 0 {
		return usage(c, fmt.Sprintf("--older-than is %q, want hours such as 36h, or 0s for every ended sandbox", c.String("older-than")))
	}
	config, err := operatorConfig(c)
	if err != nil {
		return err
	}
	top, err := logDir(c)
	if err != nil {
		return err
	}
	limits := config.LogLimits()
	if c.IsSet("older-than") {
		limits = decisionlog.Limits{MaxAge: max(age, 1)} // 0 would be no limit
	}
	removed, err := decisionlog.Prune(top, limits)
	if err == nil && len(removed) == 0 && !wantsJSON(c) {
		_, err = fmt.Fprintf(c.App.Writer, "no log in %s is old or large enough to be removed\n", top)
		return err
	}
	return errors.Join(err, printPruned(c, removed))
}

func printPruned(c *cli.Context, removed []decisionlog.Pruned) error {
	if wantsJSON(c) {
		return printJSON(c, append([]decisionlog.Pruned{}, removed...))
	}
	for _, p := range removed {
		if _, err := fmt.Fprintf(c.App.Writer, "removed %s, ended %s, %d bytes\n", clean(p.ID), p.Ended.Format(time.RFC3339), p.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// findLog is the folder of the log called name: its container's ID or the start of
// it.
func findLog(top, name string) (string, error) {
	entries, err := os.ReadDir(top)
	if err != nil {
		return "", fmt.Errorf("search logs: %w", err)
	}
	var found []string
	for _, e := range entries {
		if e.Name() == name {
			return filepath.Join(top, name), nil
		}
		if name != "" && strings.HasPrefix(e.Name(), name) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%s holds no log of an ID %q or one that starts with it (an engine's names are not known here: docker ps -a shows IDs); old logs are removed, see log_max_age in the operator's configuration", top, name)
	case 1:
		return filepath.Join(top, found[0]), nil
	}
	return "", fmt.Errorf("%q means more than one log; write more of the ID: %s", name, strings.Join(found, " "))
}

func printLog(ctx context.Context, c *cli.Context, dir string) (err error) {
	p := &printer{c: c, last: c.Int("n")}
	var idle func() error
	if c.Bool("follow") {
		idle = p.release
	}
	tail := decisionlog.NewTail(ctx, dir, idle)
	defer func() { err = errors.Join(err, tail.Close()) }()
	for r, bad := range decisionlog.Read(tail) {
		if bad != nil {
			// One line that is none; the rest still counts.
			fmt.Fprintln(c.App.ErrWriter, bad)
			continue
		}
		if c.Bool("denied") && r.Verdict != decisionlog.Deny && r.Dropped == 0 {
			continue
		}
		if err := p.add(r); err != nil {
			return err
		}
	}
	return p.release()
}

// printer prints records; until release only the last ones are kept, if so many
// were asked for.
type printer struct {
	c    *cli.Context
	last int
	kept []decisionlog.Record
}

func (p *printer) add(r decisionlog.Record) error {
	if p.last == 0 {
		return p.print(r)
	}
	if len(p.kept) == p.last {
		p.kept = p.kept[1:]
	}
	p.kept = append(p.kept, r)
	return nil
}

// release prints what was kept; what comes later is printed at once.
func (p *printer) release() error {
	for _, r := range p.kept {
		if err := p.print(r); err != nil {
			return err
		}
	}
	p.kept, p.last = nil, 0
	return nil
}

func (p *printer) print(r decisionlog.Record) error {
	line := append([]byte(logLine(r)), '\n')
	if wantsJSON(p.c) {
		var err error
		if line, err = decisionlog.AppendLine(nil, &r); err != nil {
			return err
		}
	}
	_, err := p.c.App.Writer.Write(line)
	return err
}

// clock is the layout of a time of day.
const clock = "15:04:05.000"

// ruleOf is the rule that decided, with the policy's entry and its line.
func ruleOf(r decisionlog.Record) string {
	rule := strings.TrimSuffix(r.Policy+": "+r.Rule, ": ")
	if r.Rule != "" && r.Line > 0 {
		rule += fmt.Sprintf(", line %d", r.Line)
	}
	return rule
}

// logLine is a record for people: time, verdict, binary[pid], what was asked for,
// and the rule or the reason.
func logLine(r decisionlog.Record) string {
	when := r.Time.Local().Format("2006-01-02T15:04:05.000Z07:00")
	if r.Verdict == "" {
		return fmt.Sprintf("%s %d records before this are missing", when, r.Dropped)
	}
	who := "unknown"
	switch {
	case r.Binary != "":
		who = clean(r.Binary)
	case r.Layer == "credentials":
		who = "operator"
	}
	if r.Pid != 0 {
		who += fmt.Sprintf("[%d]", r.Pid)
	}
	what := r.Method
	if what == "" {
		what = strings.ToUpper(r.Protocol)
	}
	if what == "" {
		what = strings.ToUpper(r.Layer)
	}
	where := r.Host
	if where == "" {
		where = r.Address
	}
	if strings.Contains(where, ":") {
		where = "[" + where + "]"
	}
	if r.Port != 0 {
		where += fmt.Sprintf(":%d", r.Port)
	}
	why := r.Reason
	if rule := ruleOf(r); why == "" {
		why = rule
	} else if r.Rule != "" {
		why += " (" + rule + ")"
	}
	line := fmt.Sprintf("%s %-5s %s %s %s", when, clean(r.Verdict), who, clean(what), clean(where+r.Path))
	if why != "" {
		line += "  " + clean(why)
	}
	if r.Count > 0 {
		line += fmt.Sprintf(" (%d more like this from %s to %s)", r.Count, r.First.Local().Format(clock), r.Last.Local().Format(clock))
	}
	if r.Dropped > 0 {
		line += fmt.Sprintf(" (%d records before this are missing)", r.Dropped)
	}
	return line
}
