// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox"
	"openshell.dev/runtime/libsandbox/container"
)

// exitStatus carries a container process's own status to main.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// programStatusFlag is given by openshell run and openshell exec.
func programStatusFlag() cli.Flag {
	return &cli.BoolFlag{Name: "program-status", Usage: "end with status 127 if the command is not found, 126 if it cannot be executed", Hidden: true}
}

// programStatus returns err with the status of its ProgramError if --program-status is given.
func programStatus(c *cli.Context, err error) error {
	var program *libsandbox.ProgramError
	if c.Bool("program-status") && errors.As(err, &program) {
		return cli.Exit(err, program.Status)
	}
	return err
}

// execError is a failure of exec, which runc reports with status 255.
type execError struct{ err error }

func (e *execError) Error() string { return "exec failed: " + e.err.Error() }
func (e *execError) Unwrap() error { return e.err }

// exit ends the program: the only place that does. An error is written to
// standard error and, in the shape engines read, to the log. The log's flags are
// read from the arguments before the verb: the error may be about parsing them.
func exit(err error, global []string) {
	if err == nil {
		os.Exit(0)
	}
	var status exitStatus
	if errors.As(err, &status) {
		os.Exit(int(status))
	}
	path, format := flagValue(global, "log"), flagValue(global, "log-format")
	if path != "" {
		if f, e := openLog(path); e == nil {
			fmt.Fprintln(f, logLine(err, format))
			_ = f.Close()
		}
		fmt.Fprintln(os.Stderr, err)
	} else {
		fmt.Fprintln(os.Stderr, logLine(err, format))
	}
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		os.Exit(coded.ExitCode()) // 3 for a verb that there is none of
	}
	var ee *execError
	if errors.As(err, &ee) {
		os.Exit(255)
	}
	os.Exit(1)
}

func logLine(err error, format string) string {
	now := time.Now().Format(time.RFC3339)
	switch format {
	case container.FormatPlain:
		return container.Plain(err.Error())
	case container.FormatJSON:
		b, e := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{"error", err.Error(), now})
		if e == nil {
			return string(b)
		}
	}
	return fmt.Sprintf("time=%q level=error msg=%q", now, err.Error())
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
}

// flagValue is the value of a flag as it stands in args.
func flagValue(args []string, name string) string {
	for _, form := range []string{"--" + name, "-" + name} {
		for i, a := range args {
			if v, ok := strings.CutPrefix(a, form+"="); ok {
				return v
			}
			if a == form && i+1 < len(args) {
				return args[i+1]
			}
		}
	}
	return ""
}
