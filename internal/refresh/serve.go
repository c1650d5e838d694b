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
	// tick is the pause between two checks for due credentials. Values that expire within a
	// few ticks are still refreshed in time.
	tick = time.Second
	// idleTimeout is how long the refresher runs without a sandbox to work for.
	idleTimeout = 30 * time.Second
	// pollInterval is the pause between two queries for the running sandboxes.
	pollInterval = 10 * time.Second
)

// Serve refreshes the due credentials of the providers that running sandboxes have. It
// returns when ctx is done or when there has been no such sandbox for idleTimeout. It
// writes its actions to log.
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
		if now.Sub(counted) >= pollInterval {
			wanted, counted = r.wanted(ctx, say), now
		}
		if len(wanted) > 0 {
			needed = now
		} else if now.Sub(needed) > idleTimeout {
			return
		}
		for name := range wanted {
			// Each provider has its own goroutine, so that one whose origin does not answer
			// delays no other. A refresh that has begun is not canceled: its refresh token
			// may be used up.
			busy.begin(name, func() { r.attend(context.WithoutCancel(ctx), name, say) })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick):
		}
	}
}

// attend refreshes the due credentials of one provider.
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

// wanted returns the providers that running sandboxes have and that have an origin.
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

// working holds the providers that are being refreshed.
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
