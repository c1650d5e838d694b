// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"openshell.dev/runtime/internal/attached"
	"openshell.dev/runtime/internal/provider"
)

const (
	// tick is the pause between two looks at what is due. Values that end sooner
	// than a few of them are asked for in time all the same.
	tick = time.Second
	// alone is how long the refresher stays without a sandbox to work for.
	alone = 30 * time.Second
	// census is the pause between two questions which sandboxes there are.
	census = 10 * time.Second
)

// Serve refreshes what is due of the providers that running sandboxes have, until
// ctx ends or there have been none for a while. It writes to log what it did.
func (r *Refresher) Serve(ctx context.Context, log io.Writer) {
	say := func(format string, args ...any) {
		fmt.Fprintf(log, "%s %s\n", time.Now().UTC().Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	say("refresher started")
	defer say("refresher ended")
	var wanted map[string]bool
	var counted, needed time.Time
	busy := &working{names: map[string]bool{}}
	defer busy.all.Wait()
	for needed = time.Now(); ; {
		now := time.Now()
		if now.Sub(counted) >= census {
			wanted, counted = r.wanted(ctx, say), now
		}
		if len(wanted) > 0 {
			needed = now
		} else if now.Sub(needed) > alone {
			return
		}
		for name := range wanted {
			// A provider whose origin does not answer keeps no other waiting.
			// What has begun is not broken off: a refresh token may be spent by then.
			busy.begin(name, func() { r.attend(context.WithoutCancel(ctx), name, say) })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick):
		}
	}
}

// attend refreshes what is due of one provider.
func (r *Refresher) attend(ctx context.Context, name string, say func(string, ...any)) {
	p, err := r.Store.Get(name)
	if errors.Is(err, provider.ErrNotFound) {
		return // the sandboxes were told when it was deleted
	}
	if err == nil {
		due := p.Due(time.Now())
		if len(due) == 0 {
			return
		}
		err = r.Refresh(ctx, name, nil, true)
	}
	if err != nil {
		say("%v", err)
		return
	}
	say("provider %s was refreshed", name)
}

// wanted are the providers that running sandboxes have and that are made anew.
func (r *Refresher) wanted(ctx context.Context, say func(string, ...any)) map[string]bool {
	all, err := attached.List(ctx, r.Store)
	if err != nil {
		say("%v", err)
	}
	out := map[string]bool{}
	for _, s := range all {
		for _, p := range s.Providers {
			if p.Renewed {
				out[p.Name] = true
			}
		}
	}
	return out
}

// working are the providers that are being attended to.
type working struct {
	mu    sync.Mutex
	names map[string]bool
	all   sync.WaitGroup
}

func (w *working) begin(name string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.names[name] {
		return
	}
	w.names[name] = true
	w.all.Go(func() {
		f()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.names, name)
	})
}
