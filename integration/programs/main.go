// SPDX-License-Identifier: Apache-2.0

// Command programs runs a list of ordinary commands under plain runc and in a
// sandbox, and compares exit statuses and output.
//
// commands.yaml is the list: a name, a shell script, and what the script needs; the fields
// are those of [command]. Scripts print only stable text, because standard output is
// compared byte by byte, with addresses and registries masked. A command also states what
// it prints and how it exits under runc: a command that fails in both places proves
// nothing, and fails the run.
//
// programs.known names the commands whose results differ, each with the reason. A
// difference that is not in the file fails the run, and so does a line of the file
// whose command no longer differs.
//
// Both runtimes get the same config.json, a fresh overlay of one cached root filesystem
// (scripts/programs.sh) and a network namespace that is connected to integration/upstream.
// There, the names of the test network resolve to another runc container, which runs real
// servers (peer.sh, peer.py). Commands that install packages use the registries of this
// machine's clients instead: under runc in the machine's network namespace, in the sandbox
// through the proxy.
//
// make test-programs builds and runs it. It needs root.
//
//	bin/programs -bin bin                     all commands, a table
//	bin/programs -bin bin -run 'java|nginx'   some of them
//	bin/programs -bin bin -run strace -v      with the output of both sides
//	bin/programs -bin bin -o json             for programs
//	bin/programs -bin bin -control            runc on both sides: all must be equal
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// workers is how many commands run at once: the smallest machine has two cores.
const workers = 2

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "programs:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	bin, runc, output, match string
	list, verbose, control   bool
}

func run() error {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.runc, "runc", "", "runc of the same libcontainer (default: bin/runc)")
	flag.StringVar(&o.match, "run", os.Getenv("PROGRAMS"), "regular expression of the commands' names; all if empty (default: $PROGRAMS)")
	flag.StringVar(&o.output, "o", "table", "table or json")
	flag.BoolVar(&o.list, "list", false, "print the commands' names and run none")
	flag.BoolVar(&o.verbose, "v", false, "print the output of both sides of every command")
	flag.BoolVar(&o.control, "control", false, "run runc in the place of the sandbox, too: a command that differs then has output that is not stable")
	flag.Parse()
	if o.output != "table" && o.output != "json" {
		return fmt.Errorf("-o %q: want table or json", o.output)
	}
	match, err := regexp.Compile(o.match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	all, err := parseCommands(commandsText)
	if err != nil {
		return err
	}
	known, err := parseKnown(knownText, all)
	if err != nil {
		return err
	}
	if o.control {
		known = nil
	}
	var chosen []*command
	for _, c := range all {
		if match.MatchString(c.Name) {
			chosen = append(chosen, c)
		}
	}
	switch {
	case len(chosen) == 0:
		return fmt.Errorf("-run %q matches no command", o.match)
	case o.list:
		for _, c := range chosen {
			fmt.Println(c.Name)
		}
		return nil
	case os.Getenv(inside) == "":
		return enter()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	return compare(ctx, o, chosen, known)
}

// compare runs the commands and prints the report.
func compare(ctx context.Context, o options, chosen []*command, known map[string]string) error {
	w, err := newWorld(ctx, o, chosen)
	if err != nil {
		return err
	}
	defer w.close()
	results := make([]*result, len(chosen))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				results[i] = w.both(ctx, chosen[i])
				results[i].judge(known)
				if o.output == "table" && ctx.Err() == nil {
					fmt.Fprintf(os.Stderr, "%-8s %s\n", results[i].Verdict, chosen[i].Name)
				}
			}
		})
	}
	for i := range chosen {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return report(os.Stdout, o, results)
}

// inside is set in the process that has a mount namespace of its own.
const inside = "OPENSHELL_PROGRAMS_INSIDE"

// enter runs this program again in a mount namespace of its own, so that no mount
// is left when the program is killed.
func enter() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}
	// A terminal sends its signals to both; the other process cleans up.
	signal.Ignore(unix.SIGINT, unix.SIGHUP)
	if err := cmd.Run(); err != nil {
		return errors.New("the commands differ, or did not run")
	}
	return nil
}
