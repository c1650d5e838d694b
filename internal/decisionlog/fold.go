// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"hash/maphash"
	"strings"
	"time"
)

// Deny is the verdict of refusals.
const Deny = "deny"

// folder decides which refusals get a record of their own. The first ones of each kind
// do, at once; those that follow are counted, and every foldInterval one record says how
// many there were. A workload can make its refusals differ as it likes, so all of their
// records together have a budget in bytes. A refusal of a new kind that the budget has
// no room for is counted by its layer and policy, and so is one when maxKinds kinds are
// being counted. The zero value is not usable: see newFolder.
type folder struct {
	seed   maphash.Seed
	kinds  map[uint64]*kind
	rest   map[group]*count
	budget budget
}

// kind are refusals that differ in nothing but time, process, and digits in the reason,
// where ports of clients stand.
type kind struct {
	like Record
	count
	cost int64
	// own is how many have got a record of their own.
	own int
}

// group is the refusals of more kinds than have records of their own. Its fields are
// ours and the policy's: the workload cannot make many groups.
type group struct {
	layer, policy string
	revision      int
}

// count is how many refusals no record has told of, and the times of the first and the
// last.
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
		seed: maphash.MakeSeed(), kinds: map[uint64]*kind{}, rest: map[group]*count{},
		budget: budget{left: refusalBurst, at: now},
	}
}

// first says whether r, a refusal, gets a record of its own. If not, it is counted.
func (f *folder) first(r *Record) bool {
	id := f.kindOf(r)
	if k := f.kinds[id]; k != nil {
		// With some counted already, the counting record tells the order.
		if k.n == 0 && k.own < ownRecords && f.budget.take(r.Time, cost(r), reservedBytes) {
			k.own++
			return true
		}
		k.add(r.Time)
		return false
	}
	cost := cost(r)
	if len(f.kinds) < maxKinds && f.budget.take(r.Time, cost, reservedBytes) {
		f.kinds[id] = &kind{like: likeness(r), cost: cost, own: 1}
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

// forget takes back what first has said of r, for which there was no place: the next
// refusal like it may have a record of its own.
func (f *folder) forget(r *Record) {
	id := f.kindOf(r)
	if k := f.kinds[id]; k.own > 1 {
		k.own--
	} else {
		delete(f.kinds, id)
	}
}

// due calls put with the records of what was counted, as far as the budget reaches and
// put returns true; the rest stays counted. With all the budget is not asked. A kind of
// which none has followed is forgotten.
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
			delete(f.kinds, id)
		case write(k.like, &k.count, k.cost):
			k.count = count{}
		}
	}
}

// empty says that nothing is counted and no kind is known.
func (f *folder) empty() bool { return len(f.kinds)+len(f.rest) == 0 }

// restReason is the reason in the record of a group.
const restReason = "refusals of more kinds than are recorded one by one"

// likeness is what refusals of one kind have in common. The texts are copies: those of
// r may be parts of longer ones.
func likeness(r *Record) Record {
	return Record{
		Verdict: r.Verdict, Layer: r.Layer, Binary: strings.Clone(r.Binary), Host: strings.Clone(r.Host), Port: r.Port, Protocol: r.Protocol,
		Method: strings.Clone(r.Method), Path: strings.Clone(r.Path), Policy: r.Policy, Rule: strings.Clone(r.Rule), Line: r.Line,
		Reason: strings.Clone(r.Reason), Revision: r.Revision, Status: r.Status,
	}
}

// kindOf hashes what makes a kind. The seed is secret, so that a workload cannot have
// one refusal counted as another.
func (f *folder) kindOf(r *Record) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	for _, s := range [...]string{r.Layer, r.Binary, r.Host, r.Protocol, r.Method, r.Path, r.Policy, r.Rule} {
		_, _ = h.WriteString(s) // never fails
		_ = h.WriteByte(0)
	}
	for i := range len(r.Reason) {
		if c := r.Reason[i]; c < '0' || c > '9' {
			_ = h.WriteByte(c)
		}
	}
	for _, n := range [...]int{int(r.Port), r.Line, r.Revision, r.Status} {
		for ; n > 0; n >>= 8 {
			_ = h.WriteByte(byte(n))
		}
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// cost is at least how many bytes the line of r takes.
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
	for _, list := range [...][]string{r.Ancestors, r.Credentials} {
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

// budget is a token bucket of bytes.
type budget struct {
	left int64
	at   time.Time
}

// take takes n bytes if that leaves reserve.
func (b *budget) take(now time.Time, n, reserve int64) bool {
	if d := now.Sub(b.at); d >= time.Second {
		seconds := min(int64(d/time.Second), refusalBurst/refusalRate)
		b.left, b.at = min(refusalBurst, b.left+seconds*refusalRate), now
	}
	if b.left-n < reserve {
		return false
	}
	b.left -= n
	return true
}
