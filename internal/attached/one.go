// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"context"
	"fmt"
	"path/filepath"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
)

// Attach attaches one more provider to the sandbox with the state folder dir, as at its
// creation. The proxy uses it when Attach returns. env holds the variables, as NAME=VALUE,
// in which programs expect its credentials.
func Attach(ctx context.Context, store *provider.Store, dir, name string, getenv func(string) string) (env []string, err error) {
	handed, profile, release, err := store.Take(name, getenv)
	if err != nil {
		return nil, err
	}
	defer release() // the guard receives later changes
	from, err := filepath.Abs(filepath.Dir(store.Attached()))
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of providers: %w", err)
	}
	p := profile.Bind(handed)
	a := &proxyapi.Attachment{Store: from, Provider: *p}
	if err := askGuard(ctx, dir, func(c *proxyapi.Client) error { return c.Attach(ctx, a) }); err != nil {
		return nil, fmt.Errorf("attach provider %s: %w", name, err)
	}
	return provider.Placeholders(p), nil
}

// Detach removes a provider from the sandbox with the state folder dir. When it has
// returned, new connections get no value of it, and requests that contain its placeholders
// are refused.
func Detach(ctx context.Context, dir, name string) error {
	if err := askGuard(ctx, dir, func(c *proxyapi.Client) error { return c.Detach(ctx, name) }); err != nil {
		return fmt.Errorf("detach provider %s: %w", name, err)
	}
	return nil
}

// Providers returns the providers of the sandbox with the state folder dir.
func Providers(ctx context.Context, dir string) (all []proxyapi.Attached, err error) {
	err = askGuard(ctx, dir, func(c *proxyapi.Client) error {
		all, err = c.Providers(ctx)
		return err
	})
	return all, err
}
