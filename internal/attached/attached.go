// SPDX-License-Identifier: Apache-2.0

// Package attached finds the running sandboxes that have credentials of a store,
// and tells them what has become of one. Values go to each sandbox's guard by a
// socket that only root opens, and into no file.
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
	// comeback is how long a sandbox may be without a guard: a standby takes the
	// place of one that was killed.
	comeback = 3 * time.Second
	// poll is the pause between two attempts.
	poll = 50 * time.Millisecond
	// atOnce are told at once.
	atOnce = 16
)

// Sandbox is one that takes updates.
type Sandbox struct {
	ID  string `json:"id"`
	Dir string `json:"dir"`
	// Providers are those it has.
	Providers []proxyapi.Attached `json:"providers"`
}

// List asks every sandbox which providers it has. One that does not answer is an
// error beside those that do.
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

// Announce has every sandbox that has the provider use what the store has of it now,
// and returns when all do. told are their IDs; the error names those that do not.
func Announce(ctx context.Context, store *provider.Store, name string) (told []string, err error) {
	u, err := store.Changes(name)
	if err != nil {
		return nil, err
	}
	told, err = tell(ctx, store.Attached(), u)
	if err != nil {
		err = fmt.Errorf("provider %s: not every sandbox uses what is stored: %w", name, err)
	}
	return told, err
}

// AnnounceRoutes has every sandbox with a router use other routes and keys.
func AnnounceRoutes(ctx context.Context, store *provider.Store, i *proxyapi.Inference) (told []string, err error) {
	return all(ctx, store.Attached(), func(c *proxyapi.Client) error { return c.SetInference(ctx, i) })
}

func tell(ctx context.Context, dir string, u *proxyapi.Update) (told []string, err error) {
	return all(ctx, dir, func(c *proxyapi.Client) error { return c.Update(ctx, u) })
}

// all says something to every sandbox; told are those that it concerned.
func all(ctx context.Context, dir string, say func(*proxyapi.Client) error) (told []string, err error) {
	var mu sync.Mutex
	err = each(dir, func(s Sandbox) error {
		taken := false
		err := patiently(ctx, s.Dir, func(c *proxyapi.Client) error {
			err := say(c)
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

// each calls f for every sandbox that has shown itself in dir.
func each(dir string, f func(Sandbox) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for sandboxes: %w", err)
	}
	failed := make([]error, len(entries))
	slots := make(chan struct{}, atOnce)
	var tasks sync.WaitGroup
	for i, e := range entries {
		link := filepath.Join(dir, e.Name())
		to, err := os.Readlink(link)
		if err != nil {
			continue // it has just gone, or is not a guard's
		}
		if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(link) // the sandbox was deleted, and its guard killed before
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

// errEnded is about a sandbox that is not there any more.
var errEnded = errors.New("the sandbox has ended")

// patiently asks the guard of the sandbox of a state folder, again for as long as there
// may be another soon.
func patiently(ctx context.Context, dir string, ask func(*proxyapi.Client) error) error {
	socket := proxyapi.SecretsSocket(dir)
	for late := time.Now().Add(comeback); ; {
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
		time.Sleep(poll)
	}
}
