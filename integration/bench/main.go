// SPDX-License-Identifier: Apache-2.0

// Command bench compares the built programs with their peers and prints one table. The
// peers take turns within one run, because a machine's speed differs more between runs than
// the programs do. Everything happens in a network namespace of its own. It needs root.
//
// The same program is the client, the server and the bare relay; see agent.go and
// server.go.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	verb := ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch verb {
	case "true": // what a container runs that is measured by its start
		return nil
	case "agent":
		return agent(os.Stdin, os.Stdout)
	case "server":
		return server(os.Args[2])
	case "relay":
		return relay(os.Args[2])
	}
	return measure()
}

// options are the flags.
type options struct {
	bin, runc, only, scenario, output string
	pairs, rounds, together           int
	seconds                           float64
}

// sections are the parts of a run, in the order of the table.
var sections = []struct {
	name string
	run  func(*bench) error
}{
	{"start", startup},
	{"together", together},
	{"proxy", proxies},
	{"memory", memory},
	{"router", router},
	{"decide", decide},
	{"reload", reload},
}

func measure() error {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.runc, "runc", "", "runc of the same libcontainer (default: bin/runc)")
	flag.StringVar(&o.only, "run", "", "comma-separated sections; all if empty")
	flag.StringVar(&o.output, "o", "table", "table or json")
	flag.StringVar(&o.scenario, "scenario", "", "run only the proxies' scenarios whose name contains `TEXT`")
	flag.IntVar(&o.pairs, "pairs", 30, "starts of each runtime")
	flag.IntVar(&o.rounds, "rounds", 5, "turns of each proxy")
	flag.IntVar(&o.together, "together", 100, "sandboxes started at once")
	flag.Float64Var(&o.seconds, "seconds", 1.5, "length of a proxy's turn")
	flag.Parse()
	if os.Getenv(inside) == "" {
		return enter()
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	for _, s := range sections {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if o.output == "json" {
		return json.NewEncoder(os.Stdout).Encode(b.report)
	}
	b.report.print(os.Stdout)
	return nil
}

// inside is set in the process that runs in its own namespaces.
const inside = "OPENSHELL_BENCH_INSIDE"

// enter runs this program again in new network and mount namespaces.
func enter() error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL,
	}
	return cmd.Run()
}
