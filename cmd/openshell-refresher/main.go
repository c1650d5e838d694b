// SPDX-License-Identifier: Apache-2.0

// Command openshell-refresher refreshes credentials. It holds refresh tokens and client
// secrets, which no proxy has, and talks to token endpoints. The runtime and the CLI run it
// for one provider; a sandbox's guard starts the one that serves all.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/origin"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/refresh"
)

const (
	// maxRoots is the largest size of one file of certificates, and maxLog that of the log,
	// in bytes. A full log is truncated.
	maxRoots = 16 << 20
	maxLog   = 4 << 20
)

func main() {
	flags := []cli.Flag{
		&cli.StringFlag{Name: proxyapi.FlagStore, Required: true},
		&cli.StringSliceFlag{Name: proxyapi.FlagCAFile},
	}
	app := &cli.App{
		Name: proxyapi.ProgramRefresher, Usage: "refresh credentials (for people: openshell provider refresh)",
		DisableSliceFlagSeparator: true, HideHelpCommand: true,
		Commands: []*cli.Command{
			{Name: proxyapi.RefresherOnce, ArgsUsage: "NAME...", Flags: append([]cli.Flag{&cli.StringSliceFlag{Name: proxyapi.FlagCredential}, &cli.BoolFlag{Name: proxyapi.FlagDue}}, flags...), Action: once},
			{Name: proxyapi.RefresherServe, Flags: append([]cli.Flag{&cli.StringFlag{Name: proxyapi.FlagLog}}, flags...), Action: serve},
		},
	}
	if err := run(app); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(app *cli.App) error {
	if err := keepToItself(); err != nil {
		return err
	}
	return app.Run(os.Args)
}

func open(c *cli.Context) (*refresh.Refresher, error) {
	dir, err := filepath.Abs(c.String(proxyapi.FlagStore))
	if err != nil {
		return nil, fmt.Errorf("resolve --store: %w", err)
	}
	store, err := provider.Open(dir)
	if err != nil {
		return nil, err
	}
	files := c.StringSlice(proxyapi.FlagCAFile)
	return &refresh.Refresher{
		Store: store,
		Origins: func() (origin.Config, error) {
			pool, err := roots(files)
			return origin.Config{Roots: pool}, err
		},
	}, nil
}

// roots returns the current certificate authorities of the system and of the operator.
func roots(files []string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // the system has none: use only the files
	}
	for _, f := range files {
		pem, err := boundedfile.Read(f, maxRoots)
		if err != nil {
			return nil, fmt.Errorf("read upstream CA: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream CA %s: no certificate (PEM) in it", f)
		}
	}
	return pool, nil
}

func once(c *cli.Context) error {
	r, err := open(c)
	if err != nil {
		return err
	}
	if err := lockDown(c.String(proxyapi.FlagStore)); err != nil {
		return err
	}
	var all []error
	for _, name := range c.Args().Slice() {
		all = append(all, r.Refresh(c.Context, name, c.StringSlice(proxyapi.FlagCredential), c.Bool(proxyapi.FlagDue)))
	}
	return errors.Join(all...)
}

func serve(c *cli.Context) error {
	r, err := open(c)
	if err != nil {
		return err
	}
	release, err := provider.LockRefresher(c.String(proxyapi.FlagStore))
	if errors.Is(err, provider.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	log := io.Discard
	if file := c.String(proxyapi.FlagLog); file != "" {
		f, err := openLog(file)
		if err != nil {
			return err
		}
		defer f.Close()
		log = f
	}
	if err := lockDown(c.String(proxyapi.FlagStore)); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	r.Serve(ctx, log)
	return nil
}

func openLog(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the refresher's log: %w", err)
	}
	if st, err := f.Stat(); err == nil && st.Size() > maxLog {
		_ = f.Truncate(0)
	}
	return f, nil
}
