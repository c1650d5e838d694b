// SPDX-License-Identifier: Apache-2.0

// Package memory is the memory budget of one worker: it counts the bytes that the
// worker holds for the sandbox's connections, and delays or refuses a request for
// bytes that the budget does not have.
//
// A [Budget] has an [Account] for each connection. An account may hold a fixed share
// of the memory that is free. The more the accounts hold together, the less each may
// take, and some memory stays free for the others. A [Hold] is the part of an account
// that one request holds.
//
// The numbers are estimates: the caller says how many bytes a thing costs before it
// makes the thing. Nothing here allocates memory for the caller.
//
// Waits are bounded by [Patience], so that a holder that waits for more memory blocks
// the others no longer than that. While an account waits, the budget cuts the account
// that holds most, if it holds more than [Least] and more than half as much again as
// the waiter: its connection and its own waits end, and it gives its memory back. The
// budget cuts another account only if that memory is not enough for the waiter, or is
// still held after Patience.
package memory

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrExhausted says that there was no memory for the caller in time.
var ErrExhausted = errors.New("the sandbox's connections use all the memory that the proxy has for them")

// Budget is a number of bytes that accounts share.
type Budget struct {
	limit int64
	used  atomic.Int64
	// waiting is the length of queue, for readers without mu.
	waiting atomic.Int64
	mu      sync.Mutex
	// queue has the waiters, the oldest first.
	queue []*waiter
	// accounts are the open accounts that have not been cut.
	accounts map[*Account]struct{}
	// ending are the accounts that were cut less than [Patience] ago.
	ending map[*Account]struct{}
}

// waiter is an account that waits for n bytes. least is as for [Account.try].
type waiter struct {
	a        *Account
	n, least int64
	// granted is closed once the account has the bytes.
	granted chan struct{}
}

// New returns a budget of limit bytes; 0 is [Default], and less than [Min] is Min.
func New(limit int64) *Budget {
	if limit == 0 {
		limit = Default
	}
	return &Budget{limit: max(limit, Min), accounts: map[*Account]struct{}{}, ending: map[*Account]struct{}{}}
}

// Limit returns the budget's size in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// Used returns how many bytes all accounts hold.
func (b *Budget) Used() int64 { return b.used.Load() }

// Open returns a new account that holds nothing. cut ends the account's connection; the
// budget calls it at most once, and it must not wait. The caller closes the account.
func (b *Budget) Open(cut func()) *Account {
	a := &Account{b: b, cut: cut, ended: make(chan struct{})}
	b.mu.Lock()
	b.accounts[a] = struct{}{}
	b.mu.Unlock()
	return a
}

// Close tells the budget that the account takes nothing more and need not be cut, and
// ends the account's waits. The caller releases the bytes that the account still holds.
func (a *Account) Close() {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	a.b.end(a)
}

// end ends the waits of an account and removes it from the accounts that can be cut.
// Preconditions: b.mu is held.
func (b *Budget) end(a *Account) {
	if _, open := b.accounts[a]; open {
		delete(b.accounts, a)
		close(a.ended)
	}
}

// Account counts the bytes that one connection holds of a budget. On a nil Account
// every Try, Take, Wait, Force and Release succeeds and counts nothing. It is safe for
// concurrent use.
type Account struct {
	b    *Budget
	held atomic.Int64
	cut  func()
	// ended is closed once the account is cut or closed.
	ended chan struct{}
}

// Try takes n bytes if they are free now and within the account's share or [Least].
func (a *Account) Try(n int64) bool { return a == nil || a.try(n, Least) }

// try takes n bytes if they are free now and the account then holds no more than its
// share or least.
func (a *Account) try(n, least int64) bool {
	for {
		used := a.b.used.Load()
		if !a.fits(used, n, least) {
			return false
		}
		if a.b.used.CompareAndSwap(used, used+n) {
			a.held.Add(n)
			return true
		}
	}
}

// fits reports whether the account may take n bytes while all accounts hold used bytes.
func (a *Account) fits(used, n, least int64) bool {
	free := a.b.limit - used
	return n <= free && a.held.Load()+n <= max(least, free/Share)
}

// Take takes n bytes, for which it waits at most [Patience], or until ctx or the
// account ends. An error is [ErrExhausted].
func (a *Account) Take(ctx context.Context, n int64) error {
	if a.Try(n) {
		return nil
	}
	return a.take(ctx, n, Least)
}

func (a *Account) take(ctx context.Context, n, least int64) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return a.wait(ctx, n, least)
}

// Wait takes n bytes, for which it waits until ctx or the account ends. An error is
// [ErrExhausted].
func (a *Account) Wait(ctx context.Context, n int64) error {
	if a.Try(n) {
		return nil
	}
	return a.wait(ctx, n, Least)
}

func (a *Account) wait(ctx context.Context, n, least int64) error {
	w := &waiter{a, n, least, make(chan struct{})}
	b := a.b
	b.mu.Lock()
	b.queue = append(b.queue, w)
	b.waiting.Add(1)
	b.grant() // bytes that were released since try failed, when nobody was in the queue
	b.mu.Unlock()
	pressed := time.NewTicker(cutAfter)
	defer pressed.Stop()
	for waiting := true; waiting; {
		select {
		case <-w.granted:
			return nil
		case <-pressed.C:
			b.cutFor(w)
		case <-a.ended:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.queue, w); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
		b.waiting.Add(-1)
		return ErrExhausted
	}
	return nil // granted meanwhile
}

// cutFor cuts the account that holds most, if that is more than [Least] and more than
// half as much again as the waiter's account holds. It cuts none if w is served once
// the ending accounts give back the bytes that they still hold.
func (b *Budget) cutFor(w *waiter) {
	if most := b.greediest(w); most != nil {
		most.cut()
	}
}

// greediest ends the account that has to be cut for w, and returns it; nil if there is
// none.
func (b *Budget) greediest(w *waiter) (most *Account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	used := b.used.Load()
	for a := range b.ending {
		used -= a.held.Load() // twice, if Release is about to change held: no cut this time
	}
	if w.a.fits(used, w.n, w.least) {
		return nil
	}
	held := max(w.a.held.Load()*3/2, Least)
	for a := range b.accounts {
		if h := a.held.Load(); a != w.a && h > held {
			most, held = a, h
		}
	}
	if most != nil {
		b.end(most)
		b.ending[most] = struct{}{}
		time.AfterFunc(Patience, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.ending, most)
		})
	}
	return most
}

// grant serves the waiters for whom there is memory, the oldest first. Preconditions:
// b.mu is held.
func (b *Budget) grant() {
	b.queue = slices.DeleteFunc(b.queue, func(w *waiter) bool {
		if !w.a.try(w.n, w.least) {
			return false
		}
		b.waiting.Add(-1)
		close(w.granted)
		return true
	})
}

// Force takes n bytes even if they are not free, for memory that is already in use.
func (a *Account) Force(n int64) {
	if a == nil {
		return
	}
	a.b.used.Add(n)
	a.held.Add(n)
}

// Release gives n bytes back.
func (a *Account) Release(n int64) {
	if a == nil || n == 0 {
		return
	}
	a.b.used.Add(-n) // before held: see greediest
	a.held.Add(-n)
	if a.b.waiting.Load() > 0 {
		a.b.mu.Lock()
		a.b.grant()
		a.b.mu.Unlock()
	}
}

type holdKey struct{}

// NewContext returns a context that carries h.
func NewContext(ctx context.Context, h *Hold) context.Context {
	return context.WithValue(ctx, holdKey{}, h)
}

// FromContext returns the hold of the request that ctx belongs to; nil without one.
func FromContext(ctx context.Context) *Hold {
	h, _ := ctx.Value(holdKey{}).(*Hold)
	return h
}

// Hold is the part of an account that one request holds. Its methods may be called
// concurrently, but none after Release. A nil Hold takes everything and counts
// nothing.
type Hold struct {
	a *Account
	n atomic.Int64
}

// Hold returns a hold that has n bytes, which the account has taken already. The hold of
// a nil account is nil.
func (a *Account) Hold(n int64) *Hold {
	if a == nil {
		return nil
	}
	h := &Hold{a: a}
	h.n.Store(n)
	return h
}

// Grow takes n more bytes, as [Account.Take] does, but never beyond the account's share:
// [Least] is for connections and requests, not for content. Content that finds no
// memory is refused, and the end of its request frees memory for others.
func (h *Hold) Grow(ctx context.Context, n int64) error {
	if h == nil {
		return nil
	}
	if !h.a.try(n, 0) {
		if err := h.a.take(ctx, n, 0); err != nil {
			return err
		}
	}
	h.n.Add(n)
	return nil
}

// Add gives the hold n bytes that the account has taken already.
func (h *Hold) Add(n int64) {
	if h != nil {
		h.n.Add(n)
	}
}

// Try is Grow without waiting.
func (h *Hold) Try(n int64) bool {
	if h == nil {
		return true
	}
	if !h.a.try(n, 0) {
		return false
	}
	h.n.Add(n)
	return true
}

// Shrink gives n bytes back.
func (h *Hold) Shrink(n int64) {
	if h != nil {
		h.n.Add(-n)
		h.a.Release(n)
	}
}

// Ended reports whether the account was cut or closed. Work that takes long must stop
// then: an account that waits needs the memory.
func (h *Hold) Ended() bool {
	if h == nil {
		return false
	}
	select {
	case <-h.a.ended:
		return true
	default:
		return false
	}
}

// Take empties the hold and returns how many bytes it had, which the caller releases.
func (h *Hold) Take() int64 {
	if h == nil {
		return 0
	}
	return h.n.Swap(0)
}

// Release gives back everything that the hold has.
func (h *Hold) Release() {
	if h != nil {
		h.a.Release(h.n.Swap(0))
	}
}

// New returns an empty hold of the same account.
func (h *Hold) New() *Hold {
	if h == nil {
		return nil
	}
	return h.a.Hold(0)
}

// ErrTooLong says that there is more to read than the limit.
var ErrTooLong = errors.New("it is too long")

// firstRead is how many bytes [ReadAll] takes first, unless the body is shorter.
const firstRead = 8 << 10

// ReadAll reads from to its end, at most limit bytes, and takes the memory by h. claim is
// the length that the sender has announced, negative if it has announced none. Beyond
// its first bytes ReadAll takes no more than twice the bytes that have arrived, so that
// an announced length costs nothing by itself. The error is that of from, [ErrTooLong]
// or [ErrExhausted].
func ReadAll(ctx context.Context, h *Hold, from io.Reader, claim int64, limit int) ([]byte, error) {
	size := firstRead
	if claim >= 0 && claim < firstRead {
		size = int(claim) + 1 // for its end
	}
	var buf []byte
	for {
		if len(buf) == cap(buf) {
			if size = max(size, 2*len(buf)); size > limit/2 {
				size = limit + 1 // to see whether there is more
			}
			if err := h.Grow(ctx, int64(size)); err != nil {
				return nil, err
			}
			before := cap(buf)
			buf = append(make([]byte, 0, size), buf...)
			h.Shrink(int64(before))
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, ErrTooLong
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
