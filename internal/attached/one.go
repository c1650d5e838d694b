// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"context"
	"fmt"
	"path/filepath"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
)

// Attach gives the sandbox of a state folder one more provider, as it would have got it
// when it was created; its proxy uses it when Attach returns. env are the variables,
// NAME=VALUE, in which programs expect its credentials.
func Attach(ctx context.Context, store *provider.Store, dir, name string, getenv func(string) string) (env []string, err error) {
	handed, profile, release, err := store.Take(name, getenv)
	if err != nil {
		return nil, err
	}
	defer release() // what changes from then on, the guard is told
	from, err := filepath.Abs(filepath.Dir(store.Attached()))
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of providers: %w", err)
	}
	p := profile.Bind(handed)
	a := &proxyapi.Attachment{Store: from, Provider: *p}
	if err := patiently(ctx, dir, func(c *proxyapi.Client) error { return c.Attach(ctx, a) }); err != nil {
		return nil, fmt.Errorf("attach provider %s: %w", name, err)
	}
	return provider.Placeholders(p), nil
}

// Detach takes a provider from the sandbox of a state folder: what begins when it has
// returned gets no value of it, what names one is refused.
func Detach(ctx context.Context, dir, name string) error {
	if err := patiently(ctx, dir, func(c *proxyapi.Client) error { return c.Detach(ctx, name) }); err != nil {
		return fmt.Errorf("detach provider %s: %w", name, err)
	}
	return nil
}

// Providers are those that the sandbox of a state folder has.
func Providers(ctx context.Context, dir string) (all []proxyapi.Attached, err error) {
	err = patiently(ctx, dir, func(c *proxyapi.Client) error {
		all, err = c.Providers(ctx)
		return err
	})
	return all, err
}
