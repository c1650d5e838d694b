// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
)

const (
	// refreshTimeout bounds the wait for new values of credentials that have expired: a
	// sandbox cannot start without them.
	refreshTimeout = 45 * time.Second
	// maxRefreshError bounds what an error quotes of the refresher's output, in bytes.
	maxRefreshError = 2 << 10
	// refresherLog is the refresher's own log, in the operator's log_dir.
	refresherLog = "@refresher.log"
)

// leases are the providers that one sandbox's proxy is given. Each is locked against
// changes until the sandbox's guard takes updates, so that no change is lost in between.
type leases struct {
	config *operator.Config
	// refresher is the path of the refresher; empty means beside this program.
	refresher string
	// store is opened when the first provider is acquired: a sandbox without credentials
	// does not need it.
	store *provider.Store
	// locks unlock the providers.
	locks    []func()
	acquired map[string]lease
}

// lease is one locked provider.
type lease struct {
	// values are the credentials for the proxy.
	values  *proxyapi.Update
	profile *provider.Profile
}

func newLeases(c *operator.Config) *leases {
	return &leases{config: c, acquired: map[string]lease{}}
}

// acquire locks a provider and returns what the proxy is given of it. Values that have
// expired are refreshed first. A provider that is acquired already is returned again.
func (l *leases) acquire(name string) (lease, error) {
	if l.store == nil {
		var err error
		if l.store, err = provider.Open(l.config.ProvidersDir); err != nil {
			return lease{}, err
		}
	}
	if p, ok := l.acquired[name]; ok {
		return p, nil
	}
	if err := l.refresh(name); err != nil {
		return lease{}, err
	}
	values, profile, unlock, err := l.store.Take(name, os.Getenv)
	if err != nil {
		return lease{}, err
	}
	l.locks = append(l.locks, unlock)
	l.acquired[name] = lease{values, profile}
	return l.acquired[name], nil
}

// release unlocks all providers. A second call does nothing.
func (l *leases) release() {
	for _, unlock := range l.locks {
		unlock()
	}
	l.locks = nil
}

// refresh has the refresher make new values for a provider whose values have expired.
func (l *leases) refresh(name string) error {
	p, err := l.store.Get(name)
	if err != nil {
		return err
	}
	if len(p.Stale(time.Now())) == 0 {
		return nil
	}
	argv, err := l.command(proxyapi.RefresherOnce)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], "--"+proxyapi.FlagDue, name)...)
	cmd.Env, cmd.Dir = []string{}, "/"
	var output strings.Builder
	cmd.Stderr = &output
	if err := cmd.Run(); err != nil {
		reason := strings.TrimSpace(output.String())
		if reason == "" {
			reason = err.Error()
		}
		return fmt.Errorf("refresh the credentials of provider %s: %s", name, reason[:min(len(reason), maxRefreshError)])
	}
	if p, err = l.store.Get(name); err != nil {
		return err
	}
	return p.Usable(time.Now())
}

// command returns the command line of the refresher with a verb, for the operator's store.
// The error wraps os.ErrNotExist if the refresher is not installed.
func (l *leases) command(verb string) ([]string, error) {
	path := l.refresher
	if path == "" {
		var err error
		if path, err = proxyapi.Beside(proxyapi.ProgramRefresher); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s, which belongs beside the runtime and refreshes credentials: %w", proxyapi.ProgramRefresher, err)
	}
	dir, err := l.storeDir()
	if err != nil {
		return nil, err
	}
	return append([]string{path}, proxyapi.RefresherArgs(verb, dir, l.config.Upstream.CAFiles)...), nil
}

func (l *leases) storeDir() (string, error) {
	dir, err := filepath.Abs(l.config.ProvidersDir)
	if err != nil {
		return "", fmt.Errorf("resolve providers_dir: %w", err)
	}
	return dir, nil
}

// follow adds to h where the guard shows that it takes updates, and the command line of
// the refresher that it keeps running.
func (l *leases) follow(h *proxyapi.Config) error {
	dir, err := l.storeDir()
	if err != nil {
		return err
	}
	h.Attached = provider.AttachedDir(dir)
	argv, err := l.command(proxyapi.RefresherServe)
	if errors.Is(err, os.ErrNotExist) && !l.renewed() {
		return nil // no provider that the sandbox starts with needs the refresher
	}
	if err != nil {
		return err
	}
	h.Refresher = &proxyapi.Refresher{
		Argv: append(argv, "--"+proxyapi.FlagLog, filepath.Join(l.config.LogDir, refresherLog)), Lock: provider.RefresherLock(dir),
	}
	return nil
}

// renewed reports whether values of an acquired provider expire and are refreshed.
func (l *leases) renewed() bool {
	for _, p := range l.acquired {
		if p.values.Renewed {
			return true
		}
	}
	return false
}
