// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"container/list"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// The synthetic addresses. The first range is set aside for benchmarks (RFC 2544)
// and reaches nothing; the second is a unique local one (RFC 4193) of ours.
var (
	Prefix4 = netip.MustParsePrefix("198.18.0.0/15")
	Prefix6 = netip.MustParsePrefix("fd6f:7368:656c:6c00::/64")
)

// poolSize leaves out the first and the last address of Prefix4. Both families
// have as many: a name has the same number in both.
const poolSize = 1<<17 - 2

// pool gives names their numbers, 1 to poolSize.
type pool struct {
	mu       sync.Mutex
	byName   map[string]*list.Element // of mapping
	byNumber map[uint32]*list.Element
	order    list.List // newest use first
	next     uint32
	minted   bucket
}

type mapping struct {
	name   string
	number uint32
}

// newPool begins anywhere: addresses that clients remember from a proxy before
// this one should be nobody's, not another name's.
func newPool() *pool {
	return &pool{
		byName:   make(map[string]*list.Element),
		byNumber: make(map[uint32]*list.Element),
		next:     1 + rand.Uint32N(poolSize),
		minted:   bucket{perSecond: MaxNewNames, burst: NewNamesBurst},
	}
}

// number returns a name's number, a new one if it has none; false if too many
// names are new.
func (p *pool) number(name string, now time.Time) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if el, ok := p.byName[name]; ok {
		p.order.MoveToFront(el)
		return el.Value.(mapping).number, true
	}
	if !p.minted.take(now) {
		return 0, false
	}
	if p.order.Len() == MaxNames {
		old := p.order.Remove(p.order.Back()).(mapping)
		delete(p.byName, old.name)
		delete(p.byNumber, old.number)
	}
	for p.byNumber[p.next] != nil {
		p.advance()
	}
	m := mapping{name, p.next}
	p.advance()
	el := p.order.PushFront(m)
	p.byName[name], p.byNumber[m.number] = el, el
	return m.number, true
}

func (p *pool) advance() { p.next = p.next%poolSize + 1 }

func (p *pool) name(number uint32) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	el, ok := p.byNumber[number]
	if !ok {
		return "", false
	}
	p.order.MoveToFront(el)
	return el.Value.(mapping).name, true
}

func address4(number uint32) netip.Addr {
	b := Prefix4.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+number)
	return netip.AddrFrom4(b)
}

func address6(number uint32) netip.Addr {
	b := Prefix6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], number)
	return netip.AddrFrom16(b)
}

// numberOf is the other way around; zero if addr is no synthetic address.
func numberOf(addr netip.Addr) uint32 {
	addr = addr.Unmap()
	if Prefix4.Contains(addr) {
		b, base := addr.As4(), Prefix4.Addr().As4()
		return binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
	}
	if b := addr.As16(); Prefix6.Contains(addr) && binary.BigEndian.Uint32(b[8:]) == 0 {
		return binary.BigEndian.Uint32(b[12:])
	}
	return 0
}
