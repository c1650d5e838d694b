// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestShare(t *testing.T) {
	b := New(0)
	if b.Limit() != Default || New(1).Limit() != Min {
		t.Fatalf("limits are %d and %d", b.Limit(), New(1).Limit())
	}
	greedy, other := b.Open(func() {}), b.Open(func() {})
	var taken int64
	for greedy.Try(1 << 20) {
		taken += 1 << 20
	}
	if free := b.Limit() - taken; taken < 1<<20 || taken > (free+1<<20)/Share {
		t.Errorf("one account took %d bytes and left %d", taken, free)
	}
	if !other.Try(Least) {
		t.Error("nothing is left for another")
	}
	greedy.Release(taken)
	other.Release(Least)
	if b.Used() != 0 {
		t.Errorf("%d bytes are held", b.Used())
	}
}

// TestLeast: each account may hold Least while the budget has room, and all together
// never hold more than the budget.
func TestLeast(t *testing.T) {
	b := New(Min)
	n := 0
	for b.Open(func() {}).Try(Least) {
		n++
	}
	if want := Min / Least; n != want {
		t.Errorf("%d accounts, want %d", n, want)
	}
	if b.Used() > b.Limit() {
		t.Errorf("%d bytes are held of %d", b.Used(), b.Limit())
	}
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Min)
		full, a := b.Open(func() {}), b.Open(func() {})
		full.Force(Min)
		began := time.Now()
		if err := a.Take(t.Context(), 1); !errors.Is(err, ErrExhausted) || time.Since(began) != Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		got := make(chan error, 1)
		go func() { got <- a.Take(t.Context(), 100) }()
		synctest.Wait()
		full.Release(99)
		synctest.Wait()
		select {
		case err := <-got:
			t.Errorf("99 bytes are free, 100 were taken: %v", err)
		default:
		}
		full.Release(1)
		if err := <-got; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Take(ctx, 1); !errors.Is(err, ErrExhausted) {
			t.Error(err)
		}
		if b.Used() != Min {
			t.Errorf("%d bytes are held", b.Used())
		}
	})
}

// TestCut: while an account waits, the account that holds most is cut, unless it holds
// about as much as the waiter.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Min)
		var cuts atomic.Int64
		open := func(n int64) (a *Account) {
			a = b.Open(func() {
				cuts.Add(1)
				a.Release(n)
			})
			a.Force(n)
			return a
		}
		const most, little = Min - 2*Least, Least - 1500
		greedy, small := open(most), open(Least)
		a := open(little)
		if err := a.Take(t.Context(), 2000); err != nil || greedy.held.Load() != 0 || small.held.Load() != Least || cuts.Load() != 1 {
			t.Errorf("%v, %d cuts; %d and %d bytes are held", err, cuts.Load(), greedy.held.Load(), small.held.Load())
		}
		full := b.Open(func() { t.Error("cut, but holds nothing more than others") })
		full.Close() // and is not looked at
		full.Force(b.Limit() - b.Used())
		if err := a.Take(t.Context(), 100); !errors.Is(err, ErrExhausted) || cuts.Load() != 1 {
			t.Errorf("%v, %d cuts", err, cuts.Load())
		}
	})
}

// TestCutOnce: while an account that was cut gives its memory back slowly, no other
// account is cut for the same waiter, and one is cut if that memory is not enough.
func TestCutOnce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		greedy int64
		needs  int64
		cuts   []string
	}{
		{"enough", 16 << 20, 1 << 20, []string{"greedy"}},
		{"not enough", 6 << 20, 4 << 20, []string{"greedy", "honest", "honest"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(Min)
				var mu sync.Mutex
				var cuts []string
				open := func(name string, n int64, after time.Duration) {
					var a *Account
					a = b.Open(func() {
						mu.Lock()
						defer mu.Unlock()
						cuts = append(cuts, name)
						time.AfterFunc(after, func() { a.Release(n) })
					})
					a.Force(n)
				}
				open("greedy", tc.greedy, Patience-time.Second)
				for i := range int64(4) {
					open("honest", 1200<<10+i, 0)
				}
				b.Open(func() {}).Force(Least) // is not cut
				rest := b.Open(func() { t.Error("cut after it was closed") })
				rest.Close()
				rest.Force(b.Limit() - b.Used() - 100)
				began := time.Now()
				err := b.Open(func() {}).Take(t.Context(), tc.needs)
				if err != nil {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				synctest.Wait()
				if !slices.Equal(cuts, tc.cuts) {
					t.Errorf("cut are %v, want %v", cuts, tc.cuts)
				}
			})
		})
	}
}

// TestCutHoldsOn: a waiter does not wait for an account that was cut Patience ago.
func TestCutHoldsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Min)
		var cuts []time.Duration
		began := time.Now()
		for _, n := range []int64{16 << 20, 15 << 20} {
			b.Open(func() { cuts = append(cuts, time.Since(began)) }).Force(n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*Patience)
		defer cancel()
		if err := b.Open(func() {}).Wait(ctx, 2<<20); !errors.Is(err, ErrExhausted) {
			t.Error(err)
		}
		if want := []time.Duration{cutAfter, cutAfter + Patience}; len(cuts) != 2 || cuts[0] != want[0] || cuts[1] < want[1] || cuts[1] > want[1]+cutAfter {
			t.Errorf("cut after %v, want %v", cuts, want)
		}
		if len(b.ending) != 0 {
			t.Errorf("%d accounts are kept", len(b.ending))
		}
	})
}

// TestEndedWaits: the waits of an account end when it is cut or closed, so that its
// holds come back at once.
func TestEndedWaits(t *testing.T) {
	for _, cut := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Min)
			a := b.Open(func() {})
			h := a.Hold(0)
			if !h.Try(10 << 20) {
				t.Fatal("no memory")
			}
			full := b.Open(func() {})
			full.Close()
			full.Force(b.Limit() - b.Used())
			began, got := time.Now(), make(chan time.Duration, 1)
			go func() {
				if err := h.Grow(context.Background(), 1<<20); !errors.Is(err, ErrExhausted) {
					t.Error(err)
				}
				got <- time.Since(began)
				h.Release()
			}()
			synctest.Wait()
			var want time.Duration
			if cut {
				want = cutAfter
				if err := b.Open(func() {}).Take(t.Context(), Least); err != nil {
					t.Error(err)
				}
			} else {
				a.Close()
			}
			if after := <-got; after != want {
				t.Errorf("cut %v: the wait ended after %v, want %v", cut, after, want)
			}
			a.Close()
			if err := a.Take(t.Context(), Min); !errors.Is(err, ErrExhausted) || time.Since(began) > want {
				t.Errorf("cut %v: %v after %v", cut, err, time.Since(began))
			}
			if b.waiting.Load() != 0 || len(b.queue) != 0 {
				t.Errorf("cut %v: %d waiters", cut, len(b.queue))
			}
		})
	}
}

// TestHolds: after holds that grow and shrink concurrently nothing is counted any more.
func TestHolds(t *testing.T) {
	b := New(Min)
	var tasks sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for range 64 {
		tasks.Go(func() {
			a := b.Open(func() {})
			defer a.Close()
			for ctx.Err() == nil {
				h := a.Hold(0)
				_ = h.Grow(ctx, 300<<10)
				if h.Try(300 << 10) {
					h.Shrink(100)
				}
				if b.Used() > Min {
					t.Errorf("%d bytes are held", b.Used())
				}
				h.Release()
			}
		})
	}
	tasks.Wait()
	if b.Used() != 0 || b.waiting.Load() != 0 || len(b.queue) != 0 || len(b.accounts) != 0 {
		t.Errorf("%d bytes, %d waiters, %d accounts", b.Used(), len(b.queue), len(b.accounts))
	}
}

func TestNil(t *testing.T) {
	h := FromContext(t.Context())
	if h != nil || h.New() != nil || h.Grow(t.Context(), 1<<40) != nil {
		t.Error("no hold counts")
	}
	h.Shrink(1)
	h.Release()
	var a *Account
	if h = a.Hold(1); h.Grow(t.Context(), 1<<40) != nil || h.Take() != 0 {
		t.Error("the hold of no account counts")
	}
	h.Add(1)
	set := New(0).Open(func() {}).Hold(1)
	if FromContext(NewContext(t.Context(), set)) != set || set.Take() != 1 {
		t.Error("another hold came back")
	}
}

func BenchmarkHold(b *testing.B) {
	a := New(0).Open(func() {})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		h := a.Hold(0)
		for pb.Next() {
			_ = h.Grow(context.Background(), 200<<10)
			h.Shrink(100 << 10)
			h.Release()
		}
	})
}

// TestReadAll: the bytes that are read are counted, and a claimed length is not.
func TestReadAll(t *testing.T) {
	b := New(Min)
	a := b.Open(func() {})
	const limit = 3 << 20
	for _, tc := range []struct {
		length int
		claim  int64
		err    error
	}{
		{0, -1, nil},
		{0, 0, nil},
		{100, 100, nil},
		{100, -1, nil},
		{firstRead, firstRead, nil},
		{firstRead + 1, -1, nil},
		{limit, limit, nil},
		{limit, -1, nil},
		{limit + 1, limit, ErrTooLong},
		{limit + 1, -1, ErrTooLong},
		{100, limit, nil},
	} {
		h := a.Hold(0)
		got, err := ReadAll(t.Context(), h, bytes.NewReader(make([]byte, tc.length)), tc.claim, limit)
		if !errors.Is(err, tc.err) || err == nil && len(got) != tc.length {
			t.Errorf("%+v: %d bytes, %v", tc, len(got), err)
		}
		if held := h.n.Load(); err == nil && (held < int64(cap(got)) || held > max(firstRead, 2*int64(tc.length)+1)) {
			t.Errorf("%+v: %d bytes are held for %d", tc, held, cap(got))
		}
		h.Release()
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes are held", b.Used())
	}
	small := b.Open(func() {})
	small.Force(b.Limit() - 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadAll(ctx, a.Hold(0), bytes.NewReader(make([]byte, limit)), -1, limit); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
}
