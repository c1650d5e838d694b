// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/image"
)

// runCommand makes `openshell run`: a sandbox without a container engine.
func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a command in a sandbox, without a container engine",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: "The root filesystem is read through an ephemeral writable layer, an image is\n" +
			"unpacked into one, that is gone when the command ends. An image's entry point comes\n" +
			"before COMMAND, its command in the place of none. The exit status is the command's own,\n" +
			"127 if it is not found and 126 if it cannot be executed.\n" +
			"Signals are passed on; the third to interrupt or terminate ends the sandbox.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "policy", Usage: "policy `FILE` or the name of one of the operator's policies"},
			operatorFlag(),
			&cli.StringFlag{Name: "rootfs", Usage: "root filesystem `DIR` (read only; writes go to the ephemeral layer)"},
			&cli.StringFlag{Name: "image", Usage: "image at `PATH`: OCI layout folder or tar, or what docker save writes"},
			&cli.StringFlag{Name: "name", Usage: "container `NAME` (default: random)"},
			&cli.StringFlag{Name: "root", Usage: "state `DIR` of the runtime", Value: "/run/openshell"},
			runtimeFlag(),
			&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: "bind mount `SRC:DST[:ro]`"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment variable `NAME[=VALUE]`"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "working `DIR` inside the sandbox (default: the image's, or /)"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "`USER[:GROUP]`, names or numbers (default: the image's, or 0:0)"},
			&cli.StringSliceFlag{Name: "add-host", Usage: "give a name an address: `NAME:IP`"},
			&cli.StringSliceFlag{Name: "provider", Usage: "`NAME` of a provider whose credentials the command may use without having them"},
			&cli.StringSliceFlag{Name: "upstream-ca", Usage: "`FILE` of PEM certificates that upstreams are verified with beside the system's"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "keep standard input open"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "allocate a terminal"},
		},
		UseShortOptionHandling: true,
		Action:                 runAction,
	}
}

func runAction(c *cli.Context) error {
	b := &bundle{user: c.String("user")}
	config := &v1.Config{}
	switch rootfs, file := c.String("rootfs"), c.String("image"); {
	case (rootfs == "") == (file == ""):
		return cli.Exit("openshell run: want one of --rootfs and --image", exitUsage)
	case rootfs != "":
		abs, err := filepath.Abs(rootfs)
		if err != nil {
			return fmt.Errorf("resolve --rootfs: %w", err)
		}
		if st, err := os.Stat(abs); err != nil || !st.IsDir() {
			return cli.Exit(fmt.Sprintf("openshell run: --rootfs %s is not a directory", abs), 1)
		}
		b.rootfs = abs
	default:
		img, err := image.Open(file)
		if err != nil {
			return fmt.Errorf("openshell run: %w", err)
		}
		defer img.Close()
		if config, err = img.Config(); err != nil {
			return fmt.Errorf("openshell run: %w", err)
		}
		b.image = img
	}
	if b.user == "" {
		b.user = config.User
	}
	var err error
	if b.spec, err = runSpec(c, config); err == nil {
		b.hosts, err = hostsFile(c.StringSlice("add-host"))
	}
	if err != nil {
		return cli.Exit("openshell run: "+err.Error(), exitUsage)
	}
	roots, err := upstreamRoots(c.StringSlice("upstream-ca"))
	if err != nil {
		return fmt.Errorf("openshell run: %w", err)
	}
	if os.Geteuid() != 0 {
		return cli.Exit("openshell run: needs root", 1)
	}
	// The command is forked from this thread, whose mount namespace is its own.
	// The thread is never given back to the scheduler.
	runtime.LockOSThread()
	if err := b.stage(); err != nil {
		return fmt.Errorf("openshell run: %w", err)
	}
	return execRuntime(c, b.spec, roots)
}

// maxRoots bounds one file of --upstream-ca, in bytes.
const maxRoots = 4 << 20

// upstreamRoots checks the files of --upstream-ca and gives their absolute paths.
func upstreamRoots(files []string) ([]string, error) {
	var out []string
	for _, file := range files {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, fmt.Errorf("--upstream-ca %s: %w", file, err)
		}
		if err := checkCertificates(abs); err != nil {
			return nil, fmt.Errorf("--upstream-ca %s: %w", file, err)
		}
		out = append(out, abs)
	}
	return out, nil
}

func checkCertificates(file string) error {
	data, err := boundedfile.Read(file, maxRoots)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %s; want certificates alone", clean(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return errors.New("holds no PEM certificate")
	}
	return nil
}

// insistence is how many signals to stop take the sandbox down whatever its
// command makes of them.
const insistence = 3

func execRuntime(c *cli.Context, spec *specs.Spec, roots []string) error {
	bin, err := runtimePath(c)
	if err != nil {
		return err
	}
	id := c.String("name")
	if id == "" {
		var b [6]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("choose a name: %w", err)
		}
		id = "run-" + hex.EncodeToString(b[:])
	}
	// The container has no way out of its own: the proxy connects from the host.
	args := []string{"--root", c.String("root"), "--log-format", "plain", "--egress", "host"}
	for _, p := range c.StringSlice("provider") {
		args = append(args, "--provider", p)
	}
	if file := c.String("config"); file != "" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("resolve --config: %w", err)
		}
		args = append(args, "--config", abs)
	}
	for _, r := range roots {
		args = append(args, "--upstream-ca", r)
	}
	if p := c.String("policy"); p != "" {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			if p, err = filepath.Abs(p); err != nil {
				return fmt.Errorf("resolve --policy: %w", err)
			}
		}
		args = append(args, "--policy", p)
	}
	// The runtime holds one end of this pipe: when we are killed, it sees ours
	// closed and takes the sandbox down.
	lifeline, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make lifeline: %w", err)
	}
	defer ours.Close()
	cmd := exec.Command(bin, append(args, "run", "--program-status", "--lifeline", "3", "--bundle", stageDir, "--", id)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{lifeline}
	if c.Bool("interactive") || spec.Process.Terminal {
		cmd.Stdin = os.Stdin
	}
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(sigs)
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", bin, err), lifeline.Close())
	}
	if err := lifeline.Close(); err != nil {
		return fmt.Errorf("close the runtime's end of the lifeline: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for stops := 0; ; {
			select {
			case s := <-sigs:
				// A terminal sends to the whole group; a signal sent to us alone
				// is passed on. Sending twice what arrives once is harmless.
				_ = cmd.Process.Signal(s)
				// The first process of a container does not hear what it has no
				// handler for; who insists gets an end all the same.
				if s == unix.SIGINT || s == unix.SIGTERM {
					stops++
				}
				if stops == insistence {
					_ = ours.Close()
				}
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return cli.Exit("", 128+int(ws.Signal()))
		}
		return cli.Exit("", exit.ExitCode())
	}
	return err
}
