// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"testing"
	"time"
)

func TestBypass_B31_ManyNames(t *testing.T) {
	p := newPool()
	now := time.Now()
	start := now
	seen := make(map[uint32]time.Time)
	for i := range 2 * poolSize {
		// As fast as it goes.
		name := fmt.Sprintf("n%d.example", i)
		n, ok := p.number(name, now)
		for !ok {
			now = now.Add(time.Second / MaxNewNames)
			n, ok = p.number(name, now)
		}
		if n < 1 || n > poolSize {
			t.Fatalf("number %d", n)
		}
		if last, ok := seen[n]; ok && now.Sub(last) < 8*time.Minute {
			t.Fatalf("an address has another name after %v", now.Sub(last))
		}
		seen[n] = now
		if len(p.byName) > MaxNames || len(p.byNumber) > MaxNames || p.order.Len() > MaxNames {
			t.Fatal("too many names are kept")
		}
	}
	if len(seen) != poolSize {
		t.Errorf("%d addresses of %d are used", len(seen), poolSize)
	}
	if d := now.Sub(start); d < 15*time.Minute {
		t.Errorf("all addresses twice in %v", d)
	}
}

func TestNamesInUseStay(t *testing.T) {
	p := newPool()
	p.minted.burst = 1e9
	asked, _ := p.number("asked.example", time.Now())
	connected, _ := p.number("connected.example", time.Now())
	idle, _ := p.number("idle.example", time.Now())
	for i := range 3 * poolSize {
		if _, ok := p.number(fmt.Sprint(i), time.Now()); !ok {
			t.Fatal("too fast")
		}
		if i%1000 != 0 {
			continue
		}
		if n, _ := p.number("asked.example", time.Now()); n != asked {
			t.Fatal("a name that is asked for changed its address")
		}
		if n, _ := p.name(connected); n != "connected.example" {
			t.Fatal("an address that is used lost its name")
		}
	}
	if n, ok := p.name(idle); ok && n == "idle.example" {
		t.Error("an idle name is kept")
	}
}

func TestBucket(t *testing.T) {
	now := time.Now()
	b := bucket{perSecond: 10, burst: 3}
	for i, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, true}, {0, true}, {0, false}, {99 * time.Millisecond, false}, {2 * time.Millisecond, true}, {0, false}, {-time.Hour, false}, {2 * time.Hour, true}, {0, true}, {0, true}, {0, false}} {
		now = now.Add(c.after)
		if got := b.take(now); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
