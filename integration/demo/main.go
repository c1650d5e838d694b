// SPDX-License-Identifier: Apache-2.0

// Command demo shows a sandbox at work: what its policy allows, what it refuses and which
// line decides, and that a new policy takes effect without a restart. It exits with status
// 0 only if every step gave the expected result, on the client's side and in the log of the
// server to which the sandbox talks.
//
// That server is the demo's own: a host in a network namespace next to this one. The demo
// contacts no other host and leaves nothing behind. It needs root.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

//go:embed policy.yaml
var policyText string

// demoTimeout limits the whole demo.
const demoTimeout = time.Minute

func init() {
	// The sandbox is started from this thread, which has its own mount namespace, and ends
	// with it.
	runtime.LockOSThread()
}

func main() {
	bin := flag.String("bin", "bin", "`DIR` of the built programs, agent and probe")
	file := flag.String("policy", "", "`FILE` with another policy, with which the demo should fail")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	if err := demo(ctx, *bin, *file); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, bin, file string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: sandboxes are made of namespaces and nftables rules")
	}
	text := policyText
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read -policy: %w", err)
		}
		text = string(b)
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return fmt.Errorf("resolve -bin: %w", err)
	}
	began := time.Now()
	s, err := open(ctx, bin, text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.introduce()
	if err := s.start(); err != nil {
		return err
	}
	wrong := 0
	for i, st := range steps {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped: %w", context.Cause(ctx))
		}
		ok, err := s.show(i+1, st)
		if err != nil {
			return fmt.Errorf("%s: %w", st.title, err)
		}
		if !ok {
			wrong++
		}
	}
	if err := s.summarise(); err != nil {
		fmt.Println("UNEXPECTED:", err)
		wrong++
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d were not as expected", wrong, len(steps)+1)
	}
	fmt.Printf("\n%d of %d as expected, in %.1f s.\n", len(steps), len(steps), time.Since(began).Seconds())
	return nil
}
