// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"hash/maphash"
	"strings"
	"time"
)

const (
	// Deny is the verdict of refusals.
	Deny = "deny"
	// Failed is the verdict for a connection or request that the policy allows but that
	// failed: the name did not resolve, no address answered, or the TLS handshake failed.
	Failed = "failed"
)

// folder decides which refusals get a record of their own. The first ownRecords of each
// kind get one at once. Later ones are counted, and every foldInterval one record reports
// their number. A workload can vary its refusals at will, so all records of refusals
// together have a budget in bytes. A refusal of a new kind is counted by layer and policy
// alone if the budget is used up or maxKinds kinds are counted. Part of both limits is
// reserved for the first refusals of new places: paths are easier to vary than hosts, and
// operators look for new hosts. The zero value is not usable; see newFolder.
type folder struct {
	seed  maphash.Seed
	kinds map[uint64]*kind
	// places maps each place to its number of kinds.
	places map[uint64]int
	rest   map[group]*count
	// newPlaces is the budget for the first refusals of new places, for use when budget has
	// no room.
	budget, newPlaces budget
}

// kind is a set of refusals that differ only in the time, the process, and digits in the
// reason (the client's port is one).
type kind struct {
	like Record // what they have in common
	count
	cost int64 // bytes of a record that counts them
	// own is the number of refusals of the kind that have a record of their own.
	own int
	// place is the hash of the layer, the host, the port and the program.
	place uint64
}

// group is a set of refusals whose kinds are not counted separately. The workload cannot
// create many groups: their fields come from the proxy and the policy.
type group struct {
	layer, policy string
	revision      int
}

// count holds the number of refusals that no record has reported yet, and the times of the
// first and the last one.
type count struct {
	n           uint64
	first, last time.Time
}

func (c *count) add(at time.Time) {
	if c.n == 0 {
		c.first = at
	}
	c.n, c.last = c.n+1, at
}

func newFolder(now time.Time) folder {
	return folder{
		seed: maphash.MakeSeed(), kinds: map[uint64]*kind{}, places: map[uint64]int{}, rest: map[group]*count{},
		budget:    newBudget(refusalBurst-placeBurst, refusalRate-placeRate, now),
		newPlaces: newBudget(placeBurst, placeRate, now),
	}
}

// first reports whether the refusal r gets a record of its own. If not, it counts r.
func (f *folder) first(r *Record) bool {
	id := f.kindOf(r)
	if k := f.kinds[id]; k != nil {
		// Once one of a kind is counted, the later ones are, too, so that records stay in
		// order.
		if k.n == 0 && k.own < ownRecords && f.budget.take(r.Time, cost(r), reservedBytes) {
			k.own++
			return true
		}
		k.add(r.Time)
		return false
	}
	cost, place := cost(r), f.placeOf(r)
	if f.room(r.Time, cost, f.places[place] == 0) {
		f.kinds[id] = &kind{like: likeness(r), cost: cost, own: 1, place: place}
		f.places[place]++
		return true
	}
	g := group{r.Layer, r.Policy, r.Revision}
	if f.rest[g] == nil && len(f.rest) >= maxGroups {
		g = group{layer: r.Layer}
	}
	if f.rest[g] == nil {
		f.rest[g] = &count{}
	}
	f.rest[g].add(r.Time)
	return false
}

// room takes n bytes from the budget for a refusal of a new kind, or returns false.
func (f *folder) room(now time.Time, n int64, newPlace bool) bool {
	return len(f.kinds) < maxKinds-placeKinds && f.budget.take(now, n, reservedBytes) ||
		newPlace && len(f.kinds) < maxKinds && f.newPlaces.take(now, n, 0)
}

// remove forgets a kind.
func (f *folder) remove(id uint64, k *kind) {
	delete(f.kinds, id)
	if f.places[k.place]--; f.places[k.place] == 0 {
		delete(f.places, k.place)
	}
}

// forget undoes a call of first that returned true: the queue had no room for the record of
// r, and the next refusal of its kind may have one.
func (f *folder) forget(r *Record) {
	id := f.kindOf(r)
	if k := f.kinds[id]; k.own > 1 {
		k.own--
	} else {
		f.remove(id, k)
	}
}

// due calls put with a record of each count, until the budget is used up or put returns
// false; the remaining ones stay counted. If all is true, it ignores the budget. It removes
// kinds without new refusals.
func (f *folder) due(now time.Time, all bool, put func(Record) bool) {
	write := func(r Record, c *count, cost int64) bool {
		if !all && !f.budget.take(now, cost, 0) {
			return false
		}
		r.Time, r.Count, r.First, r.Last = now, c.n, c.first, c.last
		return put(r)
	}
	for g, c := range f.rest {
		r := Record{Verdict: Deny, Layer: g.layer, Policy: g.policy, Revision: g.revision, Reason: restReason}
		if write(r, c, cost(&r)) {
			delete(f.rest, g)
		}
	}
	for id, k := range f.kinds {
		switch {
		case k.n == 0:
			f.remove(id, k)
		case write(k.like, &k.count, k.cost):
			k.count = count{}
		}
	}
}

// empty reports whether nothing is counted and no kind is known.
func (f *folder) empty() bool { return len(f.kinds)+len(f.rest) == 0 }

// restReason is the reason in the record of a group.
const restReason = "refusals of more kinds than are recorded one by one"

// likeness returns a record with the fields that all refusals of r's kind share. It copies
// the strings, because those in r may be parts of longer ones.
func likeness(r *Record) Record {
	return Record{
		Verdict: r.Verdict, Layer: r.Layer, Binary: strings.Clone(r.Binary), Host: strings.Clone(r.Host), Port: r.Port, Address: strings.Clone(r.Address), Protocol: r.Protocol,
		Method: strings.Clone(r.Method), Path: strings.Clone(r.Path), Policy: r.Policy, Rule: strings.Clone(r.Rule), Line: r.Line,
		Reason: strings.Clone(r.Reason), Revision: r.Revision, Status: r.Status,
	}
}

// kindOf returns a hash of the fields that define a kind. The seed is secret, so that a
// workload cannot construct two kinds with the same hash.
func (f *folder) kindOf(r *Record) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	for _, s := range [...]string{r.Layer, r.Binary, r.Host, r.Address, r.Protocol, r.Method, r.Path, r.Policy, r.Rule} {
		_, _ = h.WriteString(s) // never fails
		_ = h.WriteByte(0)
	}
	for i := range len(r.Reason) {
		if c := r.Reason[i]; c < '0' || c > '9' {
			_ = h.WriteByte(c)
		}
	}
	maphash.WriteComparable(&h, [...]int{int(r.Port), r.Line, r.Revision, r.Status})
	return h.Sum64()
}

// placeOf returns a hash of the fields that define a place.
func (f *folder) placeOf(r *Record) uint64 {
	return maphash.Comparable(f.seed, struct {
		layer, host, binary string
		port                uint16
	}{r.Layer, r.Host, r.Binary, r.Port})
}

// cost returns an upper limit for the length of r's line in bytes.
func cost(r *Record) int64 {
	n := lineOverhead
	add := func(s string) {
		for i := range len(s) {
			if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
				n += len(`\u0000`)
			} else {
				n++
			}
		}
	}
	for _, s := range [...]string{r.Container, r.Verdict, r.Layer, r.Binary, r.Digest, r.Host, r.Address, r.Protocol, r.Method, r.Path, r.Policy, r.Rule, r.Model, r.Reason} {
		add(s)
	}
	for _, list := range [...][]string{r.Ancestors, r.Credentials, r.Placeholders} {
		for _, s := range list {
			n += len(`"",`)
			add(s)
		}
	}
	for _, m := range r.Middlewares {
		n += lineOverhead
		add(m.Name)
		add(m.Failed)
	}
	return int64(n)
}

// budget is a token bucket of bytes. It holds at most burst bytes and gains rate bytes per
// second.
type budget struct {
	left, burst, rate int64
	at                time.Time
}

func newBudget(burst, rate int64, now time.Time) budget {
	return budget{left: burst, burst: burst, rate: rate, at: now}
}

// take takes n bytes if at least reserve bytes are left afterwards.
func (b *budget) take(now time.Time, n, reserve int64) bool {
	if d := now.Sub(b.at); d >= time.Second {
		seconds := min(int64(d/time.Second), b.burst/b.rate+1)
		b.left, b.at = min(b.burst, b.left+seconds*b.rate), now
	}
	if b.left-n < reserve {
		return false
	}
	b.left -= n
	return true
}
