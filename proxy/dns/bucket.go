// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"sync"
	"time"
)

// bucket is a token bucket. It begins full.
type bucket struct {
	perSecond, burst float64

	mu   sync.Mutex
	used float64
	last time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := now.Sub(b.last); d > 0 {
		b.used = max(0, b.used-d.Seconds()*b.perSecond)
		b.last = now
	}
	if b.used+1 > b.burst {
		return false
	}
	b.used++
	return true
}
