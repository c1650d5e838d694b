// SPDX-License-Identifier: Apache-2.0

package credentials

// pairs is a set of two bytes in a row: a test that lets most of a text pass
// without a closer look, at a speed that does not depend on the text.
type pairs [1 << 16 / 64]uint64

func (p *pairs) add(x, y byte) {
	at := uint16(x)<<8 | uint16(y)
	p[at/64] |= 1 << (at % 64)
}

func (p *pairs) has(at uint16) bool { return p[at/64]&(1<<(at%64)) != 0 }

// next is the first position from i on at which a pair of the set stands, or the
// last byte of b, of which no pair is known.
func (p *pairs) next(b []byte, i int) int {
	if i >= len(b) {
		return len(b)
	}
	at := uint16(b[i])
	for k, c := range b[i+1:] {
		at = at<<8 | uint16(c)
		if p[at/64]&(1<<(at%64)) != 0 {
			return i + k
		}
	}
	return len(b) - 1
}
