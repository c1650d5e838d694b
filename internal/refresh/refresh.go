// SPDX-License-Identifier: Apache-2.0

// Package refresh keeps a store's credentials fresh: it asks their origins when they
// are due, stores what comes, and tells the sandboxes that have them. What fails is
// tried again, ever less often, and the old value stays until its end.
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
)

const (
	// backoffFirst and backoffMost bound the pause after a failure.
	backoffFirst = 5 * time.Second
	backoffMost  = 5 * time.Minute
	// usualBefore is how long before its end a value is made anew, if its profile
	// does not say; never before half of its life.
	usualBefore = 5 * time.Minute
	// again is the pause after which a source without an end is read anew.
	again = time.Minute
	// soonest keeps an endpoint whose values end at once from being asked all the
	// time.
	soonest = time.Second
)

// Refresher works on one store.
type Refresher struct {
	Store *provider.Store
	// Origins is what origins work with, at each time they are asked.
	Origins func() (origin.Config, error)
}

// Refresh asks the origins of a provider's credentials, which are all without names,
// and with due only those whose time has come. What was made is stored and in use in
// all sandboxes when it returns.
//
// Of several that do so at once one asks; the others find that it is not due any
// more, unless they insist.
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
			return fmt.Errorf("provider %s: nothing makes credential %s; openshell provider refresh configure says what does", name, c)
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

// one asks the origin of one credential and stores what it says.
// Preconditions: the provider is locked for refreshing.
func (r *Refresher) one(ctx context.Context, p *provider.Provider, name string) (changed bool, err error) {
	asked := p.Origins[name]
	c, err := r.Origins()
	if err != nil {
		return false, err
	}
	c.Now = time.Now
	made, asking := origin.Fetch(ctx, c, asked)
	// What was made is kept even if whoever asked has given up: a refresh token may
	// have been spent on it.
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

var errReplaced = errors.New("where it comes from was configured anew meanwhile: what the old origin made is not used")

// outputs checks that everything is there that is to be stored.
func outputs(o *provider.Origin, m *origin.Made) error {
	for output := range o.Outputs {
		if _, ok := m.Outputs[output]; !ok {
			return fmt.Errorf("its origin makes no %s", output)
		}
	}
	return nil
}

// take stores a value and says whether it is another than before, or ends later.
func take(p *provider.Provider, credential string, v provider.Secret, expires time.Time) bool {
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

// next is when a value is made anew that ends at expires.
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

// backoff is the pause after so many failures in a row.
func backoff(failures int) time.Duration {
	pause := backoffFirst
	for range failures - 1 {
		if pause *= 2; pause >= backoffMost {
			return backoffMost
		}
	}
	return pause
}
