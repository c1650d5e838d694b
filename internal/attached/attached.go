// SPDX-License-Identifier: Apache-2.0

// Package attached finds the running sandboxes that use credentials of a store, and sends
// them changes. Values go to each sandbox's guard through a socket that only root can open,
// and are not written to a file.
package attached

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
)

const (
	// guardTimeout is how long a sandbox may be without a guard. If the guard is killed, a
	// standby takes its place within this time.
	guardTimeout = 3 * time.Second
	// pollInterval is the pause between two attempts.
	pollInterval = 50 * time.Millisecond
	// maxParallel is the number of sandboxes that are contacted at the same time.
	maxParallel = 16
)

// Sandbox is a sandbox that accepts updates.
type Sandbox struct {
	ID  string `json:"id"`
	Dir string `json:"dir"`
	// Providers are the providers attached to the sandbox.
	Providers []proxyapi.Attached `json:"providers"`
}

// List returns every sandbox with its providers. If some do not answer, it returns the
// others together with an error.
func List(ctx context.Context, store *provider.Store) (found []Sandbox, err error) {
	var mu sync.Mutex
	err = each(store.Attached(), func(s Sandbox) error {
		var err error
		if s.Providers, err = Providers(ctx, s.Dir); errors.Is(err, errEnded) {
			return nil
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, s)
		return nil
	})
	return found, err
}

// Announce sends the stored values of a provider to every sandbox that has it, and returns
// when they are in use. told holds the IDs of these sandboxes. The error names the
// sandboxes that do not use the values.
func Announce(ctx context.Context, store *provider.Store, name string) (told []string, err error) {
	u, err := store.Changes(name)
	if err != nil {
		return nil, err
	}
	told, err = tell(ctx, store.Attached(), u)
	if err != nil {
		err = fmt.Errorf("provider %s: not every sandbox uses the stored values: %w", name, err)
	}
	return told, err
}

// AnnounceRoutes sends new routes and keys to every sandbox with a router.
func AnnounceRoutes(ctx context.Context, store *provider.Store, i *proxyapi.Inference) (told []string, err error) {
	return all(ctx, store.Attached(), func(c *proxyapi.Client) error { return c.SetInference(ctx, i) })
}

func tell(ctx context.Context, dir string, u *proxyapi.Update) (told []string, err error) {
	return all(ctx, dir, func(c *proxyapi.Client) error { return c.Update(ctx, u) })
}

// all calls send for the guard of every sandbox. told holds the IDs of the sandboxes that
// accepted the message.
func all(ctx context.Context, dir string, send func(*proxyapi.Client) error) (told []string, err error) {
	var mu sync.Mutex
	err = each(dir, func(s Sandbox) error {
		taken := false
		err := askGuard(ctx, s.Dir, func(c *proxyapi.Client) error {
			err := send(c)
			var f *proxyapi.Failure
			if errors.As(err, &f) && f.Code == proxyapi.CodeNotAttached {
				return nil
			}
			taken = err == nil
			return err
		})
		if errors.Is(err, errEnded) {
			return nil
		}
		if taken {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s.ID)
		}
		return err
	})
	return told, err
}

// each calls f for every sandbox with a link in dir.
func each(dir string, f func(Sandbox) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	failed := make([]error, len(entries))
	slots := make(chan struct{}, maxParallel)
	var tasks sync.WaitGroup
	for i, e := range entries {
		link := filepath.Join(dir, e.Name())
		to, err := os.Readlink(link)
		if err != nil {
			continue // it has just gone, or is not a guard's
		}
		if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(link) // the sandbox is deleted, and its guard was killed before it could remove the link
			continue
		}
		id := filepath.Base(to)
		tasks.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f(Sandbox{ID: id, Dir: to}); err != nil {
				failed[i] = fmt.Errorf("sandbox %s: %w", id, err)
			}
		})
	}
	tasks.Wait()
	return errors.Join(failed...)
}

// errEnded means that the sandbox no longer exists.
var errEnded = errors.New("the sandbox has ended")

// askGuard calls ask with a client of the guard whose state folder is dir. If there is no
// guard, it tries again until guardTimeout.
func askGuard(ctx context.Context, dir string, ask func(*proxyapi.Client) error) error {
	socket := proxyapi.SecretsSocket(dir)
	for late := time.Now().Add(guardTimeout); ; {
		err := ask(proxyapi.Dial(socket))
		var f *proxyapi.Failure
		if err == nil || errors.As(err, &f) {
			return err
		}
		if _, e := os.Stat(dir); errors.Is(e, fs.ErrNotExist) {
			return errEnded
		}
		if time.Now().After(late) || ctx.Err() != nil {
			return err
		}
		time.Sleep(pollInterval)
	}
}
