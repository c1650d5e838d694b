// SPDX-License-Identifier: Apache-2.0

package libsandbox

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
	// refreshPatience bounds the wait for values that must be made before a sandbox
	// can start.
	refreshPatience = 45 * time.Second
	// maxRefreshError bounds what is shown of why not, in bytes.
	maxRefreshError = 2 << 10
	// refresherLog is what the refresher did, in the operator's folder of records.
	refresherLog = "@refresher.log"
)

// custody takes providers out of the store for one sandbox. Each stays locked until
// the sandbox's guard hears of changes itself: none is lost in between.
type custody struct {
	config *operator.Config
	store  *provider.Store
	held   []func()
	taken  map[string]taken
}

type taken struct {
	handed  *proxyapi.Update
	profile *provider.Profile
}

// take gives what the sandbox's proxy gets of a provider, made anew before if it has
// ended.
func (c *custody) take(name string) (*proxyapi.Update, *provider.Profile, error) {
	if c.store == nil {
		var err error
		if c.store, err = provider.Open(c.config.ProvidersDir); err != nil {
			return nil, nil, err
		}
		c.taken = map[string]taken{}
	}
	if t, ok := c.taken[name]; ok {
		return t.handed, t.profile, nil
	}
	if err := c.refresh(name); err != nil {
		return nil, nil, err
	}
	handed, profile, release, err := c.store.Take(name, os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	c.held = append(c.held, release)
	c.taken[name] = taken{handed, profile}
	return handed, profile, nil
}

// release lets others change what was taken.
func (c *custody) release() {
	for _, f := range c.held {
		f()
	}
	c.held = nil
}

// refresh has values made that the sandbox could not start with.
func (c *custody) refresh(name string) error {
	p, err := c.store.Get(name)
	if err != nil {
		return err
	}
	if len(p.Stale(time.Now())) == 0 {
		return nil
	}
	argv, err := c.refresher(proxyapi.RefresherOnce)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), refreshPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], "--"+proxyapi.FlagDue, name)...)
	cmd.Env, cmd.Dir = []string{}, "/"
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		why := strings.TrimSpace(said.String())
		if why == "" {
			why = err.Error()
		}
		return fmt.Errorf("make the credentials of provider %s: %s", name, why[:min(len(why), maxRefreshError)])
	}
	if p, err = c.store.Get(name); err != nil {
		return err
	}
	return p.Usable(time.Now())
}

// refresher is the command line of the refresher for the operator's store.
func (c *custody) refresher(verb string) ([]string, error) {
	path, err := proxyapi.Beside(proxyapi.ProgramRefresher)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s, which belongs beside the runtime and makes credentials anew: %w", proxyapi.ProgramRefresher, err)
	}
	dir, err := filepath.Abs(c.config.ProvidersDir)
	if err != nil {
		return nil, fmt.Errorf("resolve providers_dir: %w", err)
	}
	return append([]string{path}, proxyapi.RefresherArgs(verb, dir, c.config.Upstream.CAFiles)...), nil
}

// follow has the sandbox's guard hear of changes, and keep a refresher running.
func (c *custody) follow(h *proxyapi.Config) error {
	dir, err := filepath.Abs(c.config.ProvidersDir)
	if err != nil {
		return fmt.Errorf("resolve providers_dir: %w", err)
	}
	h.Attached = provider.AttachedDir(dir)
	argv, err := c.refresher(proxyapi.RefresherServe)
	if errors.Is(err, os.ErrNotExist) && !c.renewed() {
		return nil // nothing that this sandbox begins with needs it
	}
	if err != nil {
		return err
	}
	h.Refresher = &proxyapi.Refresher{
		Argv: append(argv, "--"+proxyapi.FlagLog, filepath.Join(c.config.LogDir, refresherLog)), Lock: provider.RefresherLock(dir),
	}
	return nil
}

func (c *custody) renewed() bool {
	for _, t := range c.taken {
		if t.handed.Renewed {
			return true
		}
	}
	return false
}
