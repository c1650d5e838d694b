// SPDX-License-Identifier: Apache-2.0

// Package refresh keeps the credentials of a store fresh. It fetches them from their
// origins when they are due, stores the results, and sends them to the sandboxes that use
// them. A failed fetch is repeated after increasing pauses, and the old value stays in use
// until it expires.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/origin"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

const (
	// backoffFirst and backoffMost are the shortest and the longest pause after a failure.
	backoffFirst = 5 * time.Second
	backoffMost  = 5 * time.Minute
	// usualBefore is how long before its expiry a value is refreshed, if its profile does
	// not say. A value is never refreshed before half of its lifetime.
	usualBefore = 5 * time.Minute
	// again is the pause after which a source whose values do not expire is read again.
	again = time.Minute
	// soonest is the shortest time until a refresh, so that an endpoint whose values expire
	// at once is not asked continuously.
	soonest = time.Second
)

// Refresher refreshes the credentials of one store. Both fields are required.
type Refresher struct {
	Store *provider.Store
	// Origins returns the configuration for a fetch. It is called for each one, so that a
	// changed CA file takes effect.
	Origins func() (origin.Config, error)
}

// Refresh fetches the credentials of a provider from their origins: the named credentials,
// or all if credentials is empty. If due is true, it fetches only the credentials that are
// due. When it returns, the results are stored and in use in all sandboxes.
//
// If several processes call it at once, one of them fetches. With due, the others find that
// the credential is no longer due.
func (r *Refresher) Refresh(ctx context.Context, name string, credentials []string, due bool) error {
	release, err := r.Store.Lock(name, provider.Refreshing)
	if err != nil {
		return err
	}
	defer release()
	p, err := r.Store.Get(name)
	if err != nil {
		return err
	}
	asked := p.Due(time.Now())
	if !due {
		asked = asked[:0]
		for k, o := range p.Origins {
			if o.Kind != provider.FromEnvironment {
				asked = append(asked, k)
			}
		}
		slices.Sort(asked)
	}
	for _, c := range credentials {
		if o := p.Origins[c]; o == nil || o.Kind == provider.FromEnvironment {
			return fmt.Errorf("provider %s: credential %s has no origin; openshell provider refresh configure sets one", name, c)
		}
	}
	var failed []error
	changed := false
	for _, c := range asked {
		if len(credentials) > 0 && !slices.Contains(credentials, c) {
			continue
		}
		values, err := r.one(ctx, p, c)
		changed = changed || values
		if err != nil {
			failed = append(failed, fmt.Errorf("provider %s: credential %s: %w", name, c, err))
		}
	}
	if changed {
		_, err := attached.Announce(ctx, r.Store, name)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// one fetches one credential from its origin and stores it. Preconditions: the provider is
// locked for refreshing.
func (r *Refresher) one(ctx context.Context, p *provider.Provider, name string) (changed bool, err error) {
	asked := p.Origins[name]
	c, err := r.Origins()
	if err != nil {
		return false, err
	}
	c.Now = time.Now
	made, asking := origin.Fetch(ctx, c, asked)
	// The result is stored even if the caller has given up: a refresh token may have been
	// used up for it.
	_, err = r.Store.Update(p.Name, func(now *provider.Provider) (bool, error) {
		o := now.Origins[name]
		if o == nil || !o.Configured.Equal(asked.Configured) {
			return false, errReplaced
		}
		if asking == nil {
			asking = outputs(o, made)
		}
		at := time.Now().UTC()
		o.Status.Tried = at
		if asking != nil {
			o.Status.Failures++
			o.Status.Error, o.Status.Next = asking.Error(), at.Add(backoff(o.Status.Failures))
			return false, nil //nolint:nilerr // it is told in the status
		}
		o.Status = provider.Status{Tried: at, Succeeded: at, Next: next(o, at, made.Expires)}
		for k, v := range made.Material {
			o.Material[k] = v
		}
		changed = take(now, name, made.Value, made.Expires)
		for output, credential := range o.Outputs {
			changed = take(now, credential, made.Outputs[output], made.Expires) || changed
		}
		return changed, nil
	})
	if err != nil {
		return false, err
	}
	return changed, asking
}

var errReplaced = errors.New("its origin was reconfigured meanwhile: the result of the old one is not used")

// outputs checks that m has every value that is to be stored.
func outputs(o *provider.Origin, m *origin.Made) error {
	for output := range o.Outputs {
		if _, ok := m.Outputs[output]; !ok {
			return fmt.Errorf("its origin returned no %s", output)
		}
	}
	return nil
}

// take stores a value and reports whether the value or its expiry changed.
func take(p *provider.Provider, credential string, v secret.Secret, expires time.Time) bool {
	old, had := p.Values[credential]
	same := had && old.Reveal() == v.Reveal() && p.Expires[credential].Equal(expires)
	p.Values[credential] = v
	if expires.IsZero() {
		delete(p.Expires, credential)
	} else {
		if p.Expires == nil {
			p.Expires = map[string]time.Time{}
		}
		p.Expires[credential] = expires.UTC()
	}
	return !same
}

// next returns the time to refresh a value that expires at expires.
func next(o *provider.Origin, now, expires time.Time) time.Time {
	if expires.IsZero() {
		return now.Add(again)
	}
	before := o.Before
	if before <= 0 {
		before = usualBefore
	}
	life := expires.Sub(now)
	return now.Add(max(soonest, life-min(before, life/2)))
}

// backoff returns the pause after the given number of failures in a row.
func backoff(failures int) time.Duration {
	pause := backoffFirst
	for range failures - 1 {
		if pause *= 2; pause >= backoffMost {
			return backoffMost
		}
	}
	return pause
}
